import { Code, ConnectError } from "@connectrpc/connect";
import { ContainerRole, ContainerStatus, type InspectWorkloadResponse } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { Backoff } from "../time.ts";
import type { Connection } from "./connection.ts";
import { Failure } from "./failure.ts";
import { tell } from "./output.ts";
import { containerStatus, workloadStatus } from "./state.ts";

/** Kubernetes' reasons that no waiting heals. */
const HOPELESS = ["InvalidImageName", "CreateContainerConfigError"];

/**
 * Waits until the main container runs, or has run to a good end, and tells on standard error what is waited for whenever that
 * changes. Throws Failure when it ended badly or cannot start, and DEADLINE_EXCEEDED.
 */
export async function untilRunning(workloadId: string, connection: Connection): Promise<void> {
  let told = "";
  await poll(async () => {
    const workload = await connection.client.inspectWorkload({ workloadId }, connection.limits());
    if (hasStarted(workload)) return true;
    const line = workloadStatus(workload);
    if (line !== told) tell(`${workloadId}: ${line}`);
    told = line;
    return false;
  });
}

function hasStarted(workload: InspectWorkloadResponse): boolean {
  const { stateStatus, containers } = workload;
  const main = containers.find(({ role }) => role === ContainerRole.MAIN);
  const bad = containers.find(
    ({ exitCode, reason, role }) =>
      (exitCode !== undefined && exitCode !== 0 && role !== ContainerRole.SIDECAR) || HOPELESS.includes(reason ?? ""),
  );
  if (bad !== undefined)
    throw new Failure(`${bad.name} ${containerStatus(bad)}${bad.message ? `: ${bad.message}` : ""}`);
  if (stateStatus === "failed") throw new Failure("the workload has failed, see inspect");
  return main?.status === ContainerStatus.RUNNING || main?.status === ContainerStatus.TERMINATED;
}

/** Waits until the workload does not exist any more. */
export async function untilGone(workloadId: string, connection: Connection): Promise<void> {
  await poll(async () => {
    try {
      await connection.client.inspectWorkload({ workloadId }, connection.limits());
      return false;
    } catch (error) {
      if (ConnectError.from(error).code === Code.NotFound) return true;
      throw error;
    }
  });
}

/** Asks again and again, less often as time goes by; the calls' own deadline ends it. */
async function poll(isSo: () => Promise<boolean>): Promise<void> {
  const backoff = new Backoff({ minMs: 50, maxMs: 1_000 });
  while (!(await isSo())) await backoff.wait();
}
