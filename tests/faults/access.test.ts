import { afterEach, beforeAll, describe, expect, setSystemTime, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Access, clusterAccess } from "../../src/kube/access.ts";
import { TOUCHED_AT_ANNOTATION } from "../../src/pod/names.ts";
import { Gate } from "../support/gate.ts";
import { idling, startRunner } from "../support/runner.ts";
import { refusal } from "../support/wait.ts";
import { Happenings } from "./happenings.ts";
import { changesOf, QUICK, sharedCluster, THERE, told, untilTold, whileAsked } from "./rig.ts";

/* Tokens and certificates that change under a running runner, and clocks that jump: nobody outside may notice. */
const cluster = sharedCluster();
const id = randomUUID();
beforeAll(async () => {
  await cluster.make(id);
});

/** A runner that finds the cluster as in a Pod: by files that the kubelet would rotate. */
async function inPod() {
  const gate = await Gate.over(cluster.backend().access, { tls: true });
  const directory = mkdtempSync(join(tmpdir(), "faults-"));
  const write = (name: string, text: string) => writeFileSync(join(directory, name), text);
  gate.token = "first";
  write("token", "first");
  write("ca.crt", gate.caPem);
  const env = { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: String(gate.port) };
  const access: Access = clusterAccess(env, { serviceAccountDir: directory });
  const runner = await startRunner({ backend: cluster.backend(), access: () => access, tuning: QUICK });
  const changes = changesOf(runner);
  return {
    ...runner,
    gate,
    changes,
    write,
    async [Symbol.asyncDispose]() {
      await runner[Symbol.asyncDispose]();
      await gate[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true });
    },
  };
}

describe("the token expires and is rotated", () => {
  test("READ and REPORT: invisible: the file is read again, and what was missed is told once", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await inPod();
    await untilTold(rig, happenings.still, THERE);
    const since = rig.changes.length;
    rig.write("token", "second");
    rig.gate.token = "second";
    rig.gate.dropConnections();
    const { lies } = await whileAsked(rig, happenings.still, async () => {
      await happenings.happen();
      await happenings.expectTold(rig, since);
    });
    expect(lies).toEqual([]);
    expect(await refusal(rig.client.inspectWorkload({ workloadId: randomUUID() }))).toMatchObject({ code: "NotFound" });
    expect(rig.gate.unauthorized).toBeGreaterThan(0);
    expect(rig.watcher.stats.failures.get("401")).toBeUndefined();
  });

  test("WRITE: invisible: every write works on", async () => {
    await using rig = await inPod();
    const { ledger, client } = rig;
    for (const [index, write] of [
      () => client.touchWorkload({ workloadId: id }),
      () => client.listVolumes({}),
      () => client.removeVolume({ volumeName: ledger.claimName("none") }),
      () =>
        rig.start({ main: idling() }).then(({ id: workloadId }) => client.removeWorkload({ workloadId, force: true })),
      () =>
        rig.start({ main: idling() }).then(({ id: workloadId }) => client.stopWorkload({ workloadId, timeoutSec: 1 })),
    ].entries()) {
      const before = rig.gate.unauthorized;
      rig.gate.token = `token-${index}`;
      rig.write("token", rig.gate.token);
      await write();
      expect(rig.gate.unauthorized).toBeGreaterThan(before); // it was refused once, and nobody noticed
    }
    for (const workloadId of ledger.workloads)
      await client.removeWorkload({ workloadId, force: true }).catch(() => undefined); // gone, or going
  });
});

describe("the CA and the server's certificate are rotated", () => {
  test("READ, WRITE, REPORT: never without TLS; reads from the cache, then all is well with the bundle read anew", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await inPod();
    await untilTold(rig, happenings.still, THERE);
    await rig.client.listVolumes({});
    const since = rig.changes.length;
    const before = rig.gate.requests.length;
    await rig.gate.rotateCertificates();
    await happenings.happen();
    expect(await told(rig, happenings.still)).toEqual(THERE);
    // The old bundle does not know the new server: nothing is sent to it, and the caller hears that it cannot be reached.
    expect(await refusal(rig.client.listVolumes({}))).toEqual({ code: "Unavailable", message: "cluster_unreachable" });
    expect(rig.gate.requests.length).toBe(before);
    rig.write("ca.crt", rig.gate.caPem);
    await happenings.expectTold(rig, since);
    expect((await rig.client.listVolumes({})).volumes).toBeArray();
    expect(await told(rig, happenings.still)).toEqual(THERE);
  });
});

describe("the clock jumps", () => {
  afterEach(() => void setSystemTime());

  test.each([3_600_000, -3_600_000])(
    "by %d ms: READ: nothing is taken for old or new by it; WRITE: Touch tells UTC",
    async (ms) => {
      await using rig = await cluster.rig();
      await untilTold(rig, id, THERE);
      const { lists } = rig.watcher.requests;
      setSystemTime(new Date(Date.now() + ms));
      expect(rig.watcher.live).toBe(true);
      expect(await told(rig, id)).toEqual(THERE);
      expect(rig.watcher.requests.lists).toBe(lists);
      const before = Date.now();
      await rig.client.touchWorkload({ workloadId: id });
      const touched = (await rig.pod(id)).metadata?.annotations?.[TOUCHED_AT_ANNOTATION] ?? "";
      expect(touched).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
      expect(Math.abs(Date.parse(touched) - before)).toBeLessThan(60_000);
    },
  );

  test("REPORT: what happened is told once and in order all the same", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await cluster.rig();
    await untilTold(rig, happenings.still, THERE);
    const since = rig.changes.length;
    setSystemTime(new Date(Date.now() - 3_600_000));
    await happenings.happen();
    await happenings.expectTold(rig, since);
  });
});
