import {
  type ConnectRouter,
  createMethodImplSpec,
  createServiceImplSpec,
  type MethodImplSpec,
} from "@connectrpc/connect";
import { parseContentType } from "@connectrpc/connect/protocol-grpc";
import type { AdapterOptions } from "../adapter.ts";
import { Bag } from "../bag.ts";
import { metadataBytes } from "../limits.ts";
import type { StreamHandler } from "../listener.ts";
import { Call, LOOK_MS, type Served } from "./call.ts";
import { binaryCodec, type CodecOptions, jsonCodec } from "./codec.ts";
import { unaryInvoke } from "./unary.ts";

/** A method, by how its messages are written. */
interface Method {
  readonly binary: Served;
  readonly json: Served;
}

/**
 * Serves gRPC from HTTP/2 streams as they come, below the same handlers and interceptors as `rpcHandler`, and as Connect's
 * own gRPC handlers do as far as a caller can see. Those cost ten times as much for a short call, and for a stream five copies
 * of every message (connect-node 2.2.0). What is not a call that a handler can take is left to `rpcHandler`, which refuses.
 */
export function grpcHandler(options: AdapterOptions): StreamHandler {
  const { shutdownSignal, closed, usage } = options;
  const calls = new Bag<Call>();
  const methods = methodsOf(options, calls);
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

  return (stream) => {
    const { method, scheme, authority, path, headers } = stream.head;
    const served = methods.get(path);
    const origin = originOf(scheme, authority);
    const type = typeOf(headers["content-type"]);
    if (type === undefined || method !== "POST" || served === undefined || origin === undefined || closed())
      return false;
    if (metadataBytes(headers) > usage.limits.metadataBytes) return false;
    new Call(stream, origin, type.binary ? served.binary : served.json).serve();
    return true;
  };
}

const BINARY = { binary: true };

/** What most callers say is told without a regular expression. */
const typeOf = (text: string | undefined): { binary: boolean } | undefined =>
  text === "application/grpc" ? BINARY : parseContentType(text ?? null);

let last: { scheme: string; authority: string; origin: string | undefined } | undefined;

/** What the URL of a call begins with; undefined where none can. A caller's is the same for each of its calls. */
function originOf(scheme: string, authority: string): string | undefined {
  if (last?.authority === authority && last?.scheme === scheme) return last?.origin;
  const text = `${scheme}://${authority}`;
  const origin = URL.canParse(`${text}/`) ? text : undefined;
  last = { scheme, authority, origin };
  return origin;
}

/** What is routed, by the path that calls it. */
function methodsOf(options: AdapterOptions, calls: Bag<Call>): ReadonlyMap<string, Method> {
  const { routes, log, maxMessageBytes, usage, interceptors = [], refused = () => undefined } = options;
  const methods = new Map<string, Method>();
  const add = (spec: MethodImplSpec, codecs: CodecOptions = {}) => {
    const path = `/${spec.method.parent.typeName}/${spec.method.name}`;
    const invoke = spec.kind === "unary" ? unaryInvoke(spec, interceptors) : undefined;
    const served = { spec, invoke, path, interceptors, maxMessageBytes, usage, log, refused, calls };
    methods.set(path, {
      binary: { ...served, codec: binaryCodec(spec.method, codecs) },
      json: { ...served, codec: jsonCodec(spec.method, codecs) },
    });
  };
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
