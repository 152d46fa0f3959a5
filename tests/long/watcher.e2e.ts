import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { Code, ConnectError } from "@connectrpc/connect";
import { $ } from "bun";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { MANAGED_BY_LABEL, MANAGER, VOLUME_KEY_LABEL } from "../../src/pod/names.ts";
import { sleep } from "../../src/time.ts";
import { Happenings } from "../faults/happenings.ts";
import { count, labelOf, sharedCluster, THERE, told, untilTold, whileAsked } from "../faults/rig.ts";
import { aboutOf, GONE, NO_STREAM } from "../support/faults/fault.ts";
import { scripted } from "../support/faults/script.ts";
import { Gate } from "../support/gate.ts";
import { runnerProcess } from "../support/process.ts";
import { freshId, idling, type RunnerClient } from "../support/runner.ts";
import { until } from "../support/wait.ts";

/*
 * The watcher at its production times: what the fault table promises in seconds, shown in seconds. Some ten minutes in all;
 * on the embedded cluster, or on a real one by E2E_KUBECONFIG: bun test ./tests/long/watcher.e2e.ts
 */
const cluster = sharedCluster();
setDefaultTimeout(1_200_000);
const ALWAYS = Number.POSITIVE_INFINITY;
const PRODUCTION = {};
const KILLS = Number(process.env.E2E_KILLS ?? 20);
const STARTS = Number(process.env.E2E_STARTS ?? 500);

const quantile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN;

describe("a runner that is killed again and again", () => {
  const ids: string[] = [];
  const claims: string[] = [];
  beforeAll(async () => {
    for (let index = 0; index < 200; index++) {
      ids.push(await cluster.make());
      const name = `kills-${randomUUID()}`;
      await cluster.backend().admin.claims.create({
        apiVersion: "v1",
        kind: "PersistentVolumeClaim",
        metadata: { name, labels: { [MANAGED_BY_LABEL]: MANAGER, [VOLUME_KEY_LABEL]: name } },
        // No class that binds at once: two hundred claims must not take as many disks.
        spec: {
          accessModes: ["ReadWriteOnce"],
          storageClassName: "faults.test-none",
          resources: { requests: { storage: "1Mi" } },
        },
      });
      claims.push(name);
    }
  });
  afterAll(async () => {
    for (const name of claims) await cluster.backend().admin.claims.delete(name);
  });

  test(`${KILLS} times, asked 50 times a second: no short list, no false NOT_FOUND`, async () => {
    await using gate = await Gate.over(cluster.backend().access);
    gate.pageLimit = 80;
    const answers = { lists: 0, volumes: 0, inspections: 0, unavailable: 0, lost: 0 };
    const lies: string[] = [];
    for (let kill = 0; kill < KILLS; kill++) {
      const pods = scripted(
        { on: "stream", fault: { answer: NO_STREAM }, times: ALWAYS },
        { on: "list", fault: { holdMs: 10_000 } },
        { on: "page", fault: { answer: GONE } },
      );
      let pages = 0;
      gate.fault = (request) => {
        const { kind, resource } = aboutOf(request);
        const third = kind === "page" && resource === "persistentvolumeclaims" && ++pages % 3 === 0;
        return third ? { answer: GONE } : pods(request);
      };
      await using runner = await runnerProcess(gate, cluster.backend().namespace);
      // One is killed in the middle of its first list, the next some time after it.
      const lifeMs = kill % 2 === 0 ? 4_000 : 16_000;
      await poll(runner.client, lifeMs, answers, lies);
      runner.kill();
    }
    console.log(JSON.stringify({ ...answers, gone: gate.fired.filter(({ what }) => what === "410").length }));
    expect(lies).toEqual([]);
    expect(gate.fired.filter(({ what }) => what === "hold").length).toBe(KILLS);
    expect(gate.fired.filter(({ what, resource }) => what === "410" && resource === "pods").length).toBe(KILLS / 2);
    expect(answers.lists).toBeGreaterThan(KILLS);
    expect(answers.volumes).toBeGreaterThan(KILLS);
    expect(answers.unavailable).toBeGreaterThan(0);
  });

  async function poll(client: RunnerClient, ms: number, answers: Record<string, number>, lies: string[]) {
    const over = performance.now() + ms;
    const pending: Promise<unknown>[] = [];
    const ask = (what: string, call: Promise<string | undefined>) =>
      call.then(
        (lie) => {
          answers[what] = (answers[what] ?? 0) + 1;
          if (lie !== undefined) lies.push(lie);
        },
        (error: unknown) => {
          const { code, rawMessage } = ConnectError.from(error);
          if (code === Code.Unavailable) answers.unavailable = (answers.unavailable ?? 0) + 1;
          else if (/closed|aborted|reset/.test(rawMessage))
            answers.lost = (answers.lost ?? 0) + 1; // killed
          else lies.push(`${what}: ${Code[code]} ${rawMessage}`);
        },
      );
    while (performance.now() < over) {
      const id = ids[Math.floor(Math.random() * ids.length)] ?? "";
      const missing = (wanted: readonly string[], given: readonly string[], what: string) => {
        const there = new Set(given);
        const lacking = wanted.filter((each) => !there.has(each)).length;
        return lacking === 0 ? undefined : `${what} lacks ${lacking}`;
      };
      pending.push(
        ask(
          "lists",
          client.listWorkloads({}).then(({ workloads }) =>
            missing(
              ids,
              workloads.map((each) => each.workloadKey),
              "ListWorkloads",
            ),
          ),
        ),
        ask(
          "volumes",
          client.listVolumes({}).then(({ volumes }) =>
            missing(
              claims,
              volumes.map((each) => each.volumeKey),
              "ListVolumes",
            ),
          ),
        ),
        ask(
          "inspections",
          client.inspectWorkload({ workloadId: id }).then(() => undefined),
        ),
      );
      await sleep(60); // three questions each
    }
    await Promise.all(pending.map((each) => Promise.race([each, sleep(12_000)])));
  }
});

test(`a watch that is 3 s late: ${STARTS} starts are seen at once by all five reads`, async () => {
  const env = { WORKLOAD_POD_TEMPLATE: `${import.meta.dir}/../model/template.yaml` };
  await using rig = await cluster.rig(
    (gate) => {
      gate.fault = scripted(
        { on: "stream", fault: { answer: NO_STREAM }, times: ALWAYS },
        { on: "watch", fault: { body: { lateMs: 3_000 } }, times: ALWAYS },
      );
    },
    PRODUCTION,
    env,
  );
  const known = await cluster.make();
  await untilTold(rig, known, THERE);
  const { client } = rig;
  const timed = async (call: Promise<unknown>) => {
    const since = performance.now();
    await call.catch(() => undefined); // a miss is what is measured there
    return performance.now() - since;
  };
  const fresh: number[] = [];
  const live: number[] = [];
  const late: number[] = [];
  const misses: string[] = [];
  for (let index = 0; index < STARTS; index++) {
    const id = freshId();
    fresh.push(await timed(client.inspectWorkload({ workloadId: known })));
    live.push(await timed(client.inspectWorkload({ workloadId: freshId() }))); // a miss: one live GET
    const volumes = [{ name: "data", kind: VolumeKind.NAMED, persistentName: `c-${id}` }];
    await rig.start({ workloadId: id, main: idling(), volumes, labels: { workload_key: id } });
    late.push(await timed(client.inspectWorkload({ workloadId: id })));
    const now = await told(rig, id);
    if (!Bun.deepEquals(now, THERE)) misses.push(JSON.stringify(now));
    await client.removeWorkload({ workloadId: id, force: true, removeVolumes: true });
  }
  const p95 = { fresh: quantile(fresh, 0.95), live: quantile(live, 0.95), late: quantile(late, 0.95) };
  const figures = { p95, p50: { fresh: quantile(fresh, 0.5), live: quantile(live, 0.5), late: quantile(late, 0.5) } };
  console.log(JSON.stringify({ ...figures, waits: rig.watcher.stats.freshnessWaits.total, ...rig.watcher.requests }));
  expect(misses).toEqual([]);
  expect(count(rig, "late")).toBeGreaterThan(0);
});

test("half-open: twenty changed Pods are right within 45 s, with at most two lines of log a second", async () => {
  const ids: string[] = [];
  for (let index = 0; index < 20; index++) ids.push(await cluster.make());
  await using rig = await cluster.rig(undefined, PRODUCTION);
  for (const id of ids) await untilTold(rig, id, THERE);
  await sleep(2_000);
  const lines = rig.logLines().length;
  rig.link.cut("silence");
  const since = performance.now();
  for (const id of ids) await cluster.label(id, { n: "changed" });
  const right = async () => {
    const labels = await Promise.all(ids.map((id) => labelOf(rig, id)));
    return labels.every((label) => label === "changed") || undefined;
  };
  await until("all changes are told", right, 60_000);
  const seconds = (performance.now() - since) / 1_000;
  // The questions' own lines, at debug level, do not count.
  const logged = rig
    .logLines()
    .slice(lines)
    .filter(({ level }) => level !== "debug").length;
  console.log(JSON.stringify({ seconds, logged }));
  expect(seconds).toBeLessThan(45);
  expect(logged / seconds).toBeLessThan(2);
});

test("the watch is closed every 100 ms for a minute: at most 40 watches and 3 lists", async () => {
  const id = await cluster.make();
  await using rig = await cluster.rig(undefined, PRODUCTION);
  await untilTold(rig, id, THERE);
  const before = rig.watcher.requests;
  rig.gate.fault = scripted({ on: "watch", fault: { body: { cut: "end", afterMs: 100 } }, times: ALWAYS });
  rig.link.cut();
  await sleep(60_000);
  const { lists, watches } = rig.watcher.requests;
  console.log(JSON.stringify({ lists: lists - before.lists, watches: watches - before.watches }));
  expect(lists - before.lists).toBeLessThanOrEqual(3);
  expect(watches - before.watches).toBeLessThanOrEqual(40);
  expect(count(rig, "cut end")).toBeGreaterThan(10);
});

// E2E_OUTAGE is a command that takes the API server away for some 20 s, and compacts etcd meanwhile if it can.
const { E2E_OUTAGE: outage } = process.env;
test("an API server that is away for 20 s: no NOT_FOUND, live again within 5 s, what was missed is told once", async () => {
  const happenings = new Happenings(cluster);
  await happenings.prepare();
  await using rig = await cluster.rig(undefined, PRODUCTION);
  await untilTold(rig, happenings.still, THERE);
  const since = rig.changes.length;
  rig.link.down();
  await happenings.happen();
  const { lies } = await whileAsked(
    rig,
    happenings.still,
    async () => {
      await (outage === undefined ? sleep(20_000) : $`sh -c ${outage}`);
    },
    ["Unavailable"],
  );
  rig.link.up();
  const upAt = performance.now();
  await until("it is told", () => rig.changes.length > since || undefined, 30_000);
  const seconds = (performance.now() - upAt) / 1_000;
  await happenings.expectTold(rig, since);
  console.log(JSON.stringify({ seconds, gone: rig.watcher.stats.failures.get("gone") ?? 0 }));
  expect(lies).toEqual([]);
  expect(seconds).toBeLessThan(5);
  if (outage !== undefined) expect(rig.watcher.stats.failures.get("gone")).toBe(1);
});
