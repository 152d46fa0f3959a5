import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter, type Interceptor } from "@connectrpc/connect";
import { rpcHandler } from "./adapter.ts";
import { grpcHandler } from "./grpc/handler.ts";
import { type Pages, pageHandler } from "./http.ts";
import { Usage } from "./limits.ts";
import { Listener } from "./listener.ts";
import type { Log } from "./log.ts";
import type { TlsMaterial } from "./tls.ts";

/** Time for calls to end by themselves once they are told to, before their connections are dropped. */
const LAST_WORDS_MS = 1000;

export interface ServerOptions {
  /** GRPC_ADDR: `host:port`, `[IPv6]:port` or `:port`; port 0 is any free one. */
  readonly address: string;
  readonly routes: (router: ConnectRouter) => void;
  readonly log: Log;
  /** Largest message received, in bytes, after decompression; a larger one is RESOURCE_EXHAUSTED (ruling 12). */
  readonly maxMessageBytes: number;
  readonly interceptors?: Interceptor[];
  /** Told of each call that no interceptor has seen; undefined: of a method that is not there. */
  readonly refused?: (method: DescMethod | undefined, code: Code) => void;
  /** The limits, and what is in use of them; DEFAULT_LIMITS without it. */
  readonly usage?: Usage;
  /**
   * Called when the time of `close` is up, before the signals abort: calls that end with words of their own say them now.
   * Waited for a second at most.
   */
  readonly lastCall?: () => Promise<void>;
  /** Plain HTTP beside the calls. */
  readonly pages?: Pages;
  /** For the port; undefined: cleartext. The Unix socket has none. */
  readonly tls?: TlsMaterial | undefined;
}

export interface RunningServer extends AsyncDisposable {
  readonly address: { host: string; port: number };
  /** Serves the same on a Unix socket as well. Throws `listen on <path>: <cause>`. */
  listenOnSocket(path: string): Promise<void>;
  /** Another certificate, key or CA for the connections to come. Throws when they do not fit each other, and keeps the old. */
  renewTls(material: TlsMaterial): void;
  /** Resolves with the cause when the port, or that socket, can no longer be served. */
  readonly failed: Promise<Error>;
  /**
   * Takes no new connections and calls, lets running calls end for up to `graceMs`, then makes the last call, aborts the
   * signals of those that go on with UNAVAILABLE and, a second later, drops what is left. Resolves when no connection is left. A second call may shorten
   * the time, never lengthen it.
   */
  close(graceMs: number): Promise<void>;
}

/** Serves `routes` by gRPC, gRPC-Web and Connect on one port, over HTTP/1.1 and HTTP/2, with TLS or without (ruling 13). */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { log, usage = new Usage() } = options;
  const shutdown = new AbortController();
  let closing: ConnectError | undefined;
  const serving = { ...options, usage, shutdownSignal: shutdown.signal, closed: () => closing };
  const handle = pageHandler(options.pages ?? {}, rpcHandler(serving), log);
  const listener = new Listener({ handle, handleStream: grpcHandler(serving), log, tls: options.tls, usage });
  const address = await listener.listen(options.address);

  const close = async (graceMs: number): Promise<void> => {
    closing ??= new ConnectError("the runner is shutting down", Code.Unavailable);
    listener.drain();
    if (await endsWithin(listener.closed, graceMs)) return;
    if (options.lastCall !== undefined)
      await endsWithin(Promise.race([options.lastCall(), listener.closed]), LAST_WORDS_MS);
    shutdown.abort(closing);
    if (await endsWithin(listener.closed, LAST_WORDS_MS)) return;
    listener.destroy();
    await listener.closed;
  };
  const listenOnSocket = (path: string) => listener.listenOnSocket(path);
  const renewTls = (material: TlsMaterial) => listener.renewTls(material);
  return { address, listenOnSocket, renewTls, failed: listener.failed, close, [Symbol.asyncDispose]: () => close(0) };
}

/** Whether `end` came within `ms`. */
async function endsWithin(end: Promise<void>, ms: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<false>();
  const timer = setTimeout(resolve, ms, false);
  try {
    return await Promise.race([end.then(() => true), promise]);
  } finally {
    clearTimeout(timer);
  }
}
