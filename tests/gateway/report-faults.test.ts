import { expect, test } from "bun:test";
import { until } from "../support/wait.ts";
import { id, podIn } from "./pods.ts";
import { held, never, reporting } from "./reporting.ts";

const W = id(1);

test("fault table, gateway down: one report a workload is held, the newest, and sent when it is back", async () => {
  await using link = await reporting({ timing: { replayMs: 5 } });
  await link.gateway.down();
  for (let round = 0; round < 20; round++)
    for (let index = 1; index <= 50; index++)
      link.pods.put(podIn(round === 19 ? "failed" : round % 2 === 0 ? "ready" : "unready", id(index)));
  expect(link.reporter.pending).toBe(50);
  await until("failures were noted", () => link.lines("report workload state").length >= 50 || undefined);
  expect([link.reporter.size, link.gateway.reports.length]).toEqual([50, 0]);
  await link.gateway.up();
  await until("all are told", () => link.gateway.record.size === 50 || undefined);
  expect(new Set(link.gateway.reports.map(({ status }) => status))).toEqual(new Set(["FAILED"]));
});

test("fault table, SIGTERM: what is under way is waited for, though not for long", async () => {
  const gate = held();
  await using link = await reporting({
    script: { state: ({ count }) => (count === 1 ? gate.wait().then(() => undefined) : never()) },
  });
  link.pods.put(podIn("ready", W));
  await until("the report is there", () => gate.waiting.length === 1 || undefined);
  const flushed = link.reporter.flush(3_600_000);
  gate.release();
  await flushed;
  expect([link.gateway.record.get(W)?.status, link.reporter.pending]).toEqual(["RUNNING", 0]);
  link.pods.put(podIn("failed", W));
  await link.reporter.flush(20); // ends though the gateway does not answer
  expect(link.reporter.pending).toBe(1);
});

test("fault table, clock: never before the Pod's own event, never earlier than told before, however clocks are set", async () => {
  let clock = Date.parse("2026-03-01T12:00:00Z");
  await using link = await reporting({ now: () => clock });
  const condition = { type: "Ready", status: "True", lastTransitionTime: "2026-03-01T13:00:00Z" };
  link.pods.put(podIn("ready", W, { status: { conditions: [condition] } }));
  await link.settled();
  clock -= 3_600_000;
  link.pods.put(podIn("failed", W));
  link.pods.put(podIn("ready", id(2)));
  await link.settled();
  const times = [...link.gateway.of(W), ...link.gateway.of(id(2))].map(({ observedMs }) =>
    new Date(observedMs).toISOString(),
  );
  expect(times).toEqual(["2026-03-01T13:00:00.000Z", "2026-03-01T13:00:00.001Z", "2026-03-01T12:00:00.000Z"]);
});

test("when reporting stops by itself, that is logged and nothing else ends", async () => {
  const broken = {
    follow: () => {
      throw new Error("no Pods to follow");
    },
  };
  await using link = await reporting({ pods: broken });
  await link.running;
  expect(link.lines("workload state reporting stopped")).toMatchObject([{ level: "warn", error: "no Pods to follow" }]);
});

test("fault table, gateway slow: the calls at a time are bounded, and one report a workload waits for its turn", async () => {
  const gate = held();
  await using link = await reporting({ script: { state: () => gate.wait().then(() => undefined) } });
  for (let index = 1; index <= 150; index++) link.pods.put(podIn("ready", id(index)));
  await until("as many calls as may be are there", () => gate.waiting.length === 64 || undefined);
  let added = 150;
  while (link.reporter.pending > 0) {
    gate.release();
    await new Promise(setImmediate);
    if (added < 250) link.pods.put(podIn("ready", id(++added))); // these find slots that were in use before
  }
  expect([link.gateway.calls.most, link.gateway.record.size]).toEqual([64, 250]);
});
