import { describe, expect, test } from "bun:test";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { freshId, idling, script, sharedRunner } from "../support/runner.ts";
import { refusal, until, untilGone, untilPhase } from "../support/wait.ts";

const runner = sharedRunner();

test("GetWorkloadLabels tells all labels of the Pod", async () => {
  const { id } = await runner().start({ additionalProperties: { "label.team": "platform" } });
  expect((await runner().client.getWorkloadLabels({ workloadId: id })).labels).toEqual(
    (await runner().pod(id)).metadata?.labels ?? {},
  );
});

describe("ListWorkloads", () => {
  test("names every Pod that has a workload_key, an empty one too, and no other", async () => {
    const { client, ledger } = runner();
    const key = freshId();
    const [keyed, empty, without] = await Promise.all([
      runner().start({ additionalProperties: { "label.workload_key": key } }),
      runner().start({ labels: { workload_key: "" } }),
      runner().start(),
    ]);
    const foreign = await ledger.foreignPod(`foreign-${freshId()}`, { labels: { workload_key: key } });
    const { workloads } = await client.listWorkloads({});
    const mine = workloads.filter(({ instanceId }) =>
      [keyed, empty, without].some(({ id }) => instanceId.endsWith(id)),
    );
    expect(mine.map(({ instanceId, workloadKey }) => [instanceId, workloadKey]).toSorted()).toEqual(
      [
        [`workload-${keyed.id}`, key],
        [`workload-${empty.id}`, ""],
      ].toSorted(),
    );
    expect(workloads.map(({ instanceId }) => instanceId)).not.toContain(foreign.metadata?.name);
  });

  test("keeps a workload that is ending or has ended until it is gone", async () => {
    const { client } = runner();
    const listed = async (id: string) =>
      (await client.listWorkloads({})).workloads.some(({ workloadKey }) => workloadKey === id);
    const id = freshId();
    await runner().start({ workloadId: id, main: script("true"), labels: { workload_key: id } });
    await untilPhase(client, id, "succeeded");
    expect(await listed(id)).toBe(true);
    await client.stopWorkload({ workloadId: id });
    await untilGone(client, id);
    expect(await listed(id)).toBe(false);
  });
});

describe("FindWorkloadsByLabels", () => {
  test("finds ids by all labels given, those that run or with all every one", async () => {
    const { client } = runner();
    const team = freshId();
    const [running, ended] = await Promise.all([
      runner().run({ labels: { team, kind: "a" } }),
      runner().start({ main: script("true"), labels: { team, kind: "b" } }),
    ]);
    await untilPhase(client, ended.id, "succeeded");
    const find = async (labels: Record<string, string>, all: boolean) =>
      (await client.findWorkloadsByLabels({ labels, all })).targetIds.toSorted();
    expect(await find({ team }, true)).toEqual([running.id, ended.id].toSorted());
    expect(await find({ team }, false)).toEqual([running.id]);
    expect(await find({ team, kind: "b" }, true)).toEqual([ended.id]);
    expect(await find({ team, kind: "c" }, true)).toEqual([]);
    expect(await find({}, true)).toEqual(expect.arrayContaining([running.id, ended.id]));
  });

  test("never finds what is not ours", async () => {
    const team = freshId();
    const { client, ledger } = runner();
    await ledger.foreignPod(`foreign-${freshId()}`, { labels: { team } });
    await ledger.foreignPod(`foreign-${freshId()}`, { labels: { team, "app.kubernetes.io/managed-by": "k8s-runner" } });
    await ledger.foreignPod(`foreign-${freshId()}`, { labels: { team, "agyn.io/workload-id": freshId() } });
    const { id } = await runner().start({ labels: { team } });
    expect((await client.findWorkloadsByLabels({ labels: { team }, all: true })).targetIds).toEqual([id]);
  });

  test("refuses labels that no Pod can have", async () => {
    const { client } = runner();
    for (const labels of [{ "a b": "c" }, { a: "b c" }, { "": "x" }, { "A/b": "c" }]) {
      const { code, message } = await refusal(client.findWorkloadsByLabels({ labels }));
      expect(code).toBe("InvalidArgument");
      expect(message).toStartWith("invalid_label: ");
    }
  });
});

describe("volumes", () => {
  const named = (persistentName: string, labels: Record<string, string> = {}) => ({
    name: "data",
    kind: VolumeKind.NAMED,
    persistentName,
    labels,
  });
  const mounted = idling({ mounts: [{ volume: "data", mountPath: "/data" }] });

  test("a new claim is made as asked, listed by its volume_key, and names its workloads", async () => {
    const { client, ledger } = runner();
    const claim = ledger.claimName("fresh");
    const volumeKey = freshId();
    const { id } = await runner().run({
      main: mounted,
      volumes: [named(claim, { volume_key: volumeKey })],
      labels: { team: "t" },
    });
    const made = await runner().claim(claim);
    expect(made?.metadata?.labels).toMatchObject({
      "app.kubernetes.io/managed-by": "k8s-runner",
      "agyn.dev/managed-by": "agents-orchestrator",
      team: "t",
      volume_key: volumeKey,
    });
    expect(made?.metadata?.labels).not.toContainKey("agyn.io/workload-id");
    expect(made?.spec).toMatchObject({ accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Mi" } } });
    expect((await client.listVolumes({})).volumes).toContainEqual(
      expect.objectContaining({ instanceId: claim, volumeKey }),
    );
    expect((await client.listWorkloadsByVolume({ volumeName: ` ${claim} ` })).targetIds).toEqual([id]);
    expect((await client.listWorkloadsByVolume({ volumeName: volumeKey })).targetIds).toEqual([]);
    const pod = await runner().pod(id);
    expect(pod.metadata?.annotations?.["agyn.io/pvc-names"]).toBe(claim);
    expect(pod.spec?.schedulingGates ?? []).toEqual([]);
  });

  test("a claim that exists is used as it is", async () => {
    const { client, ledger } = runner();
    const claim = ledger.claimName("reused");
    const first = await runner().run({ main: mounted, volumes: [named(claim, { volume_key: "first" })] });
    const before = await runner().claim(claim);
    const second = await runner().start({ main: mounted, volumes: [named(claim, { volume_key: "second" })] });
    expect((await runner().claim(claim))?.metadata).toMatchObject({
      uid: before?.metadata?.uid ?? "",
      labels: { volume_key: "first" },
    });
    expect((await client.listWorkloadsByVolume({ volumeName: claim })).targetIds.toSorted()).toEqual(
      [first.id, second.id].toSorted(),
    );
  });

  test("RemoveWorkload with remove_volumes keeps a claim that another workload mounts, and takes it with the last", async () => {
    const { client, ledger } = runner();
    const claim = ledger.claimName("shared");
    const [first, second] = [freshId(), freshId()];
    await runner().start({ workloadId: first, main: mounted, volumes: [named(claim)] });
    await runner().start({ workloadId: second, main: mounted, volumes: [named(claim)] });
    await client.removeWorkload({ workloadId: first, force: true, removeVolumes: true });
    await untilGone(client, first);
    expect((await runner().claim(claim))?.metadata?.deletionTimestamp).toBeUndefined();
    expect((await client.listWorkloadsByVolume({ volumeName: claim })).targetIds).toEqual([second]);
    await client.removeWorkload({ workloadId: second, force: true, removeVolumes: true });
    await until("the claim is gone", async () => ((await runner().claim(claim)) === undefined ? true : undefined));
  });

  test("RemoveVolume succeeds for a claim that is there, terminating or gone; a mounted one stays listed until it is", async () => {
    const { client, ledger } = runner();
    const claim = ledger.claimName("removed");
    const listed = async () => (await client.listVolumes({})).volumes.some(({ instanceId }) => instanceId === claim);
    const { id } = await runner().run({ main: mounted, volumes: [named(claim, { volume_key: "k" })] });
    await client.removeVolume({ volumeName: claim });
    await client.removeVolume({ volumeName: ` ${claim} `, force: true });
    expect((await runner().claim(claim))?.metadata?.deletionTimestamp).toBeDefined();
    expect(await listed()).toBe(true);
    expect(await refusal(runner().start({ main: mounted, volumes: [named(claim)] }))).toEqual({
      code: "FailedPrecondition",
      message: `volume_terminating: ${claim}`,
    });
    await client.removeWorkload({ workloadId: id, force: true });
    await until("the claim is gone", async () => ((await listed()) ? undefined : true));
    for (const volumeName of [claim, "missing-volume", "../pods/x"]) await client.removeVolume({ volumeName });
  });

  test("without a name are refused", async () => {
    const { client } = runner();
    const calls = [
      () => client.removeVolume({ volumeName: " " }),
      () => client.listWorkloadsByVolume({ volumeName: "" }),
    ];
    for (const call of calls)
      expect(await refusal(call())).toEqual({ code: "InvalidArgument", message: "volume_name_required" });
    expect((await client.listWorkloadsByVolume({ volumeName: "no-such-claim" })).targetIds).toEqual([]);
  });
});
