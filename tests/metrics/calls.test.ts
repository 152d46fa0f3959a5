import { expect, test } from "bun:test";
import { createClient } from "@connectrpc/connect";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { envelope, http2Session, rawHttp2, SERVICE, statusOf, transports } from "../server/harness.ts";
import { ExecSession, exec } from "../support/exec.ts";
import { freshId, idling, script, sharedRunner } from "../support/runner.ts";
import { refusal, until } from "../support/wait.ts";
import { moved, scrape } from "./scrape.ts";

/* Every call is counted once: when it comes, and when it ends, by its code. */
const runner = sharedRunner();
const of = (rpc_method: string) => ({ rpc_service: SERVICE, rpc_method });

test.each(Object.entries(transports))("a call is counted, and how long it took: %s", async (_, transportFor) => {
  const client = createClient(RunnerService, transportFor(runner().baseUrl));
  const figures = await moved(
    runner(),
    {
      started: ["rpc_started_total", of("Ready")],
      ok: ["rpc_handled_total", { ...of("Ready"), code: "OK", rpc_type: "unary" }],
      handled: ["rpc_handled_total"],
      durations: ["rpc_duration_seconds_count", of("Ready")],
      all: ["rpc_duration_seconds_bucket", { ...of("Ready"), le: "+Inf" }],
      inFlight: ["rpc_in_flight"],
    },
    async () => {
      for (let count = 0; count < 3; count++) await client.ready({});
    },
  );
  expect(figures).toEqual({ started: 3, ok: 3, handled: 3, durations: 3, all: 3, inFlight: 0 });
});

test("failures are counted by their code", async () => {
  const { client } = runner();
  const code = (rpc: string, code: string) => ["rpc_handled_total", { ...of(rpc), code }] as const;
  const figures = await moved(
    runner(),
    {
      notFound: code("InspectWorkload", "NOT_FOUND"),
      invalid: code("StartWorkload", "INVALID_ARGUMENT"),
      exists: code("StartWorkload", "ALREADY_EXISTS"),
      internal: ["rpc_handled_total", { code: "INTERNAL" }],
    },
    async () => {
      await refusal(client.inspectWorkload({ workloadId: freshId() }));
      await refusal(client.startWorkload({}));
      const { id } = await runner().start();
      await refusal(client.startWorkload({ workloadId: id, main: idling() }));
    },
  );
  expect(figures).toEqual({ notFound: 1, invalid: 1, exists: 1, internal: 0 });
});

test("a stream counts among those in flight until it ends, and by how it ended", async () => {
  const { client, run } = runner();
  const { target } = await run({ main: script("sleep 300") });
  const before = await scrape(runner());
  await using session = new ExecSession(client, { targetId: target, commandArgv: ["cat"] });
  await session.started();
  const during = await scrape(runner());
  expect(during.sum("rpc_in_flight", of("Exec"))).toBe(1);
  expect(during.of("rpc_in_flight", of("Ready"))).toMatchObject([{ value: 0 }]);
  session.halfClose();
  await session.result();
  const ended = (code: string) => ["rpc_handled_total", { ...of("Exec"), code, rpc_type: "bidi_stream" }] as const;
  const count = "rpc_stream_duration_seconds_count";
  await until("it has ended", async () => ((await scrape(runner())).sum("rpc_in_flight") === 0 ? true : undefined));
  const after = await scrape(runner());
  expect(after.sum(...ended("OK")) - before.sum(...ended("OK"))).toBe(1);
  expect(after.sum(count, of("Exec")) - before.sum(count, of("Exec"))).toBe(1);
  // A caller that goes.
  const leaving = new ExecSession(client, { targetId: target, commandArgv: ["cat"] });
  await leaving.started();
  leaving.reset();
  await until("it is known to have gone", async () =>
    (await scrape(runner())).sum(...ended("CANCELLED")) - before.sum(...ended("CANCELLED")) === 1 ? true : undefined,
  );
  expect((await scrape(runner())).sum("rpc_in_flight")).toBe(0);
});

test("calls that no handler is asked for are counted: of methods that are not there, all as one", async () => {
  using session = await http2Session(runner().baseUrl);
  const call = (path: string, body = envelope(new Uint8Array())) =>
    rawHttp2(session, { ":path": path, "content-type": "application/grpc", te: "trailers" }, body);
  const unknown = { rpc_service: "unknown", rpc_method: "unknown" };
  const figures = await moved(
    runner(),
    {
      started: ["rpc_started_total", unknown],
      unimplemented: ["rpc_handled_total", { ...unknown, code: "UNIMPLEMENTED" }],
      broken: ["rpc_handled_total", { ...of("InspectWorkload"), code: "INTERNAL" }],
    },
    async () => {
      for (const path of [`/${SERVICE}/Nope`, "/other.v1.Service/Nope", `/${freshId()}`])
        expect(statusOf(await call(path))["grpc-status"]).toBe("12");
      const broken = await call(`/${SERVICE}/InspectWorkload`, envelope(Buffer.from([0xff])));
      expect(statusOf(broken)["grpc-status"]).toBe("13");
    },
  );
  expect(figures).toEqual({ started: 3, unimplemented: 3, broken: 1 });
  const services = new Set((await scrape(runner())).of("rpc_started_total").map(({ labels }) => labels.rpc_service));
  expect([...services]).toEqual([SERVICE, "grpc.health.v1.Health", "unknown"]);
});

test("what has never been called is told as 0, so that its first error is an increase", async () => {
  const page = await scrape(runner());
  for (const { name } of RunnerService.methods) {
    expect(page.of("rpc_started_total", of(name))).toHaveLength(1);
    for (const code of ["OK", "INTERNAL", "UNAVAILABLE"])
      expect(page.of("rpc_handled_total", { ...of(name), code })).toHaveLength(1);
  }
});

test("an execution is counted by the reason of its exit event", async () => {
  const { client, run } = runner();
  const { target } = await run();
  const reason = (reason: string) => ["executions_total", { reason }] as const;
  const figures = await moved(
    runner(),
    {
      completed: reason("completed"),
      timeout: reason("timeout"),
      idle: reason("idle_timeout"),
      cancelled: reason("cancelled"),
      failed: reason("runner_error"),
      open: ["open_streams", { kind: "exec" }],
    },
    async () => {
      await exec(client, { targetId: target, commandArgv: ["true"] });
      await exec(client, { targetId: target, commandArgv: ["false"] });
      await exec(client, { targetId: target, commandArgv: ["sleep", "60"], options: { timeoutMs: 50n } });
      await exec(client, { targetId: target, commandArgv: ["sleep", "60"], options: { idleTimeoutMs: 50n } });
      await exec(client, { targetId: target, commandArgv: ["no-such-program"] });
      const cancelled = new ExecSession(client, { targetId: target, commandArgv: ["sleep", "60"] });
      await client.cancelExecution({ executionId: await cancelled.started() });
      await cancelled.result();
      const left = new ExecSession(client, { targetId: target, commandArgv: ["sleep", "60"] });
      await left.started();
      left.reset();
      await until("it is over", async () => ((await scrape(runner())).sum("open_streams") === 0 ? true : undefined));
    },
  );
  expect(figures).toEqual({ completed: 2, timeout: 1, idle: 1, cancelled: 2, failed: 1, open: 0 });
});
