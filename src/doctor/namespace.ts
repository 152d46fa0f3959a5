import { KubeError } from "../kube/error.ts";
import { attempts, rootOf } from "./admission.ts";
import { type Check, type Finding, fail, ok } from "./check.ts";
import type { Exam } from "./exam.ts";
import { ALL_RIGHTS, deniedRights } from "./rights.ts";

export const namespaceChecks: readonly Check[] = [
  { id: "namespace", needs: ["config", "identity"], run: namespaceIsThere },
];

/**
 * Whether the namespace is there and takes Pods. Few may read namespaces, and a Role dies with its namespace: without any
 * right in it, nobody can tell a namespace that is missing from one that is not the runner's.
 */
async function namespaceIsThere(exam: Exam): Promise<Finding> {
  const { namespace } = exam;
  const phase = await phaseOf(exam);
  const create = `kubectl create namespace ${namespace}`;
  if (phase === "missing") return fail(`${namespace} does not exist`, `${create}, or correct KUBE_NAMESPACE`);
  if (phase === "Terminating") return fail(`${namespace} is being deleted`, `wait until it is gone, then: ${create}`);
  try {
    exam.denied = new Set(await deniedRights(exam));
    exam.reviewed = true;
  } catch (error) {
    if (!(error instanceof KubeError && error.status === 403)) throw error; // what needs a right finds out by itself
  }
  if (exam.denied.size === ALL_RIGHTS.length)
    return fail(
      `${exam.user ?? "the runner"} has no right at all in ${namespace}: ${phase === "unknown" ? "it does not exist, or " : ""}no RoleBinding in it names the runner`,
      `correct KUBE_NAMESPACE (chart: workloadNamespace); ${phase === "unknown" ? `${create}; ` : ""}install the chart with rbac.create=true`,
    );
  exam.admission = await attempts(exam);
  const refusal = Object.values(exam.admission).find(
    (attempt) => attempt.refusal && rootOf(attempt.refusal) === "namespace",
  );
  if (refusal?.refusal !== undefined)
    return fail(
      refusal.refusal.message,
      `${create} (when it is gone, if it is being deleted), or correct KUBE_NAMESPACE`,
    );
  return ok(`${namespace} ${phase === "unknown" ? "takes the runner's objects" : "is there"}`);
}

async function phaseOf({ cluster, namespace, signal }: Exam): Promise<string> {
  try {
    return await cluster.namespacePhase(namespace, signal);
  } catch (error) {
    if (!(error instanceof KubeError) || error.unreachable) throw error;
    return error.notFound ? "missing" : "unknown"; // mostly 403: the runner has no right to read namespaces
  }
}
