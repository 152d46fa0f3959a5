import { expect, test } from "bun:test";
import { Code } from "@connectrpc/connect";
import { ContainerRole, ContainerStatus } from "../../src/gen/agynio/api/runners/v1/runners_pb.ts";
import type { Pod } from "../../src/kube/types.ts";
import { refused, TOKEN } from "../support/gateway.ts";
import { until } from "../support/wait.ts";
import { id, podIn } from "./pods.ts";
import { held, never, reporting } from "./reporting.ts";

const W = id(1);
test("table 5.2, Source: every Pod there is when it begins, and every change from then on", async () => {
  await using link = await reporting();
  link.pods.put(podIn("ready", W));
  await link.settled();
  link.stop();
  await link.running;
  link.pods.put(podIn("failed", id(2)));
  await using next = await reporting({ pods: link.pods, gateway: link.gateway });
  await next.settled();
  expect([link.told(W), link.told(id(2))]).toEqual([["RUNNING", "RUNNING"], ["FAILED"]]);
});

test("table 5.2, Pod to workload: the label's value, trimmed; blank is ignored", async () => {
  await using link = await reporting();
  link.pods.put(podIn("ready", ` ${W} `));
  link.pods.put(podIn("ready", " "));
  await link.settled();
  expect(link.gateway.reports.map((report) => report.id)).toEqual([W]);
});

test.each([
  ["Failed", podIn("failed", W), ["FAILED"]],
  ["Running and Ready", podIn("ready", W), ["RUNNING"]],
  ["Running and not Ready", podIn("unready", W), []],
  ["Running without conditions", podIn("unready", W, { status: { conditions: [] } }), []],
  ["Pending", podIn("pending", W), []],
  ["Succeeded", podIn("succeeded", W), []],
  ["Unknown", podIn("pending", W, { status: { phase: "Unknown" } }), []],
  ["without a status", { ...podIn("pending", W), status: {} }, []],
] as [string, Pod, string[]][])("table 5.2, Mapping: a Pod that is %s", async (_name, pod, told) => {
  await using link = await reporting();
  link.pods.put(pod);
  link.pods.put(podIn("ready", id(2))); // what comes after it is told after it
  await link.settled();
  expect(link.gateway.reports.map((report): string => (report.id === W ? report.status : "next"))).toEqual([
    ...told,
    "next",
  ]);
});

const disrupted = {
  conditions: [
    { type: "Ready", status: "False" },
    { type: "DisruptionTarget", status: "True", reason: "EvictionByEvictionAPI" },
  ],
};

test("table 5.2, Mapping: a Pod that is being deleted is told as failed only when Kubernetes took it away", async () => {
  await using link = await reporting();
  const metadata = { deletionTimestamp: "2026-01-01T00:00:00Z" };
  link.pods.put(podIn("ready", W, { metadata }));
  link.pods.put(podIn("failed", W, { metadata }));
  await link.settled();
  expect(link.told(W)).toEqual([]);
  link.pods.put(podIn("failed", W, { metadata, status: disrupted }));
  await link.settled();
  expect(link.told(W)).toEqual(["FAILED"]);
});

test("table 5.2, When: only when the state differs from the one told last", async () => {
  await using link = await reporting({ timing: { replayMs: 5 } });
  for (const state of ["pending", "ready", "ready", "unready", "ready", "failed", "failed"] as const) {
    link.pods.put(podIn(state, W));
    await link.settled();
  }
  expect(link.told(W)).toEqual(["RUNNING", "FAILED"]);
  // Replays have nothing to add: five of them pass by another workload that is told anew each time.
  link.gateway.script.state = ({ request }) => {
    if (request.workloadId === id(2)) throw refused("not now", Code.Unavailable);
    return undefined;
  };
  link.pods.put(podIn("ready", id(2)));
  await until("five replays passed", () => link.told(id(2)).length >= 15 || undefined);
  expect(link.told(W)).toEqual(["RUNNING", "FAILED"]);
});

test("table 5.2, Deleted pod: nothing is sent, and the same id reports afresh", async () => {
  await using link = await reporting();
  link.pods.put(podIn("ready", W));
  await link.settled();
  link.pods.remove(W);
  await link.settled();
  expect([link.told(W), link.reporter.size]).toEqual([["RUNNING"], 0]);
  link.pods.put(podIn("ready", W, { uid: "another" }));
  await link.settled();
  expect(link.told(W)).toEqual(["RUNNING", "RUNNING"]);
});

test("table 5.2, Deleted pod: what was not sent of it yet is dropped, and one made anew never overtakes it", async () => {
  const gate = held();
  await using link = await reporting({ script: { state: () => gate.wait().then(() => undefined) } });
  link.pods.put(podIn("ready", W));
  await until("the first report is there", () => gate.waiting.length === 1 || undefined);
  link.pods.put(podIn("failed", W));
  link.pods.remove(W);
  link.pods.put(podIn("ready", W, { uid: "another" }));
  expect(gate.waiting.length).toBe(1);
  gate.release();
  await until("the second report is there", () => gate.waiting.length === 1 || undefined);
  gate.release();
  await link.settled();
  expect([link.told(W), link.gateway.calls.most]).toEqual([["RUNNING", "RUNNING"], 1]);
});

test("table 5.2, Request: token, workload, status and time; no runner id; the containers as Inspect has them", async () => {
  const now = Date.parse("2026-03-01T12:00:00.250Z");
  await using link = await reporting({ now: () => now });
  const terminated = {
    exitCode: 3,
    reason: "Error",
    message: " boom ",

    finishedAt: "2026-03-01T11:59:59Z",
  };
  const pod = podIn("failed", W, {
    status: {
      initContainerStatuses: [
        {
          name: "setup",
          image: "i",
          imageID: "",
          ready: false,
          restartCount: 0,
          state: { terminated: { exitCode: 0 } },
        },
      ],
      containerStatuses: [
        {
          name: "main",
          image: "alpine",
          imageID: "",
          ready: false,
          restartCount: 1,
          containerID: "c://1",
          state: { terminated },
        },
        {
          name: "side",
          image: "s",
          imageID: "",
          ready: true,
          restartCount: 0,
          state: { running: {} },
        },
      ],
    },
  });
  const containers = [{ name: "main", image: "alpine:3.19" }, { name: "side" }, { name: "new", image: "n" }];
  link.pods.put({ ...pod, spec: { initContainers: [{ name: "setup" }], containers } });
  await link.settled();
  const [{ request, observedMs } = expect.unreachable()] = link.gateway.reports;
  expect([request.serviceToken, request.workloadId, request.runnerId, observedMs]).toEqual([TOKEN, W, "", now]);
  expect(request.containers).toMatchObject([
    { name: "setup", role: ContainerRole.INIT, status: ContainerStatus.TERMINATED, exitCode: 0 },
    {
      name: "main",
      role: ContainerRole.MAIN,
      status: ContainerStatus.TERMINATED,
      exitCode: 3,
      reason: "Error",
      message: "boom",
      restartCount: 1,
      containerId: "c://1",
    },
    { name: "side", role: ContainerRole.SIDECAR, status: ContainerStatus.RUNNING },
    { name: "new", role: ContainerRole.SIDECAR, status: ContainerStatus.WAITING, image: "n" },
  ]);
});

test("table 5.2, Limits: three attempts with the same time; then it is logged, and the next replay tries again", async () => {
  let left = 4;
  let clock = 1_000;
  await using link = await reporting({
    timing: { replayMs: 20 },
    now: () => clock++,
    script: {
      state: () => {
        if (left-- > 0) throw refused("not now", Code.Unavailable);
        return undefined;
      },
    },
  });
  link.pods.put(podIn("ready", W));
  await until("it was accepted", () => link.gateway.record.get(W));
  await link.settled();
  expect(link.gateway.of(W).map(({ observedMs }) => observedMs)).toEqual([1_000, 1_000, 1_000, 1_001, 1_001]);
  expect(link.lines("report workload state")).toMatchObject([
    { level: "warn", workload_id: W, status: "running", error: "[unavailable] not now" },
  ]);
});

test("table 5.2, Limits: a call has its time, then it is the next attempt's turn", async () => {
  await using link = await reporting({
    timing: { callMs: 50 },
    script: { state: ({ count }) => (count < 3 ? never() : undefined) },
  });
  link.pods.put(podIn("ready", W));
  await link.settled();
  expect([link.told(W).length, link.gateway.record.get(W)?.status]).toEqual([3, "RUNNING"]);
});

test("table 5.2, After the third failure: a workload that keeps failing is a warning once for each of its states", async () => {
  await using link = await reporting({
    timing: { replayMs: 2 },
    script: {
      state: () => {
        throw refused(`quoting ${TOKEN}`, Code.Internal);
      },
    },
  });
  link.pods.put(podIn("ready", W));
  await until("it was tried for long", () => link.told(W).length > 12 || undefined);
  link.pods.put(podIn("failed", W));
  await until(
    "that was tried too",
    () => link.lines("report workload state").some(({ status }) => status === "failed") || undefined,
  );
  const warnings = link.lines("report workload state").filter(({ level }) => level === "warn");
  expect(warnings.map(({ status }) => status)).toEqual(["running", "failed"]);
  expect(link.text()).not.toContain(TOKEN);
});

test("table 5.2, UNIMPLEMENTED: said once, and nothing is reported any more", async () => {
  await using link = await reporting({
    timing: { replayMs: 1 },
    script: {
      state: () => {
        throw refused("no such method", Code.Unimplemented);
      },
    },
  });
  for (let index = 1; index <= 20; index++) link.pods.put(podIn("ready", id(index)));
  await link.running; // ends by itself
  const before = link.gateway.reports.length;
  link.pods.put(podIn("failed", id(1)));
  expect([link.gateway.reports.length, link.reporter.size, link.reporter.pending]).toEqual([before, 0, 0]);
  const line = "platform does not accept workload state reports; leaving it to reconciliation";
  expect(link.lines(line)).toMatchObject([{ level: "info" }]);
  expect(link.text()).not.toMatch(/"level":"(warn|error)"/);
});

test.each([
  ["NOT_FOUND", Code.NotFound, 1],
  ["PERMISSION_DENIED", Code.PermissionDenied, 1],
  ["INVALID_ARGUMENT", Code.InvalidArgument, 2],
])("section 5.2: %s is final for that Pod, or for that report of it", async (_name, code, reports) => {
  await using link = await reporting({
    timing: { replayMs: 1 },
    script: {
      state: ({ request }) => {
        if (request.workloadId === W) throw refused("no", code);
        if (request.workloadId === id(2)) throw refused("not now", Code.Unavailable);
        return undefined;
      },
    },
  });
  link.pods.put(podIn("ready", W));
  await link.settled();
  link.pods.put(podIn("failed", W));
  link.pods.put(podIn("ready", id(2)));
  await until("replays passed", () => link.told(id(2)).length >= 9 || undefined);
  expect(link.told(W).length).toBe(reports);
  link.pods.remove(W);
  link.pods.put(podIn("ready", W, { uid: "another" }));
  await until("the next Pod of this id is told", () => link.told(W).length === reports + 1 || undefined);
});

test("table 5.2, Any other answer: applied false is done, repeated by replays with a later time, ever more rarely", async () => {
  let clock = 1_000;
  let replays = 0;
  await using link = await reporting({ timing: { replayMs: 1 }, now: () => clock++ });
  // Looked at once in each replay, after W.
  link.gateway.removed.add(W);
  link.pods.put(podIn("ready", W));
  await link.settled();
  const counted = podIn("ready", id(2));
  const { status = {} } = counted;
  Object.defineProperty(counted, "status", { get: () => ++replays && status });
  link.pods.put(counted);
  await link.settled();
  await until("it was repeated", () => link.told(W).length >= 4 || undefined);
  const [from, before] = [replays, link.told(W).length];
  await until("fifty replays passed", () => replays - from >= 50 || undefined);
  expect(link.told(W).length - before).toBeLessThanOrEqual(7);
  const times = link.gateway.of(W).map(({ observedMs }) => observedMs);
  expect(times).toEqual([...new Set(times)].sort((a, b) => a - b));
  expect(link.text()).not.toContain(`"workload_id":"${W}"`);
});

test("section 5.2: a clock that runs behind the platform's record catches up by a replay", async () => {
  let clock = 1_000;
  await using link = await reporting({ timing: { replayMs: 1 }, now: () => clock });
  link.gateway.record.set(W, { status: "OTHER", observedMs: 5_000 });
  link.pods.put(podIn("ready", W));
  await until("it was refused", () => link.told(W).length >= 1 || undefined);
  clock = 6_000;
  await until("it is applied", () => link.gateway.record.get(W)?.status === "RUNNING" || undefined);
});

test("table 5.2, Ordering: one workload's reports never overtake, and only its newest state is kept", async () => {
  const gate = held();
  await using link = await reporting({ script: { state: () => gate.wait().then(() => undefined) } });
  link.pods.put(podIn("ready", W));
  await until("the first report is there", () => gate.waiting.length === 1 || undefined);
  link.pods.put(podIn("failed", W));
  link.pods.put(podIn("succeeded", W));
  link.pods.put(podIn("failed", W));
  gate.release();
  await until("the next is there", () => gate.waiting.length === 1 || undefined);
  gate.release();
  await link.settled();
  expect(link.told(W)).toEqual(["RUNNING", "FAILED"]);
});

test("table 5.2, Ordering: what comes of a report that is not the newest any more does not touch the newest", async () => {
  const gate = held();
  await using link = await reporting({
    script: { state: ({ count }) => (count === 1 ? gate.wait().then(() => false) : undefined) },
  });
  link.pods.put(podIn("ready", W));
  await until("the first report is there", () => gate.waiting.length === 1 || undefined);
  link.pods.put(podIn("failed", W));
  gate.release(); // it is not applied
  await link.settled();
  expect([link.told(W), link.gateway.record.get(W)?.status]).toEqual([["RUNNING", "FAILED"], "FAILED"]);
});

test("table 5.2, Ordering: a state that does not hold any more is not sent, and a new one does not wait for a retry", async () => {
  await using link = await reporting({
    timing: { waitsMs: [3_600_000, 3_600_000] },
    script: {
      state: ({ count }) => {
        if (count <= 2) throw refused("not now", Code.Unavailable);
        return undefined;
      },
    },
  });
  link.pods.put(podIn("ready", W));
  await until("the first attempt failed", () => link.told(W).length === 1 || undefined);
  link.pods.put(podIn("unready", W));
  await link.settled();
  link.pods.put(podIn("ready", W));
  await until("the next attempt failed", () => link.told(W).length === 2 || undefined);
  link.pods.put(podIn("failed", W));
  await link.settled();
  expect(link.told(W)).toEqual(["RUNNING", "RUNNING", "FAILED"]);
});

test("table 5.2, Ordering: a report whose answer is lost may be on record, so the state before it is told again", async () => {
  await using link = await reporting({ timing: { waitsMs: [3_600_000, 3_600_000] } });
  link.pods.put(podIn("ready", W));
  await link.settled();
  link.gateway.script.state = ({ count, request }) => {
    if (count !== 2) return undefined;
    link.gateway.record.set(W, { status: "FAILED", observedMs: Number(request.observedAt?.seconds) * 1000 });
    throw refused("lost", Code.Unavailable);
  };
  link.pods.put(podIn("failed", W));
  await until("the answer was lost", () => link.told(W).length === 2 || undefined);
  link.pods.put(podIn("ready", W));
  await link.settled();
  expect([link.told(W), link.gateway.record.get(W)?.status]).toEqual([["RUNNING", "FAILED", "RUNNING"], "RUNNING"]);
});

test("table 5.2, Ordering: a workload whose report hangs holds up no other one", async () => {
  await using link = await reporting({
    script: { state: ({ request }) => (request.workloadId === W ? never() : undefined) },
  });
  link.pods.put(podIn("ready", W));
  for (let index = 2; index <= 200; index++) link.pods.put(podIn("ready", id(index)));
  await until("all others are told", () => link.reporter.pending === 1 || undefined);
  expect(link.gateway.record.size).toBe(199);
});
