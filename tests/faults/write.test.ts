import { beforeAll, describe, expect, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { KubeError } from "../../src/kube/error.ts";
import type { Claim } from "../../src/kube/types.ts";
import {
  MANAGED_BY_LABEL,
  MANAGER,
  PVC_NAMES_ANNOTATION,
  podName,
  TOUCHED_AT_ANNOTATION,
  VOLUME_KEY_LABEL,
} from "../../src/pod/names.ts";
import { type Fault, type Kind, nameOf, tooMany } from "../support/faults/fault.ts";
import { type Rule, scripted } from "../support/faults/script.ts";
import { freshId, idling, type TestRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";
import { ABSENT, count, QUICK, sharedCluster, THERE, told, untilTold } from "./rig.ts";

/*
 * Column WRITE of the fault table. Each write meets each fault at each of its requests; its answer is true: OK when it was
 * done, and a failure leaves the world as it was or on its way to that.
 */
const cluster = sharedCluster();

const pod = (id: string) =>
  cluster
    .backend()
    .admin.pods.get(podName(id))
    .catch(() => undefined);
const claim = (name: string) =>
  cluster
    .backend()
    .admin.claims.get(name)
    .catch(() => undefined);
const going = (object: { metadata?: { deletionTimestamp?: string } } | undefined): boolean =>
  object === undefined || object.metadata?.deletionTimestamp !== undefined;

interface Write {
  /** What it asks of the API server, in order: the fault meets each in turn. */
  readonly requests: readonly { kind: Kind; resource: string }[];
  /** What must be there before it. */
  prepare(id: string): Promise<void>;
  call(runner: TestRunner, id: string): Promise<unknown>;
  /** Whether it has been done, as the cluster has it. */
  done(id: string): Promise<boolean>;
}

const volume = (id: string) => `faults-${id}`;
const claimOf = (name: string, key: string): Claim => ({
  apiVersion: "v1",
  kind: "PersistentVolumeClaim",
  metadata: { name, labels: { [MANAGED_BY_LABEL]: MANAGER, [VOLUME_KEY_LABEL]: key } },
  spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Mi" } } },
});

/** A workload with its claim, as a start would have left it, but that nobody schedules. */
async function prepare(id: string): Promise<void> {
  await cluster.backend().admin.claims.create(claimOf(volume(id), id));
  await cluster.make(id, {}, { [PVC_NAMES_ANNOTATION]: volume(id) });
}

const writes: Record<string, Write> = {
  StartWorkload: {
    requests: [
      { kind: "get", resource: "persistentvolumeclaims" },
      { kind: "create", resource: "pods" },
      { kind: "create", resource: "persistentvolumeclaims" },
      { kind: "patch", resource: "pods" },
    ],
    prepare: async () => undefined,
    call: (runner, id) => {
      const volumes = [{ name: "data", kind: VolumeKind.NAMED, persistentName: volume(id) }];
      return runner.start({ workloadId: id, main: idling(), volumes });
    },
    done: async (id) => {
      const made = await pod(id);
      return (
        made !== undefined && (made.spec?.schedulingGates ?? []).length === 0 && (await claim(volume(id))) !== undefined
      );
    },
  },
  StopWorkload: {
    requests: [
      { kind: "get", resource: "pods" },
      { kind: "delete", resource: "pods" },
    ],
    prepare,
    call: (runner, id) => runner.client.stopWorkload({ workloadId: id, timeoutSec: 1 }),
    done: async (id) => going(await pod(id)),
  },
  RemoveWorkload: {
    requests: [
      { kind: "get", resource: "pods" },
      { kind: "delete", resource: "pods" },
      { kind: "get", resource: "persistentvolumeclaims" },
      { kind: "delete", resource: "persistentvolumeclaims" },
    ],
    prepare,
    call: (runner, id) => runner.client.removeWorkload({ workloadId: id, force: true, removeVolumes: true }),
    done: async (id) => going(await pod(id)) && going(await claim(volume(id))),
  },
  TouchWorkload: {
    requests: [
      { kind: "get", resource: "pods" },
      { kind: "patch", resource: "pods" },
    ],
    prepare,
    call: (runner, id) => runner.client.touchWorkload({ workloadId: id }),
    done: async (id) => (await pod(id))?.metadata?.annotations?.[TOUCHED_AT_ANNOTATION] !== undefined,
  },
  ListVolumes: {
    requests: [{ kind: "list", resource: "persistentvolumeclaims" }],
    prepare: async () => undefined,
    call: async (runner) => {
      const { volumes } = await runner.client.listVolumes({});
      expect(volumes.map(({ volumeKey }) => volumeKey)).toContain("kept"); // never short
    },
    done: async () => true,
  },
  RemoveVolume: {
    requests: [
      { kind: "get", resource: "persistentvolumeclaims" },
      { kind: "delete", resource: "persistentvolumeclaims" },
    ],
    prepare: async (id) => void (await cluster.backend().admin.claims.create(claimOf(volume(id), id))),
    call: (runner, id) => runner.client.removeVolume({ volumeName: volume(id) }),
    done: async (id) => going(await claim(volume(id))),
  },
};

type Outcome = "OK" | "Unavailable" | "Internal";
/** The outcome by what the request that meets the fault is: a read, a write that may be repeated, or a POST. */
interface Row {
  readonly fault: Fault;
  readonly times?: number;
  readonly read: Outcome;
  readonly repeatable: Outcome;
  readonly post: Outcome;
  readonly atLeastMs?: number;
}

const ALWAYS = Number.POSITIVE_INFINITY;
const e500 = { answer: { status: 500, reason: "InternalError", message: "boom" } };
const e503 = { answer: { status: 503, reason: "ServiceUnavailable", message: "boom" } };
const rows: Record<string, Row> = {
  "reset before it was carried out": { fault: "reset before", read: "OK", repeatable: "OK", post: "Unavailable" },
  "reset after it was carried out": { fault: "reset after", read: "OK", repeatable: "OK", post: "OK" },
  "500 once, before it was carried out": { fault: "error before", read: "OK", repeatable: "OK", post: "Internal" },
  "500 once, after it was carried out": { fault: "error after", read: "OK", repeatable: "OK", post: "OK" },
  "503 once": { fault: e503, read: "OK", repeatable: "OK", post: "Unavailable" },
  "500 for ever": { fault: e500, times: ALWAYS, read: "Internal", repeatable: "Internal", post: "Internal" },
  "503 for ever": { fault: e503, times: ALWAYS, read: "Unavailable", repeatable: "Unavailable", post: "Unavailable" },
  "resets for ever": {
    fault: "reset before",
    times: ALWAYS,
    read: "Unavailable",
    repeatable: "Unavailable",
    post: "Unavailable",
  },
  "429 with Retry-After, once": {
    fault: { answer: tooMany(1) },
    read: "OK",
    repeatable: "OK",
    post: "OK",
    atLeastMs: 990,
  },
  "429 with a long Retry-After": {
    fault: { answer: tooMany(60) },
    read: "Unavailable",
    repeatable: "Unavailable",
    post: "Unavailable",
  },
  "half-open: no answer": { fault: "silence", read: "Unavailable", repeatable: "Unavailable", post: "Unavailable" },
  "no JSON, after it was carried out": {
    fault: { body: { garbage: "<html>hello</html>" } },
    read: "Internal",
    repeatable: "Internal",
    post: "OK",
  },
  "a redirect": {
    fault: { answer: { status: 307, headers: { location: "http://127.0.0.1:9/" } } },
    read: "Internal",
    repeatable: "Internal",
    post: "Internal",
  },
  "an answer of another kind": {
    fault: { answer: { status: 200, body: '{"kind":"ConfigMap","metadata":{"name":"x"}}' } },
    read: "Internal",
    repeatable: "Internal",
    post: "Internal",
  },
  "no JSON": {
    fault: { answer: { status: 200, body: "<html>hello</html>" } },
    read: "Internal",
    repeatable: "Internal",
    post: "Internal",
  },
};

const outcomeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => "OK",
    (error: unknown) => (error instanceof ConnectError ? (Code[error.code] ?? "") : String(error)),
  );

/** What a failed claim deletion is to RemoveWorkload: its Pod has gone, so the failure is told as one of claims. */
function expectedOf(name: string, { kind, resource }: Write["requests"][number], row: Row): Outcome {
  const outcome = kind === "create" ? row.post : kind === "get" || kind === "list" ? row.read : row.repeatable;
  // The claim is not there yet: a 404 that is not the API server's own is asked for again.
  const isOdd404 = name === "StartWorkload" && kind === "get" && typeof row.fault === "object" && "body" in row.fault;
  if (isOdd404) return "OK";
  const ofClaims = name === "RemoveWorkload" && resource === "persistentvolumeclaims";
  return ofClaims && outcome !== "OK" ? "Internal" : outcome;
}

/** One write of one workload whose `number`th request meets the fault. */
async function meets(name: string, write: Write, request: Write["requests"][number], row: Row): Promise<void> {
  const id = freshId();
  await write.prepare(id);
  const { fault, times = 1, atLeastMs = 0 } = row;
  const requestMs = fault === "silence" ? 1_000 : 10_000;
  await using rig = await cluster.rig(undefined, { ...QUICK, kube: { requestMs } });
  const on: Rule = { on: request.kind, resource: request.resource, fault, times };
  rig.gate.fault = scripted(on);
  const since = performance.now();
  const outcome = await outcomeOf(write.call(rig, id));
  const where = `${name}, ${request.kind} ${request.resource}`;
  expect(`${where}: ${outcome}`).toBe(`${where}: ${expectedOf(name, request, row)}`);
  expect(count(rig, nameOf(fault), request.kind)).toBeGreaterThan(0);
  expect(performance.now() - since).toBeGreaterThanOrEqual(atLeastMs);
  rig.gate.fault = () => undefined;
  if (outcome === "OK") expect(await write.done(id)).toBe(true);
  else if (name === "StartWorkload") {
    await until(
      "nothing is left of it",
      async () => ((await pod(id)) ?? (await claim(volume(id)))) === undefined || undefined, // a claim takes a moment to go
    );
  }
  // Whatever happened: once more, and it is done.
  const gone = write.requests[0]?.resource === "pods" && (await pod(id)) === undefined;
  const again = await outcomeOf(write.call(rig, id));
  expect(`${where}, again: ${again}`).toBe(
    `${where}, again: ${name === "StartWorkload" && outcome === "OK" ? "AlreadyExists" : gone ? "NotFound" : "OK"}`,
  );
  expect(gone || (await write.done(id))).toBe(true);
  await rig.client.removeWorkload({ workloadId: id, force: true }).catch(() => undefined);
  await rig.client.removeVolume({ volumeName: volume(id) });
}

beforeAll(async () => {
  const create = cluster.backend().admin.claims.create(claimOf("faults-kept", "kept"));
  // Of an earlier run on the same cluster.
  await create.catch((error: unknown) => {
    if (!(error instanceof KubeError && error.reason === "AlreadyExists")) throw error;
  });
});

describe.each(Object.entries(rows))("%s", (_, row) => {
  test.each(Object.entries(writes))("WRITE: %s", async (name, write) => {
    await Promise.all(write.requests.map((request) => meets(name, write, request, row)));
  });
});

describe("while the watch is late, no read tells of a Pod that a write was told is gone:", () => {
  const LATE: Rule = { on: ["watch", "stream"], fault: { body: { lateMs: 3_000 } }, times: ALWAYS };

  async function lateRig(id: string) {
    await prepare(id);
    const rig = await cluster.rig();
    await untilTold(rig, id, THERE);
    rig.gate.fault = scripted(LATE);
    rig.link.cut();
    await until("the late watch is open", () => rig.watcher.requests.watches > 0 || undefined);
    return rig;
  }

  test("its deletion was carried out, and the answer lost", async () => {
    const id = freshId();
    await using rig = await lateRig(id);
    rig.gate.fault = scripted(LATE, { on: "delete", fault: "reset after" });
    await rig.client.removeWorkload({ workloadId: id, force: true, removeVolumes: true });
    expect(await told(rig, id)).toEqual(ABSENT);
    expect(count(rig, "reset after")).toBe(1);
  });

  test("it was deleted by somebody else, and StopWorkload answered NOT_FOUND", async () => {
    const id = freshId();
    await using rig = await lateRig(id);
    await cluster.remove(id);
    expect(await outcomeOf(rig.client.stopWorkload({ workloadId: id }))).toBe("NotFound");
    expect(await told(rig, id)).toEqual(ABSENT);
    await rig.client.removeVolume({ volumeName: volume(id) });
  });
});
