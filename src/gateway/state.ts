import type { MessageInitShape } from "@bufbuild/protobuf";
import { ContainerStatus as Seen } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { type ContainerSchema, ContainerStatus, WorkloadStatus } from "../gen/agynio/api/runners/v1/runners_pb.ts";
import type { Pod } from "../kube/types.ts";
import { containersOf } from "../pod/status.ts";

type Container = Exclude<MessageInitShape<typeof ContainerSchema>, { $typeName: string }>;

/** The states that the platform takes from a runner. */
export type ReportedStatus = typeof WorkloadStatus.RUNNING | typeof WorkloadStatus.FAILED;

/**
 * What the platform is told of this Pod; undefined: nothing (process.md 5.2). A Pod that is being deleted is on its way out
 * by somebody's wish, and what its containers do until then says nothing about the workload: unless Kubernetes itself took
 * it away (an eviction, a preemption, a lost node), which fails it.
 */
export function statusOf({ metadata, status }: Pod): ReportedStatus | undefined {
  const holds = (type: string) => status?.conditions?.some((each) => each.type === type && each.status === "True");
  const leaving = metadata?.deletionTimestamp !== undefined && !holds("DisruptionTarget");
  if (leaving) return undefined;
  if (status?.phase === "Failed") return WorkloadStatus.FAILED;
  return status?.phase === "Running" && metadata?.deletionTimestamp === undefined && holds("Ready")
    ? WorkloadStatus.RUNNING
    : undefined;
}

/** The containers as InspectWorkload has them, in the platform's words; one without a status yet is waiting (5.1). */
export const reportedContainersOf = (pod: Pod): Container[] =>
  containersOf(pod).map(({ status, ...container }) => ({ ...container, status: reported(status) }));

function reported(status: Seen | undefined): ContainerStatus {
  if (status === Seen.RUNNING) return ContainerStatus.RUNNING;
  return status === Seen.TERMINATED ? ContainerStatus.TERMINATED : ContainerStatus.WAITING;
}

/** When the Pod last changed by its own account, in Unix ms; 0 when it tells of no change. By the cluster's clocks. */
export function changedAtMs({ status }: Pod): number {
  const containers = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  const times = [
    ...(status?.conditions ?? []).map(({ lastTransitionTime }) => lastTransitionTime),
    ...containers.flatMap(({ state }) => [
      state?.running?.startedAt,
      state?.terminated?.startedAt,
      state?.terminated?.finishedAt,
    ]),
  ];
  return Math.max(0, ...times.map((text) => Date.parse(text ?? "") || 0));
}
