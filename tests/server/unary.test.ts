import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createClient,
  createContextKey,
  type Interceptor,
  type ServiceImpl,
} from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ReadyResponseSchema, RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { createLog } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import { envelope, http2Session, SERVICE } from "./harness.ts";

async function serving(implementation: Partial<ServiceImpl<typeof RunnerService>>, interceptors: Interceptor[] = []) {
  const server = await startServer({
    address: "127.0.0.1:0",
    maxMessageBytes: 1024 * 1024,
    log: createLog({ level: "silent" }),
    interceptors,
    routes: (router) => router.service(RunnerService, implementation),
  });
  const baseUrl = `http://127.0.0.1:${server.address.port}`;
  const client = createClient(RunnerService, createGrpcTransport({ baseUrl }));
  return { baseUrl, client, [Symbol.asyncDispose]: () => server.close(0) };
}

test("interceptors may change request and response, the outermost first", async () => {
  const key = createContextKey("unset");
  const order: string[] = [];
  const outer: Interceptor = (next) => async (request) => {
    order.push(`outer ${request.header.get("x-from")}`);
    if (request.stream) return next(request);
    request.header.set("x-from", "outer");
    const response = await next(request);
    response.trailer.set("x-end", "outer");
    return response;
  };
  const inner: Interceptor = (next) => async (request) => {
    order.push(`inner ${request.header.get("x-from")}`);
    request.contextValues.set(key, "inner");
    const response = await next(request);
    response.header.set("x-begin", "inner");
    return response;
  };
  const handlers: Partial<ServiceImpl<typeof RunnerService>> = {
    ready: (_, { requestHeader, responseTrailer, values, signal, method, service, url }) => {
      responseTrailer.set("x-end", "handler");
      order.push(`${service.typeName}/${method.name} ${requestHeader.get("x-from")} ${values.get(key)}`);
      expect(new URL(url).pathname).toBe(`/${SERVICE}/Ready`);
      expect(signal.aborted).toBe(false);
      return { status: "ok" };
    },
  };
  await using runner = await serving(handlers, [outer, inner]);
  const got: Record<string, Headers> = {};
  const answer = await runner.client.ready(
    {},
    {
      headers: { "x-from": "caller" },
      onHeader: (header) => Object.assign(got, { header }),
      onTrailer: (trailer) => Object.assign(got, { trailer }),
    },
  );
  expect(answer.status).toBe("ok");
  expect(order).toEqual(["outer caller", "inner outer", `${SERVICE}/Ready outer inner`]);
  expect(got.header?.get("x-begin")).toBe("inner");
  expect(got.trailer?.get("x-end")).toBe("outer");
});

test.each<[string, Interceptor]>([
  ["request", (next) => (request) => next({ ...request } as typeof request)], // all of its kinds alike
  ["response", (next) => async (request) => ({ ...(await next(request)) }) as Awaited<ReturnType<typeof next>>],
])(
  "an interceptor that replaces the %s of a short call, and so loses what is made of it on demand, fails",
  async (_, interceptor) => {
    await using runner = await serving({ ready: () => ({ status: "ok" }) }, [interceptor]);
    const error = await runner.client.ready({}).then(() => undefined, ConnectError.from);
    expect(error).toMatchObject({ code: Code.Internal, rawMessage: "internal error" });
  },
);

test("a handler's signal fires at the deadline, when the caller goes, and when the call is over", async () => {
  const reasons: unknown[] = [];
  const called = Promise.withResolvers<void>();
  const over = Promise.withResolvers<void>();
  await using runner = await serving({
    ready: (_, { signal }) => {
      signal.addEventListener("abort", () => reasons.push(signal.reason));
      return {};
    },
    touchWorkload: async (_, { signal, timeoutMs }) => {
      expect(timeoutMs()).toBeGreaterThan(0);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw signal.reason;
    },
    inspectWorkload: async (_, context) => {
      called.resolve();
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
      expect(context.signal.reason).toMatchObject({ code: Code.Canceled });
      over.resolve();
      return {};
    },
  });
  await runner.client.ready({});
  expect(reasons).toMatchObject([{ code: Code.Canceled, rawMessage: "the call is over" }]);
  const late = await runner.client.touchWorkload({}, { timeoutMs: 50 }).then(() => undefined, ConnectError.from);
  expect(late?.code).toBe(Code.DeadlineExceeded);
  const leaving = new AbortController();
  const call = runner.client.inspectWorkload({}, { signal: leaving.signal });
  await called.promise;
  leaving.abort();
  expect(await call.then(() => undefined, ConnectError.from)).toMatchObject({ code: Code.Canceled });
  await over.promise;
});

test("a signal that is first asked for when the caller has gone has fired", async () => {
  const called = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const seen = Promise.withResolvers<AbortSignal>();
  await using runner = await serving({
    ready: async (_, context) => {
      called.resolve();
      await goOn.promise;
      seen.resolve(context.signal);
      return {};
    },
    touchWorkload: () => ({}),
  });
  const leaving = new AbortController();
  const call = runner.client.ready({}, { signal: leaving.signal });
  await called.promise;
  leaving.abort();
  await call.catch(() => undefined); // as tested above
  await runner.client.touchWorkload({}); // on the same connection: the server has read all before it
  goOn.resolve();
  expect(await seen.promise).toMatchObject({ aborted: true, reason: { code: Code.Canceled } });
});

test("a request larger than what may wait for its handler is read whole", async () => {
  await using runner = await serving({ inspectWorkload: ({ workloadId }) => ({ id: String(workloadId.length) }) });
  const { id } = await runner.client.inspectWorkload({ workloadId: "x".repeat(300_000) });
  expect(id).toBe("300000");
});

test("a second message is refused before the request ends", async () => {
  let calls = 0;
  await using runner = await serving({
    ready: () => {
      calls += 1;
      return {};
    },
  });
  using session = await http2Session(runner.baseUrl);
  const stream = session.request({
    ":method": "POST",
    ":path": `/${SERVICE}/Ready`,
    "content-type": "application/grpc",
    te: "trailers",
  });
  const headers = new Promise((resolve) => stream.on("response", resolve));
  stream.write(Buffer.concat([envelope(new Uint8Array()), envelope(new Uint8Array())]));
  expect(await headers).toMatchObject({ "grpc-status": String(Code.Unimplemented) });
  expect(calls).toBe(0);
  stream.destroy();
});

test("an answer that its handler gives again is told as it is by then, unless it is frozen", async () => {
  const answer = create(ReadyResponseSchema, { status: "before" });
  await using runner = await serving({ ready: () => answer });
  expect((await runner.client.ready({})).status).toBe("before");
  answer.status = "after";
  expect((await runner.client.ready({})).status).toBe("after");
  Object.freeze(answer);
  for (const _ of [1, 2]) expect((await runner.client.ready({})).status).toBe("after");
});
