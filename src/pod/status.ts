import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  ContainerRole,
  type InspectWorkloadResponseSchema,
  ContainerStatus as Status,
  type TargetMountSchema,
  type WorkloadContainerSchema,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Container, ContainerStatus, Pod, Volume } from "../kube/types.ts";
import { trim } from "./validate.ts";

/** What a Pod's spec and status say, in the words of InspectWorkload (runner-api.md 6.5). Works on a cache's lean Pods as well. */

type Inspection = Exclude<MessageInitShape<typeof InspectWorkloadResponseSchema>, { $typeName: string }>;
type WorkloadContainer = Exclude<MessageInitShape<typeof WorkloadContainerSchema>, { $typeName: string }>;
type TargetMount = Exclude<MessageInitShape<typeof TargetMountSchema>, { $typeName: string }>;
type Timestamp = { seconds: bigint; nanos: number };

/** The main container: always the first of the Pod. Throws INTERNAL `pod_missing_containers` when there is none. */
function requireMainContainer(pod: Pod): Container {
  const main = pod.spec?.containers[0];
  if (main === undefined) throw new ConnectError("pod_missing_containers", Code.Internal);
  return main;
}

/** The name of the main container, which logs and execs go to when none is named. Throws as `inspectionOf` does. */
export const mainContainerName = (pod: Pod): string => requireMainContainer(pod).name;

/** Whether the Pod's spec has an init container or container of this name. */
export const hasContainer = (pod: Pod, name: string): boolean =>
  [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])].some((container) => container.name === name);

/** InspectWorkload's answer for this Pod; `id` is the one asked for, trimmed. */
export function inspectionOf(pod: Pod, id: string): Inspection {
  const main = requireMainContainer(pod);
  const status = pod.status?.containerStatuses?.find(({ name }) => name === main.name);
  const phase = pod.status?.phase ?? "";
  return {
    id,
    name: id,
    image: status === undefined ? (main.image ?? "") : status.image,
    configImage: main.image ?? "",
    configLabels: pod.metadata?.labels ?? {},
    mounts: mountsOf(pod, main),
    stateStatus: phase.toLowerCase(),
    stateRunning: phase === "Running",
    containers: containersOf(pod),
  };
}

/** The mounts of a container that are backed by a claim or an emptyDir, in order; others are not told. */
function mountsOf(pod: Pod, container: Container): TargetMount[] {
  return (container.volumeMounts ?? []).flatMap(({ name, mountPath, readOnly }) => {
    const volume = pod.spec?.volumes?.find((candidate) => candidate.name === name);
    const mount = { destination: mountPath, readOnly: readOnly ?? false };
    if (volume?.persistentVolumeClaim)
      return [{ type: "pvc", source: volume.persistentVolumeClaim.claimName, ...mount }];
    return volume?.emptyDir ? [{ type: "emptydir", source: name, ...mount }] : [];
  });
}

/** Every container: init containers (native sidecars among them), main, then the other ones, each in spec order. */
export function containersOf(pod: Pod): WorkloadContainer[] {
  const waiting = unschedulableOf(pod);
  const inits = byName(pod.status?.initContainerStatuses);
  const others = byName(pod.status?.containerStatuses);
  return [
    ...(pod.spec?.initContainers ?? []).map((spec) => containerOf(spec, ContainerRole.INIT, inits, waiting)),
    ...(pod.spec?.containers ?? []).map((spec, index) =>
      containerOf(spec, index === 0 ? ContainerRole.MAIN : ContainerRole.SIDECAR, others, waiting),
    ),
  ];
}

const byName = (statuses: readonly ContainerStatus[] | undefined): ReadonlyMap<string, ContainerStatus> =>
  new Map((statuses ?? []).map((status) => [status.name, status]));

function containerOf(
  spec: Container,
  role: ContainerRole,
  statuses: ReadonlyMap<string, ContainerStatus>,
  unschedulable: WorkloadContainer,
): WorkloadContainer {
  const status = statuses.get(spec.name);
  return {
    name: spec.name,
    role,
    containerId: status?.containerID ?? "",
    image: status?.image || spec.image || "",
    restartCount: status?.restartCount ?? 0,
    ...(status === undefined ? unschedulable : stateOf(status)),
  };
}

/** The current state, never the last one. */
function stateOf({ state }: ContainerStatus): WorkloadContainer {
  if (state?.running) return { status: Status.RUNNING, ...timesOf(state.running) };
  if (state?.waiting) return { status: Status.WAITING, ...wordsOf(state.waiting) };
  if (!state?.terminated) return { status: Status.UNSPECIFIED };
  const { terminated } = state;
  return {
    status: Status.TERMINATED,
    ...wordsOf(terminated),
    exitCode: terminated.exitCode,
    ...timesOf(terminated),
  };
}

/** What containers without a status entry of their own are: waiting for the scheduler when it has said why (ruling 21). */
function unschedulableOf(pod: Pod): WorkloadContainer {
  const scheduled = pod.status?.conditions?.find(({ type }) => type === "PodScheduled");
  return scheduled?.status === "False"
    ? { status: Status.WAITING, ...wordsOf(scheduled) }
    : { status: Status.UNSPECIFIED };
}

/** Kubernetes' own words, trimmed; left out when blank. */
function wordsOf({ reason, message }: { reason?: string; message?: string }): { reason?: string; message?: string } {
  const [why, what] = [trim(reason ?? ""), trim(message ?? "")];
  return { ...(why === "" ? {} : { reason: why }), ...(what === "" ? {} : { message: what }) };
}

function timesOf(state: { startedAt?: string | null; finishedAt?: string | null }): {
  startedAt?: Timestamp;
  finishedAt?: Timestamp;
} {
  const [startedAt, finishedAt] = [timestampOf(state.startedAt), timestampOf(state.finishedAt)];
  return { ...(startedAt === undefined ? {} : { startedAt }), ...(finishedAt === undefined ? {} : { finishedAt }) };
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d{1,9}))?(?:Z|[+-]\d\d:\d\d)$/;

/** An RFC 3339 time as google.protobuf.Timestamp, to the nanosecond; undefined when Kubernetes tells none (null). */
export function timestampOf(text: string | null | undefined): Timestamp | undefined {
  const match = TIME.exec(text ?? "");
  const ms = match === null ? Number.NaN : Date.parse(match[0]);
  if (match === null || Number.isNaN(ms)) return undefined;
  return { seconds: BigInt(Math.floor(ms / 1000)), nanos: Number((match[1] ?? "").padEnd(9, "0")) };
}

const claimOf = (volume: Volume): string[] =>
  volume.persistentVolumeClaim ? [volume.persistentVolumeClaim.claimName] : [];

/** The claims that the Pod's volumes name, each once, in order (runner-api.md 6.9: any phase, the claim's name). */
export const claimsOf = (pod: Pod): string[] => [...new Set((pod.spec?.volumes ?? []).flatMap(claimOf))];
