import { Code, ConnectError, type ConnectRouter, createConnectRouter, type Interceptor } from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import {
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import type { HttpHandler, HttpRequest, HttpResponse } from "./listener.ts";
import type { Log } from "./log.ts";
import { refuse } from "./refusal.ts";

export interface AdapterOptions {
  readonly routes: (router: ConnectRouter) => void;
  readonly log: Log;
  /** Largest message received, in bytes, after decompression. */
  readonly maxMessageBytes: number;
  readonly interceptors?: Interceptor[];
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
  const { log, closed } = options;
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
    const reason = closed() ?? (handler === undefined ? unimplemented(path, services) : unsupported(handler, request));
    if (reason !== undefined) refuse(reason, request, response);
    else if (handler !== undefined) serve(handler, request, response, log);
  };
}

function serve(handler: UniversalHandler, request: HttpRequest, response: HttpResponse, log: Log): void {
  const fail = (status: number, error: unknown): void => {
    log.debug({ error, rpc: handler.requestPath }, "response failed");
    if (!response.headersSent) response.statusCode = status;
    response.end();
  };
  try {
    const universal = universalRequestFromNodeRequest(request, response, undefined, undefined);
    handler(universal)
      .then((answer) => universalResponseToNodeResponse(answer, response))
      .catch((error: unknown) => fail(500, error));
  } catch (error) {
    fail(400, error); // no authority, or one that makes no URL
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
