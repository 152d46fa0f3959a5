import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter, createConnectRouter, type Interceptor } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerRequest } from "@connectrpc/connect/protocol";
import { compressionGzip } from "@connectrpc/connect-node";
import type { Exchange } from "./exchange.ts";
import { metadataBytes, type Usage } from "./limits.ts";
import type { HttpHandler } from "./listener.ts";
import type { Log } from "./log.ts";
import { refuse } from "./refusal.ts";
import { boundedSignal, unlessAborted } from "./time.ts";

/** Longest time that a timer can count, in milliseconds; some 24 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Header fields of streams, by protocol: of the request's own messages, and of what its caller can read. */
const STREAM_ENCODINGS = [
  ["connect-content-encoding", "connect-accept-encoding"],
  ["grpc-encoding", "grpc-accept-encoding"],
] as const;
/** Characters of an unknown path that are said again, in the log and to its caller. */
const MAX_SAID_PATH = 200;

export interface AdapterOptions {
  readonly routes: (router: ConnectRouter) => void;
  readonly log: Log;
  /** Largest message received, in bytes, after decompression. */
  readonly maxMessageBytes: number;
  readonly interceptors?: Interceptor[];
  /** Told of each call that no interceptor has seen; undefined: of a method that is not there. */
  readonly refused?: (method: DescMethod | undefined, code: Code) => void;
  readonly usage: Usage;
  /** Aborts the signal of every call, with the error that calls then end with. */
  readonly shutdownSignal: AbortSignal;
  /** Why no new call is taken now; undefined: they are. */
  readonly closed: () => ConnectError | undefined;
}

/**
 * Serves gRPC, gRPC-Web and Connect over either version of HTTP. What `connectNodeAdapter` does, and besides: calls that no
 * handler can take are refused in the protocol of their caller, no request whatever can throw into the server, and
 * failures go to the log.
 */
export function rpcHandler(options: AdapterOptions): HttpHandler {
  const { log, closed, usage } = options;
  const router = createConnectRouter({
    acceptCompression: [compressionGzip],
    readMaxBytes: options.maxMessageBytes,
    interceptors: options.interceptors ?? [],
    shutdownSignal: options.shutdownSignal,
  });
  options.routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  const services = new Set(router.handlers.map(({ service }) => service.typeName));

  return (exchange) => {
    const { path } = exchange;
    const rpc = path.slice(0, MAX_SAID_PATH);
    const handler = handlers.get(path);
    const reason =
      closed() ??
      (handler === undefined ? unimplemented(rpc, services) : unsupported(handler, exchange)) ??
      excessive(exchange, usage);
    try {
      if (reason !== undefined) {
        log.debug({ rpc, error: reason }, "call refused");
        options.refused?.(handler?.method, reason.code);
        refuse(reason, exchange);
      } else if (handler !== undefined) {
        serve(handler, exchange, usage).catch((error: unknown) => {
          log.debug({ rpc, error }, "response failed");
          exchange.cut();
        });
      }
    } catch (error) {
      log.debug({ rpc, error }, "request refused");
      exchange.answer({ status: 400, headers: {}, body: "" });
    }
  };
}

/** Throws at once for a request that no URL can be made of. */
function serve(handler: UniversalHandler, exchange: Exchange, usage: Usage): Promise<void> {
  const request = exchange.request();
  dropEndlessTimeout(request.header);
  if (handler.method.methodKind !== "unary") compressAsAsked(request.header);
  const hasOneMessage = handler.method.methodKind === "unary" || handler.method.methodKind === "server_streaming";
  return handler(hasOneMessage ? { ...request, body: timed(request.body, usage) } : request).then((answer) =>
    exchange.respond(answer),
  );
}

/** The body of a request that must have arrived in time, else DEADLINE_EXCEEDED. */
async function* timed(body: UniversalServerRequest["body"], usage: Usage): AsyncGenerator<Uint8Array> {
  if (typeof body !== "object" || body === null || !(Symbol.asyncIterator in body)) return; // it is no text: see above
  using bound = boundedSignal(usage.limits.requestMs);
  const chunks = body[Symbol.asyncIterator]();
  for (;;) {
    const step = await unlessAborted(chunks.next(), bound.signal).catch((error: unknown) => {
      if (!bound.timedOut) throw error;
      usage.refuse("requestMs");
      throw new ConnectError("the request did not arrive in time", Code.DeadlineExceeded);
    });
    if (step.done) return;
    yield step.value;
  }
}

/** Why a request asks too much before its message is read. */
function excessive({ headers }: Exchange, usage: Usage): ConnectError | undefined {
  const bytes = metadataBytes(headers);
  if (bytes <= usage.limits.metadataBytes) return undefined;
  usage.refuse("metadataBytes");
  const text = `metadata of ${bytes} bytes is larger than the limit of ${usage.limits.metadataBytes}`;
  return new ConnectError(text, Code.ResourceExhausted);
}

/** A caller's timeout beyond what a timer can count fires at once; nobody waits for so long, so it is none. */
function dropEndlessTimeout(header: Headers): void {
  if (Number(header.get("connect-timeout-ms")) > MAX_TIMER_MS) header.delete("connect-timeout-ms");
  const [, count, unit] = /^(\d+)([HMS])$/.exec(header.get("grpc-timeout") ?? "") ?? [];
  if (Number(count) * (unit === "H" ? 3_600_000 : unit === "M" ? 60_000 : 1000) > MAX_TIMER_MS) {
    header.delete("grpc-timeout");
  }
}

/** The messages of a stream are compressed as its request is, or not at all (grpc/compression.ts). */
function compressAsAsked(header: Headers): void {
  for (const [own, accepted] of STREAM_ENCODINGS)
    if ((header.get(own) ?? "identity") === "identity") header.delete(accepted);
}

/** Words as other gRPC servers have them. */
function unimplemented(path: string, services: ReadonlySet<string>): ConnectError {
  const [, service = "", rpc = ""] = path.split("/");
  const text = services.has(service) ? `unknown method ${rpc} for service ${service}` : `unknown service ${service}`;
  return new ConnectError(text, Code.Unimplemented);
}

/** Why a handler cannot take this very request, where the handler itself would give no reason. */
function unsupported({ method }: UniversalHandler, { isHttp2, headers }: Exchange): ConnectError | undefined {
  if (method.methodKind === "bidi_streaming" && !isHttp2) {
    return new ConnectError(`${method.name} streams in both directions and needs HTTP/2`, Code.Unimplemented);
  }
  if (/^application\/grpc-web-text/i.test(headers["content-type"] ?? "")) {
    return new ConnectError("application/grpc-web-text is not supported, use application/grpc-web", Code.Unimplemented);
  }
  return undefined;
}
