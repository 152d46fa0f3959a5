import { describe, expect, test } from "bun:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import {
  Health as HealthService,
  HealthCheckResponse_ServingStatus as Status,
} from "../../src/gen/grpc/health/v1/health_pb.ts";
import { Health } from "../../src/health.ts";
import { createLog } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import { Waiters } from "../../src/watcher/waiters.ts";
import { transports } from "./harness.ts";

const RUNNER = RunnerService.typeName;
const REASON = "the runner is shutting down";

/** A cache that the test proves to be live, or lost. */
class Cache {
  #unprovenMs = Number.POSITIVE_INFINITY;
  readonly #waiters = new Waiters();

  get unprovenMs(): number {
    return this.#unprovenMs;
  }
  set unprovenMs(ms: number) {
    this.#unprovenMs = ms;
    this.#waiters.wake();
  }
  untilProven(ms: number, signal: AbortSignal): Promise<true> {
    return this.#waiters.until(() => (this.#unprovenMs < ms ? true : undefined), signal);
  }
}

async function startHealth({ lostMs }: { lostMs?: number } = {}) {
  const cache = new Cache();
  const lines: string[] = [];
  const log = createLog({ level: "debug", stream: { write: (line) => lines.push(line) } });
  const draining = new AbortController();
  const health = new Health({ cache, services: [RUNNER], draining: draining.signal, log, ...(lostMs && { lostMs }) });
  const server = await startServer({
    address: "127.0.0.1:0",
    maxMessageBytes: 1000,
    log,
    routes: (router) => router.service(HealthService, health.service),
    pages: health.pages,
  });
  const over = new AbortController();
  const running = health.run(over.signal);
  const drain = () => draining.abort(new ConnectError(REASON, Code.Unavailable));
  return {
    cache,
    lines,
    drain,
    server,
    baseUrl: `http://127.0.0.1:${server.address.port}`,
    async [Symbol.asyncDispose]() {
      over.abort();
      await running; // never throws, and ends
      await server.close(0);
    },
  };
}

describe.each(Object.entries(transports))("health by %s", (_name, transportFor) => {
  test("follows the cache: checked, listed and watched", async () => {
    await using at = await startHealth();
    const client = createClient(HealthService, transportFor(at.baseUrl));
    const watch = client.watch({ service: RUNNER })[Symbol.asyncIterator]();
    const all = client.watch({})[Symbol.asyncIterator]();
    const seen = async () => [(await watch.next()).value?.status, (await all.next()).value?.status];
    const told = async () => {
      const { statuses } = await client.list({});
      expect(Object.keys(statuses)).toEqual(["", RUNNER]);
      const checks = await Promise.all([client.check({}), client.check({ service: RUNNER })]);
      return [...checks, ...Object.values(statuses)].map(({ status }) => status);
    };
    expect(await seen()).toEqual([Status.NOT_SERVING, Status.NOT_SERVING]);
    expect(await told()).toEqual(Array(4).fill(Status.NOT_SERVING));
    at.cache.unprovenMs = 0;
    expect(await seen()).toEqual([Status.SERVING, Status.SERVING]);
    expect(await told()).toEqual(Array(4).fill(Status.SERVING));
  });

  test("does not know other services: Check says so, Watch waits for them", async () => {
    await using at = await startHealth();
    const client = createClient(HealthService, transportFor(at.baseUrl));
    for (const service of ["agynio.api.runner.v1", "grpc.health.v1.Health", " ", "x".repeat(200)]) {
      const error = await client.check({ service }).catch(ConnectError.from);
      expect(error).toMatchObject({ code: Code.NotFound, rawMessage: "unknown service" });
      const abort = new AbortController();
      const watch = client.watch({ service }, { signal: abort.signal })[Symbol.asyncIterator]();
      expect((await watch.next()).value?.status).toBe(Status.SERVICE_UNKNOWN);
      const next = watch.next().catch(ConnectError.from);
      abort.abort();
      expect(await next).toMatchObject({ code: Code.Canceled });
    }
  });

  test("is over when the process begins to end: NOT_SERVING, and every watch ends at once", async () => {
    await using at = await startHealth();
    at.cache.unprovenMs = 0;
    const client = createClient(HealthService, transportFor(at.baseUrl));
    const watches = ["", RUNNER, "unknown"].map((service) => client.watch({ service })[Symbol.asyncIterator]());
    const first = await Promise.all(watches.map(async (watch) => (await watch.next()).value?.status));
    expect(first).toEqual([Status.SERVING, Status.SERVING, Status.SERVICE_UNKNOWN]);
    at.drain();
    expect((await client.check({})).status).toBe(Status.NOT_SERVING);
    const closed = at.server.close(3_600_000);
    for (const watch of watches.slice(0, 2)) expect((await watch.next()).value?.status).toBe(Status.NOT_SERVING);
    for (const watch of watches)
      expect(await watch.next().catch(ConnectError.from)).toMatchObject({ code: Code.Unavailable, rawMessage: REASON });
    await closed;
  });
});

test("the cluster may be away for a minute; then it is NOT_SERVING, until the cluster is heard of again", async () => {
  await using at = await startHealth({ lostMs: 100 });
  const client = createClient(HealthService, transports["gRPC over HTTP/2"]?.(at.baseUrl) ?? expect.unreachable());
  const watch = client.watch({})[Symbol.asyncIterator]();
  const next = async () => (await watch.next()).value?.status;
  expect(await next()).toBe(Status.NOT_SERVING);
  at.cache.unprovenMs = 99.9; // the rest of it passes at once
  expect(await next()).toBe(Status.SERVING);
  at.cache.unprovenMs = 100;
  expect(await next()).toBe(Status.NOT_SERVING);
  at.cache.unprovenMs = 5;
  expect(await next()).toBe(Status.SERVING);
  const told = at.lines.map((line): Record<string, unknown> => JSON.parse(line)).filter(({ msg }) => msg !== "request");
  expect(told.map(({ level, msg, reason }) => [level, msg, reason])).toEqual([
    ["info", "health: serving", undefined],
    ["warn", "health: not serving", "the cluster has not been heard of for a minute"],
    ["info", "health: serving", undefined],
  ]);
});

test("/readyz says what Check says and why, /healthz only that the process answers", async () => {
  await using at = await startHealth();
  const ask = async (path: string) => {
    const response = await fetch(at.baseUrl + path);
    return [response.status, await response.text()];
  };
  expect(await ask("/readyz")).toEqual([503, "the cache has not synced\n"]);
  expect(await ask("/healthz")).toEqual([200, "ok\n"]);
  at.cache.unprovenMs = 0;
  await createClient(HealthService, transports["Connect over HTTP/1.1"]?.(at.baseUrl) ?? expect.unreachable()).check(
    {},
  );
  expect(await ask("/readyz")).toEqual([200, "ok\n"]);
  at.drain();
  expect(await ask("/readyz")).toEqual([503, `${REASON}\n`]);
  expect(await ask("/healthz")).toEqual([200, "ok\n"]);
});
