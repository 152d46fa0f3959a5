import { constants, type ServerHttp2Stream } from "node:http2";
import {
  type ConnectRouter,
  createMethodImplSpec,
  createServiceImplSpec,
  type MethodImplSpec,
} from "@connectrpc/connect";
import { parseContentType } from "@connectrpc/connect/protocol-grpc";
import type { AdapterOptions } from "../adapter.ts";
import { metadataBytes } from "../limits.ts";
import type { StreamHandler } from "../listener.ts";
import type { Log } from "../log.ts";
import { Call } from "./call.ts";
import { binaryCodec, type Codec, type CodecOptions, jsonCodec } from "./codec.ts";

/** How often it is looked for requests that do not arrive. */
const LOOK_MS = 1_000;

/** A method with its implementation, and how its messages are written. */
interface Method {
  readonly spec: MethodImplSpec;
  readonly binary: Codec;
  readonly json: Codec;
}

/**
 * Serves gRPC from HTTP/2 streams as they come, below the same handlers and interceptors as `rpcHandler`, and as Connect's
 * own gRPC handlers do as far as a caller can see. Those cost ten times as much for a short call, and for a stream five copies
 * of every message (connect-node 2.2.0). What is not a call that a handler can take is left to `rpcHandler`, which refuses.
 */
export function grpcHandler(options: AdapterOptions): StreamHandler {
  const { log, shutdownSignal, closed, maxMessageBytes, usage, interceptors = [] } = options;
  const methods = methodsOf(options.routes);
  const calls = new Set<Call>();
  shutdownSignal.addEventListener("abort", () => {
    for (const call of calls) call.abort(shutdownSignal.reason);
  });
  const timer = setInterval(
    () => {
      for (const call of calls) call.look(performance.now());
      if (closed() && calls.size === 0) clearInterval(timer);
    },
    Math.min(LOOK_MS, usage.limits.requestMs / 4),
  ).unref();

  return (stream, headers) => {
    const path = headers[":path"] ?? "";
    const method = methods.get(path);
    const origin = `${headers[":scheme"]}://${headers[":authority"]}`;
    const type = typeOf(headers["content-type"]);
    if (type === undefined || headers[":method"] !== "POST" || method === undefined || !isOrigin(origin) || closed())
      return false;
    if (metadataBytes(headers) > usage.limits.metadataBytes) return false;
    const codec = type.binary ? method.binary : method.json;
    const url = `${origin}${path}`;
    const call = new Call(stream, headers, { spec: method.spec, codec, url, interceptors, maxMessageBytes, usage });
    void serve(call, calls, { stream, log, rpc: path });
    return true;
  };
}

const BINARY = { binary: true };

/** What most callers say is told without a regular expression. */
const typeOf = (text: string | undefined): { binary: boolean } | undefined =>
  text === "application/grpc" ? BINARY : parseContentType(text ?? null);

let lastOrigin = "";

/** Whether a URL can begin with it. A caller's is the same for each of its calls. */
function isOrigin(text: string): boolean {
  if (text === lastOrigin) return true;
  if (!URL.canParse(`${text}/`)) return false;
  lastOrigin = text;
  return true;
}

/** Never rejects. */
async function serve(
  call: Call,
  calls: Set<Call>,
  { stream, log, rpc }: { stream: ServerHttp2Stream; log: Log; rpc: string },
): Promise<void> {
  calls.add(call);
  try {
    const error = await call.serve();
    if (error !== undefined) log.debug({ rpc, error }, "request refused");
  } catch (error) {
    log.debug({ rpc, error }, "response failed");
    stream.close(constants.NGHTTP2_INTERNAL_ERROR); // half of an answer must not look like a whole one
  } finally {
    calls.delete(call);
  }
}

/** What is routed, by the path that calls it. */
function methodsOf(routes: AdapterOptions["routes"]): ReadonlyMap<string, Method> {
  const methods = new Map<string, Method>();
  const add = (spec: MethodImplSpec, codecs: CodecOptions = {}) =>
    methods.set(`/${spec.method.parent.typeName}/${spec.method.name}`, {
      spec,
      binary: binaryCodec(spec.method, codecs),
      json: jsonCodec(spec.method, codecs),
    });
  const router: ConnectRouter = {
    handlers: [],
    service(service, implementation, codecs) {
      for (const spec of Object.values(createServiceImplSpec(service, implementation).methods)) add(spec, codecs);
      return this;
    },
    rpc(method, implementation, codecs) {
      add(createMethodImplSpec(method, implementation), codecs);
      return this;
    },
  };
  routes(router);
  return methods;
}
