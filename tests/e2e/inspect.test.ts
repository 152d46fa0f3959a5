import { describe, expect, test } from "bun:test";
import {
  ContainerRole,
  ContainerStatus,
  type InspectWorkloadResponse,
  VolumeKind,
} from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { freshId, IMAGE, idling, script, sharedRunner, startRunner } from "../support/runner.ts";
import { refusal, untilGone, untilInspected, untilPhase } from "../support/wait.ts";

const runner = sharedRunner();
const { RUNNING, TERMINATED, WAITING } = ContainerStatus;
const { MAIN, SIDECAR, INIT } = ContainerRole;

test("a running workload is told with its image, its mounts and every container in order", async () => {
  const { ledger, client } = runner();
  const persistentName = ledger.claimName("inspected");
  const { id } = await runner().run({
    main: idling({
      name: "agent",
      mounts: [
        { volume: "scratch", mountPath: "/scratch" },
        { volume: "data", mountPath: "/data", readOnly: true },
      ],
    }),
    sidecars: [idling()],
    initContainers: [
      script("true", { name: "setup" }),
      idling({ name: "native", additionalProperties: { restart_policy: "Always" } }),
    ],
    volumes: [
      { name: "data", kind: VolumeKind.NAMED, persistentName },
      { name: "scratch", kind: VolumeKind.EPHEMERAL },
    ],
  });
  const told = await untilInspected(client, ` ${id}`, "has all it wants", ({ containers }) =>
    containers.every(({ name, status }) => name === "setup" || status === RUNNING),
  );
  expect(told).toMatchObject({ id, name: id, configImage: IMAGE, stateStatus: "running", stateRunning: true });
  expect(told.image).toContain("alpine:3.19");
  expect(told.mounts).toMatchObject([
    { type: "emptydir", source: "scratch", destination: "/scratch", readOnly: false },
    { type: "pvc", source: persistentName, destination: "/data", readOnly: true },
  ]);
  expect(told.containers.map(({ name, role, status }) => [name, role, status])).toEqual([
    ["setup", INIT, TERMINATED],
    ["native", INIT, RUNNING],
    ["agent", MAIN, RUNNING],
    ["sidecar-1", SIDECAR, RUNNING],
  ]);
  const [setup, , agent] = told.containers;
  expect(setup).toMatchObject({ exitCode: 0, reason: "Completed", restartCount: 0 });
  expect(setup?.finishedAt).toBeDefined();
  expect(agent).toMatchObject({ restartCount: 0 });
  expect(agent?.containerId).not.toBe("");
  expect([agent?.exitCode, agent?.reason, agent?.message, agent?.finishedAt]).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  expect(agent?.startedAt).toBeDefined();
});

describe("a workload that ended", () => {
  test.each([
    [0, "succeeded", "Completed"],
    [3, "failed", "Error"],
  ])("with code %d has %s", async (code, phase, reason) => {
    const { id } = await runner().start({ main: script(`exit ${code}`) });
    const told = await untilPhase(runner().client, id, phase);
    expect(told.stateRunning).toBe(false);
    expect(told.containers).toMatchObject([{ status: TERMINATED, exitCode: code, reason, role: MAIN }]);
    expect(told.containers[0]?.startedAt).toBeDefined();
    expect(told.containers[0]?.finishedAt).toBeDefined();
  });

  test("in an init container never starts main, which goes on waiting", async () => {
    const { id } = await runner().start({ initContainers: [script("exit 5", { name: "setup" })] });
    const told = await untilPhase(runner().client, id, "failed");
    expect(told.containers).toMatchObject([
      { name: "setup", role: INIT, status: TERMINATED, exitCode: 5 },
      { name: "main", role: MAIN, status: WAITING, reason: "PodInitializing" },
    ]);
  });
});

test("a container whose image cannot be had waits with the reason of Kubernetes", async () => {
  const { id } = await runner().start({ main: { image: "registry.invalid/missing:1" } });
  const told = await untilInspected(runner().client, id, "cannot pull", ({ containers }) =>
    containers.some(({ reason }) => reason === "ErrImagePull" || reason === "ImagePullBackOff"),
  );
  expect(told).toMatchObject({ stateStatus: "pending", stateRunning: false });
  expect(told.containers).toMatchObject([{ status: WAITING, role: MAIN }]);
  expect(told.containers[0]?.message).not.toBe("");
});

test("containers of a Pod that cannot be scheduled wait with the scheduler's reason (ruling 21)", async () => {
  const { ledger, backend } = runner();
  const name = ledger.claimName("unbound");
  await using elsewhere = await startRunner({ backend, env: { PVC_STORAGE_CLASS: "no-such-class" } });
  const { id } = await elsewhere.start({
    workloadId: ledger.workload(freshId()),
    volumes: [{ name: "data", kind: VolumeKind.NAMED, persistentName: name }],
    main: idling({ mounts: [{ volume: "data", mountPath: "/data" }] }),
    sidecars: [idling()],
  });
  const waits = ({ containers }: InspectWorkloadResponse) =>
    containers.some(({ reason }) => reason === "Unschedulable");
  const seen = await untilInspected(elsewhere.client, id, "cannot be scheduled", waits);
  expect(seen.stateStatus).toBe("pending");
  expect(seen.containers).toHaveLength(2);
  for (const { status, reason, message } of seen.containers)
    expect({ status, reason, told: message !== "" }).toEqual({ status: WAITING, reason: "Unschedulable", told: true });
});

test("every blank id is refused, and every other one that names nothing is not found, whatever its form", async () => {
  const { client } = runner();
  const calls = [
    (workloadId: string) => client.inspectWorkload({ workloadId }),
    (workloadId: string) => client.getWorkloadLabels({ workloadId }),
    (workloadId: string) => client.touchWorkload({ workloadId }),
    (workloadId: string) => client.stopWorkload({ workloadId }),
    (workloadId: string) => client.removeWorkload({ workloadId, force: true, removeVolumes: true }),
  ];
  for (const call of calls) {
    for (const blank of ["", " \t\u0085"])
      expect(await refusal(call(blank))).toEqual({ code: "InvalidArgument", message: "workload_id_required" });
    for (const id of [
      "missing-workload",
      freshId(),
      `workload-${freshId()}`,
      "../../secrets/x",
      "a/b?c#d",
      "%2e%2e",
      "ünïcode",
      "x".repeat(300),
    ])
      expect(await refusal(call(id))).toEqual({
        code: "NotFound",
        message: `resource not found: pods "workload-${id}" not found`,
      });
  }
});

test("TouchWorkload writes the time as an annotation and nothing else", async () => {
  const { id } = await runner().run();
  const before = await runner().pod(id);
  await runner().client.touchWorkload({ workloadId: id });
  const after = await runner().pod(id);
  const { "agyn.io/touched-at": touchedAt, ...others } = after.metadata?.annotations ?? {};
  expect(others).toEqual(before.metadata?.annotations ?? {});
  expect(touchedAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/);
  expect(after.spec).toEqual(before.spec);
});

describe("StopWorkload", () => {
  test("lets the workload go within its grace, can be repeated meanwhile, and is NOT_FOUND afterwards", async () => {
    const { client } = runner();
    const { id } = await runner().run({ main: script("trap 'sleep 1; exit 0' TERM; sleep 300 & wait") });
    await client.stopWorkload({ workloadId: id, timeoutSec: 10 });
    await client.stopWorkload({ workloadId: id, timeoutSec: 10 });
    const { deletionTimestamp, deletionGracePeriodSeconds } = (await runner().pod(id)).metadata ?? {};
    expect(deletionTimestamp).toBeDefined();
    expect(deletionGracePeriodSeconds).toBe(10);
    await untilGone(client, id);
    expect((await refusal(client.stopWorkload({ workloadId: id }))).code).toBe("NotFound");
  });

  test("without a time leaves the Pod's own grace", async () => {
    const { id } = await runner().run({ main: script("trap 'exit 0' TERM; sleep 300 & wait") });
    await runner().client.stopWorkload({ workloadId: id });
    await untilGone(runner().client, id);
  });

  test("works on a workload that ended", async () => {
    const { id } = await runner().start({ main: script("true") });
    await untilPhase(runner().client, id, "succeeded");
    await runner().client.stopWorkload({ workloadId: id, timeoutSec: 30 });
    await untilGone(runner().client, id);
  });
});
