import { describe, expect, test } from "bun:test";
import { create, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { InspectWorkloadResponseSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { ContainerStatus, Pod } from "../../src/kube/types.ts";
import {
  claimsOf,
  containersOf,
  hasContainer,
  inspectionOf,
  mainContainerName,
  timestampOf,
} from "../../src/pod/status.ts";

type State = ContainerStatus["state"];
type Status = NonNullable<Pod["status"]>;

const inspected = (pod: Pod) =>
  toJson(InspectWorkloadResponseSchema, create(InspectWorkloadResponseSchema, inspectionOf(pod, "w")));

const entry = (name: string, state: State, rest: Partial<ContainerStatus> = {}): ContainerStatus => ({
  name,
  image: `docker.io/library/${name}:1`,
  imageID: "",
  ready: false,
  restartCount: 0,
  ...(state === undefined ? {} : { state }),
  ...rest,
});

const alone = (status: Status): Pod => ({ spec: { containers: [{ name: "main", image: "app:1" }] }, status });
const mainAs = (state: State) => containersOf(alone({ containerStatuses: [entry("main", state)] }))[0];

test("a whole Pod, as InspectWorkload answers it", () => {
  const pod: Pod = {
    metadata: { name: "workload-w", labels: { a: "b", "agyn.io/workload-id": "w" } },
    spec: {
      initContainers: [
        { name: "docker-subid-init", image: "dind:1" },
        { name: "net", image: "net:1", restartPolicy: "Always" },
      ],
      containers: [
        {
          name: "app",
          image: "app:1",
          volumeMounts: [
            { name: "data", mountPath: "/data", readOnly: true },
            { name: "files", mountPath: "/etc/x", subPath: "x" },
            { name: "scratch", mountPath: "/scratch" },
            { name: "gone", mountPath: "/gone" },
            { name: "data", mountPath: "/again", readOnly: false },
          ],
        },
        { name: "tool", image: "tool:1", volumeMounts: [{ name: "scratch", mountPath: "/tool" }] },
      ],
      volumes: [
        { name: "data", persistentVolumeClaim: { claimName: "pv-1" } },
        { name: "scratch", emptyDir: {} },
        { name: "files", secret: { secretName: "s" } },
      ],
    },
    status: {
      phase: "Running",
      initContainerStatuses: [
        entry("net", { running: { startedAt: "2026-01-02T03:04:06Z" } }, { containerID: "containerd://2" }),
        entry("docker-subid-init", {
          terminated: {
            exitCode: 0,
            reason: "Completed",
            startedAt: "2026-01-02T03:04:05Z",
            finishedAt: "2026-01-02T03:04:06Z",
          },
        }),
      ],
      containerStatuses: [
        entry(
          "tool",
          { waiting: { reason: "ImagePullBackOff", message: " Back-off pulling image \n" } },
          { image: "" },
        ),
        entry(
          "app",
          { running: { startedAt: "2026-01-02T03:04:07Z" } },
          { containerID: "containerd://3", restartCount: 2 },
        ),
      ],
    },
  };
  expect(inspected(pod)).toEqual({
    id: "w",
    name: "w",
    image: "docker.io/library/app:1",
    configImage: "app:1",
    configLabels: { a: "b", "agyn.io/workload-id": "w" },
    mounts: [
      { type: "pvc", source: "pv-1", destination: "/data", readOnly: true },
      { type: "emptydir", source: "scratch", destination: "/scratch" },
      { type: "pvc", source: "pv-1", destination: "/again" },
    ],
    stateStatus: "running",
    stateRunning: true,
    containers: [
      {
        name: "docker-subid-init",
        role: "CONTAINER_ROLE_INIT",
        image: "docker.io/library/docker-subid-init:1",
        status: "CONTAINER_STATUS_TERMINATED",
        reason: "Completed",
        exitCode: 0,
        startedAt: "2026-01-02T03:04:05Z",
        finishedAt: "2026-01-02T03:04:06Z",
      },
      {
        name: "net",
        role: "CONTAINER_ROLE_INIT",
        image: "docker.io/library/net:1",
        status: "CONTAINER_STATUS_RUNNING",
        containerId: "containerd://2",
        startedAt: "2026-01-02T03:04:06Z",
      },
      {
        name: "app",
        role: "CONTAINER_ROLE_MAIN",
        image: "docker.io/library/app:1",
        status: "CONTAINER_STATUS_RUNNING",
        containerId: "containerd://3",
        restartCount: 2,
        startedAt: "2026-01-02T03:04:07Z",
      },
      {
        name: "tool",
        role: "CONTAINER_ROLE_SIDECAR",
        image: "tool:1",
        status: "CONTAINER_STATUS_WAITING",
        reason: "ImagePullBackOff",
        message: "Back-off pulling image",
      },
    ],
  });
});

test("a Pod that was just made has no phase, no ids and unspecified containers", () => {
  expect(inspected({ spec: { containers: [{ name: "main", image: "app:1" }] } })).toEqual({
    id: "w",
    name: "w",
    image: "app:1",
    configImage: "app:1",
    containers: [{ name: "main", role: "CONTAINER_ROLE_MAIN", image: "app:1" }],
  });
});

test.each(["Pending", "Running", "Succeeded", "Failed", "Unknown"])("phase %s is told in lower case", (phase) => {
  const answer = inspectionOf(alone({ phase }), "w");
  expect(answer.stateStatus).toBe(phase.toLowerCase());
  expect(answer.stateRunning).toBe(phase === "Running");
});

test("the image that the main container's status reports is told even when it is empty, others fall back to the spec", () => {
  const answer = inspectionOf(alone({ containerStatuses: [entry("main", {}, { image: "" })] }), "w");
  expect(answer.image).toBe("");
  expect(answer.containers?.[0]?.image).toBe("app:1");
});

test("a Pod without containers is an internal error", () => {
  for (const pod of [{}, { spec: { containers: [] } }]) {
    for (const read of [() => inspectionOf(pod, "w"), () => mainContainerName(pod)]) {
      expect(read).toThrow(new ConnectError("pod_missing_containers", Code.Internal));
    }
  }
});

describe("the state of a container", () => {
  test("waiting gives reason and message, trimmed, and unset when blank", () => {
    expect(mainAs({ waiting: { reason: " CrashLoopBackOff ", message: "\n " } })).toMatchObject({
      status: 3,
      reason: "CrashLoopBackOff",
    });
    expect(mainAs({ waiting: { reason: "x", message: " " } })).not.toHaveProperty("message");
    expect(mainAs({ waiting: {} })).not.toHaveProperty("reason");
  });
  test("running gives neither reason nor exit code, and a start when it is known", () => {
    expect(mainAs({ running: { startedAt: "2026-01-02T03:04:05Z" } })).toEqual({
      name: "main",
      role: 1,
      containerId: "",
      image: "docker.io/library/main:1",
      restartCount: 0,
      status: 1,
      startedAt: { seconds: 1767323045n, nanos: 0 },
    });
    expect(mainAs({ running: {} })).not.toHaveProperty("startedAt");
  });
  test("terminated gives an exit code, 0 as well, and the times that are known", () => {
    expect(mainAs({ terminated: { exitCode: 0 } })).toMatchObject({ status: 2, exitCode: 0 });
    const killed = mainAs({ terminated: { exitCode: 137, reason: "OOMKilled", finishedAt: "2026-01-02T03:04:05Z" } });
    expect(killed).toMatchObject({
      exitCode: 137,
      reason: "OOMKilled",
      finishedAt: { seconds: 1767323045n, nanos: 0 },
    });
    expect(killed).not.toHaveProperty("startedAt");
  });
  test("is unspecified when the entry has none, whatever the scheduler says, and the last state does not count", () => {
    const conditions = [{ type: "PodScheduled", status: "False", reason: "Unschedulable" }];
    const containerStatuses = [entry("main", {}, { restartCount: 4, lastState: { terminated: { exitCode: 3 } } })];
    expect(containersOf(alone({ conditions, containerStatuses }))[0]).toMatchObject({ status: 0, restartCount: 4 });
    expect(containersOf(alone({ conditions, containerStatuses }))[0]).not.toHaveProperty("reason");
    expect(
      containersOf(
        alone({ containerStatuses: [entry("main", {}, { lastState: { terminated: { exitCode: 3 } } })] }),
      )[0],
    ).not.toHaveProperty("exitCode");
  });
  test("is looked for in the list of its kind alone", () => {
    const pod: Pod = {
      spec: { initContainers: [{ name: "a" }], containers: [{ name: "b" }] },
      status: {
        initContainerStatuses: [entry("b", { running: {} })],
        containerStatuses: [entry("a", { running: {} })],
      },
    };
    expect(containersOf(pod).map(({ status }) => status)).toEqual([0, 0]);
  });
});

describe("containers of a Pod that cannot be scheduled", () => {
  const scheduled = (status: string, rest: { reason?: string; message?: string } = {}) => ({
    spec: { initContainers: [{ name: "i" }], containers: [{ name: "m" }, { name: "s" }] },
    status: {
      conditions: [
        { type: "Ready", status: "False", reason: "no" },
        { type: "PodScheduled", status, ...rest },
      ],
    },
  });
  test.each(["Unschedulable", "SchedulingGated"])("wait, and say %s", (reason) => {
    const containers = containersOf(
      scheduled("False", { reason: ` ${reason}`, message: " 0/3 nodes are available \n" }),
    );
    expect(containers.map(({ status, reason, message }) => ({ status, reason, message }))).toEqual(
      Array(3).fill({ status: 3, reason, message: "0/3 nodes are available" }),
    );
  });
  test("have no reason or message when the condition has blank ones", () => {
    for (const container of containersOf(scheduled("False", { reason: " ", message: "\t" }))) {
      expect(container).toMatchObject({ status: 3 });
      expect(container).not.toHaveProperty("reason");
      expect(container).not.toHaveProperty("message");
    }
  });
  test.each(["True", "Unknown"])("are unspecified when the condition is %s", (status) => {
    expect(containersOf(scheduled(status, { reason: "x" })).map((container) => container.status)).toEqual([0, 0, 0]);
  });
});

describe("a time", () => {
  const rows: [string, { seconds: bigint; nanos: number }][] = [
    ["2026-01-02T03:04:05Z", { seconds: 1767323045n, nanos: 0 }],
    ["2026-01-02T03:04:05.123456789Z", { seconds: 1767323045n, nanos: 123456789 }],
    ["2026-01-02T03:04:05.5Z", { seconds: 1767323045n, nanos: 500000000 }],
    ["2026-01-02T05:04:05+02:00", { seconds: 1767323045n, nanos: 0 }],
    ["1969-12-31T23:59:59.25Z", { seconds: -1n, nanos: 250000000 }],
    ["0001-01-01T00:00:00Z", { seconds: -62135596800n, nanos: 0 }],
  ];
  test.each(rows)("%s is read exactly", (text, time) => expect(timestampOf(text)).toEqual(time));
  test.each([
    "",
    "yesterday",
    "2026-01-02",
    "2026-13-02T03:04:05Z",
    "2026-01-02T03:04:05",
    "2026-01-02T03:04:05.1234567890Z",
    null,
    undefined,
  ])("%s is none", (text) => expect(timestampOf(text)).toBeUndefined());
});

test("names in a Pod: claims once each, containers of both kinds, main", () => {
  const pod: Pod = {
    spec: {
      initContainers: [{ name: "i" }],
      containers: [{ name: "m" }, { name: "s" }],
      volumes: [
        { name: "a", persistentVolumeClaim: { claimName: "c-2" } },
        { name: "b", emptyDir: {} },
        { name: "c", persistentVolumeClaim: { claimName: "c-1" } },
        { name: "d", persistentVolumeClaim: { claimName: "c-2" } },
      ],
    },
  };
  expect(claimsOf(pod)).toEqual(["c-2", "c-1"]);
  expect(["i", "m", "s", "x", ""].map((name) => hasContainer(pod, name))).toEqual([true, true, true, false, false]);
  expect(mainContainerName(pod)).toBe("m");
  expect(claimsOf({})).toEqual([]);
});
