import {
  Code,
  ConnectError,
  type ConnectRouter,
  createConnectRouter,
  createContextValues,
  type Interceptor,
} from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerRequest } from "@connectrpc/connect/protocol";
import {
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { connectionKey, metadataBytes, type Usage } from "./limits.ts";
import type { HttpHandler, HttpRequest, HttpResponse } from "./listener.ts";
import type { Log } from "./log.ts";
import { refuse } from "./refusal.ts";
import { boundedSignal, unlessAborted } from "./time.ts";

/** Longest time that a timer can count, in milliseconds; some 24 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Characters of an unknown path that are worth a line of the log. */
const MAX_LOGGED_PATH = 200;

export interface AdapterOptions {
  readonly routes: (router: ConnectRouter) => void;
  readonly log: Log;
  /** Largest message received, in bytes, after decompression. */
  readonly maxMessageBytes: number;
  readonly interceptors?: Interceptor[];
  readonly usage: Usage;
  /** Aborts the signal of every call, with the error that calls then end with. */
  readonly shutdownSignal: AbortSignal;
  /** Why no new call is taken now; undefined: they are. */
  readonly closed: () => ConnectError | undefined;
}

/**
 * Serves gRPC, gRPC-Web and Connect from Node's HTTP servers. What `connectNodeAdapter` does, and besides: calls that no
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

  return (request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "";
    const handler = handlers.get(path);
    const reason =
      closed() ??
      (handler === undefined ? unimplemented(path, services) : unsupported(handler, request)) ??
      excessive(request, usage);
    const rpc = path.slice(0, MAX_LOGGED_PATH);
    try {
      if (reason !== undefined) {
        log.debug({ rpc, error: reason }, "call refused");
        refuse(reason, request, response);
      } else if (handler !== undefined) {
        serve(handler, request, response, usage).catch((error: unknown) => {
          log.debug({ rpc, error }, "response failed");
          response.destroy(); // half of an answer must not look like a whole one
        });
      }
    } catch (error) {
      log.debug({ rpc, error }, "request refused");
      if (!response.headersSent) response.statusCode = 400;
      response.end();
    }
  };
}

/** Throws at once for a request that no URL can be made of: without an authority, or with an odd one. */
function serve(handler: UniversalHandler, request: HttpRequest, response: HttpResponse, usage: Usage): Promise<void> {
  const values = createContextValues();
  values.set(connectionKey, "stream" in request ? request.stream.session : request.socket);
  const universal = universalRequestFromNodeRequest(request, response, undefined, values);
  dropEndlessTimeout(universal.header);
  const hasOneMessage = handler.method.methodKind === "unary" || handler.method.methodKind === "server_streaming";
  return handler(hasOneMessage ? { ...universal, body: timed(universal.body, usage) } : universal).then((answer) =>
    universalResponseToNodeResponse(answer, response),
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
function excessive({ headers }: HttpRequest, usage: Usage): ConnectError | undefined {
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

/** Words as other gRPC servers have them. */
function unimplemented(path: string, services: ReadonlySet<string>): ConnectError {
  const [, service = "", rpc = ""] = path.split("/");
  const text = services.has(service) ? `unknown method ${rpc} for service ${service}` : `unknown service ${service}`;
  return new ConnectError(text, Code.Unimplemented);
}

/** Why a handler cannot take this very request, where the handler itself would give no reason. */
function unsupported({ method }: UniversalHandler, request: HttpRequest): ConnectError | undefined {
  if (method.methodKind === "bidi_streaming" && request.httpVersionMajor === 1) {
    return new ConnectError(`${method.name} streams in both directions and needs HTTP/2`, Code.Unimplemented);
  }
  if (/^application\/grpc-web-text/i.test(request.headers["content-type"] ?? "")) {
    return new ConnectError("application/grpc-web-text is not supported, use application/grpc-web", Code.Unimplemented);
  }
  return undefined;
}
