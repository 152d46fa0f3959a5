import { ConnectError } from "@connectrpc/connect";
import { KubeError } from "../kube/error.ts";
import type { Pod } from "../kube/types.ts";
import { podName } from "../pod/names.ts";
import type { Target } from "./beside.ts";
import { findPod, nameOf, uidOf } from "./find.ts";
import type { ExecEvent } from "./output.ts";
import type { Parts } from "./parts.ts";

/** A failure that the contract wants told in the stream, on an OK status (6.16.1). */
export class Refusal extends Error {
  readonly code: string;
  readonly retryable: boolean;

  constructor(code: string, message: string, retryable = false) {
    super(message);
    this.code = code;
    this.retryable = retryable;
  }

  get event(): ExecEvent {
    return { case: "error", value: { code: this.code, message: this.message, retryable: this.retryable } };
  }
}

/** The Pod and container of `workload-<id>` or `<id>`, each also with `:<container>` (ruling 2). */
export async function findTarget(
  targetId: string,
  parts: Parts,
  signal: AbortSignal,
): Promise<{ pod: Pod; target: Target }> {
  const [name = "", container, ...rest] = targetId.split(":");
  const prefix = podName("");
  const workloadId = name.startsWith(prefix) ? name.slice(prefix.length) : name;
  let pod: Pod;
  try {
    pod = await findPod(parts, workloadId, { signal });
  } catch (error) {
    throw startFailed(error, name);
  }
  const [main] = pod.spec?.containers ?? [];
  // The reference lets its gRPC error show here as text; clients may match on it (6.16.1).
  if (main === undefined)
    throw new Refusal("exec_start_failed", "rpc error: code = Internal desc = pod_missing_containers");
  if (container === undefined) return { pod, target: targetIn(pod, main.name) };
  const known = [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])].some(
    ({ name }) => name === container,
  );
  if (!known || rest.length > 0)
    throw new Refusal("exec_start_failed", `container not found: ${[container, ...rest].join(":")}`);
  return { pod, target: targetIn(pod, container) };
}

/** The failed look-up in the plain words of Kubernetes, as clients of this event know them. */
function startFailed(error: unknown, name: string): unknown {
  if (error instanceof KubeError)
    return new Refusal("exec_start_failed", error.unreachable ? "cluster_unreachable" : error.message, error.retryable);
  if (!(error instanceof ConnectError)) return error;
  const absent = error.rawMessage.startsWith("resource not found: ");
  return absent
    ? new Refusal("exec_start_failed", `pods "${name}" not found`)
    : new Refusal("exec_start_failed", error.rawMessage, error.rawMessage === "cluster_unreachable");
}

const targetIn = (pod: Pod, container: string): Target => ({
  pod: nameOf(pod),
  container,
  place: `${uidOf(pod)}/${container}`,
});

/** Whether the container may still run: the same Pod is there, and no status says that the container has ended. */
export function isRunning(pod: Pod | undefined, as: Pod, container: string): boolean {
  if (pod === undefined || pod.metadata?.uid !== as.metadata?.uid) return false;
  const statuses = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])];
  return statuses.find(({ name }) => name === container)?.state?.terminated === undefined;
}
