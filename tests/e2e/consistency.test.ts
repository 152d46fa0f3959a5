import { expect, test } from "bun:test";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { exec } from "../support/exec.ts";
import { scripted } from "../support/faults/script.ts";
import { Gate } from "../support/gate.ts";
import { Link } from "../support/link.ts";
import { freshId, idling, sharedRunner, startRunner } from "../support/runner.ts";
import { refusal, until, untilRunning } from "../support/wait.ts";

const runner = sharedRunner();
/** 200 shows it on a real cluster; the suite keeps to fewer. */
const TRIES = Number(process.env.E2E_TRIES ?? 20);

test(
  `a workload is seen by every read as soon as it is started, ${TRIES} times of ${TRIES} (clients.md 9)`,
  async () => {
    const { client, ledger } = runner();
    const claim = ledger.claimName("consistency");
    const volumes = [{ name: "data", kind: VolumeKind.NAMED, persistentName: claim }];
    const main = idling({ mounts: [{ volume: "data", mountPath: "/data" }] });
    const misses: string[] = [];
    for (let count = 0; count < TRIES; count++) {
      const workloadId = freshId();
      const { containers } = await runner().start({ workloadId, main, volumes, labels: { workload_key: workloadId } });
      const [inspected, labels, listed, found, mounting, execution] = await Promise.all([
        client.inspectWorkload({ workloadId }).then(
          () => true,
          () => false,
        ),
        client.getWorkloadLabels({ workloadId }).then(
          () => true,
          () => false,
        ),
        client.listWorkloads({}),
        client.findWorkloadsByLabels({ labels: { workload_key: workloadId }, all: true }),
        client.listWorkloadsByVolume({ volumeName: claim }),
        exec(client, { targetId: containers?.main ?? "", commandArgv: ["true"] }),
      ]);
      if (!inspected) misses.push("Inspect");
      if (!labels) misses.push("GetWorkloadLabels");
      if (!listed.workloads.some(({ workloadKey }) => workloadKey === workloadId)) misses.push("ListWorkloads");
      if (!found.targetIds.includes(workloadId)) misses.push("FindWorkloadsByLabels");
      if (!mounting.targetIds.includes(workloadId)) misses.push("ListWorkloadsByVolume");
      if (execution.errors.length > 0) misses.push("Exec");
      await client.removeWorkload({ workloadId, force: true });
    }
    expect(misses).toEqual([]);
  },
  TRIES * 2_000 + 10_000,
);

test("behind a watch that is late a started workload is listed all the same: the API server is asked for the list", async () => {
  await using gate = await Gate.over(runner().backend.access);
  await using behind = await startRunner({ backend: runner().backend, access: () => gate.access });
  await behind.client.listWorkloads({}); // synced
  gate.fault = scripted({
    on: ["watch", "stream"],
    fault: { body: { lateMs: 3_000 } },
    times: Number.POSITIVE_INFINITY,
  });
  const { watches } = behind.watcher.requests;
  gate.dropConnections();
  await until("the late watch is open", () => behind.watcher.requests.watches > watches || undefined);
  const before = gate.requests.length;
  const workloadId = runner().ledger.workload(freshId());
  const labels = { workload_key: workloadId };
  await behind.client.startWorkload({ workloadId, labels, main: idling(), additionalProperties: runner().ledger.mark });
  const { workloads } = await behind.client.listWorkloads({});
  expect(workloads.map(({ workloadKey }) => workloadKey)).toContain(workloadId);
  const lists = gate.requests.slice(before).filter((each) => each.startsWith("GET") && !each.includes("watch=true"));
  expect(lists).toHaveLength(1);
});

test("a thousand Inspect calls ask the API server nothing", async () => {
  await using gate = await Gate.over(runner().backend.access);
  await using behind = await startRunner({ backend: runner().backend, access: () => gate.access });
  const { id } = await runner().start();
  await untilRunning(runner().client, id);
  await untilRunning(behind.client, id);
  const asked = () => gate.requests.filter((request) => !request.includes("watch=true")).length;
  const before = asked();
  for (let count = 0; count < 1_000; count++) await behind.client.inspectWorkload({ workloadId: id });
  expect(asked() - before).toBe(0);
});

test("while the API server cannot be reached, what is known is told, and nothing is called absent (ruling 5)", async () => {
  await using link = await Link.to(runner().backend.access.server);
  await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  const { id } = await runner().run();
  await untilRunning(behind.client, id);
  link.down();
  expect((await behind.client.inspectWorkload({ workloadId: id })).stateRunning).toBe(true);
  const away = { code: "Unavailable", message: "cluster_unreachable" };
  const calls = [
    () => behind.client.inspectWorkload({ workloadId: freshId() }),
    () => behind.client.listVolumes({}),
    () => behind.client.stopWorkload({ workloadId: id }),
    () => behind.client.startWorkload({ main: idling() }),
    () => behind.client.removeVolume({ volumeName: "any" }),
  ];
  for (const call of calls) expect(await refusal(call())).toEqual(away);
  const { errors } = await exec(behind.client, { targetId: freshId(), commandArgv: ["true"] });
  expect(errors).toMatchObject([{ code: "exec_start_failed", message: "cluster_unreachable", retryable: true }]);
  link.up();
  expect((await behind.client.inspectWorkload({ workloadId: id })).stateRunning).toBe(true);
});

test("before the first list nothing is told, not even an empty list", async () => {
  await using link = await Link.to(runner().backend.access.server);
  link.down();
  await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  const { client } = behind;
  const calls = [
    client.listWorkloads({}),
    client.inspectWorkload({ workloadId: freshId() }),
    client.findWorkloadsByLabels({ all: true }),
    client.listWorkloadsByVolume({ volumeName: "any" }),
  ].map(refusal);
  for (const call of await Promise.all(calls))
    expect(call).toEqual({ code: "Unavailable", message: "cluster_unreachable" });
  expect((await client.ready({})).status).toBe("ok");
});
