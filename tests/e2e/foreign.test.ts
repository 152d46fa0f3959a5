import { expect, test } from "bun:test";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { exec } from "../support/exec.ts";
import { logText } from "../support/logs.ts";
import { freshId, idling, sharedRunner } from "../support/runner.ts";
import { refusal } from "../support/wait.ts";

// Ruling 3: what we did not make is treated as not there, and never touched.
const runner = sharedRunner();

test("a Pod without our labels is not there for any RPC that names one, and stays as it was", async () => {
  const { client, ledger } = runner();
  const id = freshId();
  const name = `workload-${id}`;
  const pods = [{}, { "app.kubernetes.io/managed-by": "k8s-runner" }, { "agyn.io/workload-id": id }];
  for (const labels of pods) {
    const made = await ledger.foreignPod(name, {
      labels,
      annotations: { "agyn.io/pvc-names": "x", "agyn.io/pull-secret-names": "y" },
    });
    const gone = { code: "NotFound", message: `resource not found: pods "${name}" not found` };
    const calls = [
      () => client.inspectWorkload({ workloadId: id }),
      () => client.getWorkloadLabels({ workloadId: id }),
      () => client.touchWorkload({ workloadId: id }),
      () => client.stopWorkload({ workloadId: id }),
      () => client.removeWorkload({ workloadId: id, force: true, removeVolumes: true }),
      () => client.putArchive({ workloadId: id, path: "/tmp" }),
      () => logText(client, { workloadId: id, containerName: "main" }),
    ];
    for (const call of calls) expect(await refusal(call())).toEqual(gone);
    for (const targetId of [id, name, `${name}:main`]) {
      const { errors, kinds } = await exec(client, { targetId, commandArgv: ["true"] });
      expect(kinds).toEqual(["error"]);
      expect(errors).toMatchObject([
        { code: "exec_start_failed", message: `pods "${targetId.split(":")[0]}" not found` },
      ]);
    }
    const left = await ledger.podNamed(name);
    expect(left?.metadata).toMatchObject({
      uid: made.metadata?.uid ?? "",
      annotations: made.metadata?.annotations ?? {},
    });
    expect(left?.metadata?.deletionTimestamp).toBeUndefined();
    await runner().backend.admin.pods.delete(name, { gracePeriodSeconds: 0 });
  }
});

test("a claim without our label cannot be mounted or removed, and a start that wants it makes nothing", async () => {
  const { client, ledger } = runner();
  const name = ledger.claimName("foreign");
  const made = await ledger.foreignClaim(name);
  const workloadId = freshId();
  const start = runner().start({
    workloadId,
    main: idling({ mounts: [{ volume: "data", mountPath: "/data" }] }),
    volumes: [
      { name: "other", kind: VolumeKind.NAMED, persistentName: ledger.claimName("never-made") },
      { name: "data", kind: VolumeKind.NAMED, persistentName: name },
    ],
    imagePullCredentials: [{ registry: "r.test", username: "u", password: "p" }],
  });
  expect(await refusal(start)).toEqual({ code: "FailedPrecondition", message: `volume_not_managed: ${name}` });
  expect(await ledger.podNamed(`workload-${workloadId}`)).toBeUndefined();
  expect(await runner().secrets(workloadId)).toEqual([]);
  expect(await runner().claim(ledger.claimName("never-made"))).toBeUndefined();
  await client.removeVolume({ volumeName: name });
  const left = await runner().claim(name);
  expect(left?.metadata).toMatchObject({ uid: made.metadata?.uid ?? "" });
  expect(left?.metadata?.deletionTimestamp).toBeUndefined();
  expect((await client.listVolumes({})).volumes.map(({ instanceId }) => instanceId)).not.toContain(name);
});

test("Secrets that a Pod's annotation names are deleted only when they are the workload's own", async () => {
  const { client, ledger, backend } = runner();
  const { id } = await runner().run();
  const other = freshId();
  const foreign = [`foreign-${other}`, `workload-${other}-pull`, `workload-${id}-other`];
  const own = `workload-${id}-pull-3`;
  for (const name of [...foreign, own]) await ledger.foreignSecret(name);
  const patch = { metadata: { annotations: { "agyn.io/pull-secret-names": [...foreign, own].join(", ") } } };
  await backend.admin.pods.patch(`workload-${id}`, patch);
  await client.removeWorkload({ workloadId: id, force: true });
  for (const name of foreign) expect(await ledger.secretNamed(name)).toBeDefined();
  expect(await ledger.secretNamed(own)).toBeUndefined();
});
