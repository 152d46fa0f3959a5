import {
  type ConnectError,
  type ConnectRouter,
  createMethodImplSpec,
  createServiceImplSpec,
  type Interceptor,
  type MethodImplSpec,
} from "@connectrpc/connect";
import type { UniversalHandlerOptions } from "@connectrpc/connect/protocol";
import { parseContentType } from "@connectrpc/connect/protocol-grpc";
import type { StreamHandler } from "../listener.ts";
import type { Log } from "../log.ts";
import { Call } from "./call.ts";
import { binaryCodec, type Codec, jsonCodec } from "./codec.ts";

/** A method with its implementation, and how its messages are written. */
interface Method {
  readonly spec: MethodImplSpec;
  readonly binary: Codec;
  readonly json: Codec;
}

export interface GrpcOptions {
  readonly routes: (router: ConnectRouter) => void;
  readonly log: Log;
  readonly maxMessageBytes: number;
  readonly interceptors?: Interceptor[];
  readonly shutdownSignal: AbortSignal;
  readonly closed: () => ConnectError | undefined;
}

export function grpcHandler(options: GrpcOptions): StreamHandler {
  const { log, shutdownSignal, closed, maxMessageBytes, interceptors = [] } = options;
  const methods = new Map<string, Method>();
  const add = (spec: MethodImplSpec, codecs: Partial<UniversalHandlerOptions> = {}) =>
    methods.set(`/${spec.method.parent.typeName}/${spec.method.name}`, {
      spec,
      binary: binaryCodec(spec.method, codecs),
      json: jsonCodec(spec.method, codecs),
    });
  const router: ConnectRouter = {
    handlers: [],
    service(service, implementation, codecs) {
      for (const spec of Object.values(createServiceImplSpec(service, implementation).methods)) add(spec, codecs);
      return router as never;
    },
    rpc(method, implementation, codecs) {
      add(createMethodImplSpec(method, implementation), codecs);
      return router as never;
    },
  };
  options.routes(router);
  const calls = new Set<Call>();
  shutdownSignal.addEventListener("abort", () => {
    for (const call of calls) call.abort(shutdownSignal.reason);
  });

  return (stream, headers) => {
    const type = parseContentType(headers["content-type"] ?? null);
    const path = headers[":path"] ?? "";
    const method = methods.get(path);
    const url = `${headers[":scheme"]}://${headers[":authority"]}${path}`;
    if (type === undefined || headers[":method"] !== "POST" || method === undefined || !URL.canParse(url) || closed())
      return false;
    const codec = type.binary ? method.binary : method.json;
    const call = new Call(stream, headers, { spec: method.spec, codec, url, interceptors, maxMessageBytes });
    calls.add(call);
    call
      .serve()
      .catch((error: unknown) => {
        log.debug({ rpc: path, error }, "response failed");
        stream.destroy();
      })
      .finally(() => calls.delete(call));
    return true;
  };
}
