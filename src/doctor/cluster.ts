import type { NetworkPolicy } from "../kube/cluster.ts";
import { KubeError } from "../kube/error.ts";
import { MANAGED_BY_LABEL, MANAGER, PLATFORM_LABEL, PLATFORM_MANAGER, WORKLOAD_ID_LABEL } from "../pod/names.ts";
import { rootOf } from "./admission.ts";
import { blocked, type Check, type Finding, fail, ok, skip, warn } from "./check.ts";
import type { Exam } from "./exam.ts";

export const clusterChecks: readonly Check[] = [
  { id: "storage-class", needs: ["namespace"], run: storageClass },
  { id: "network-policies", needs: ["namespace"], run: networkPolicies },
];

/** The list, or undefined when we may not read it: the runner's Role gives no right outside of its namespace. */
async function ifAllowed<T>(list: Promise<T[]>): Promise<T[] | undefined> {
  try {
    return await list;
  } catch (error) {
    if (error instanceof KubeError && error.status === 403) return undefined;
    throw error;
  }
}

const DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class";

async function storageClass({ cluster, settings, admission: { claim }, signal }: Exam): Promise<Finding> {
  const wanted = settings.storageClass;
  const classes = await ifAllowed(cluster.storageClasses(signal));
  if (classes !== undefined) {
    const found = classes.find(({ metadata }) =>
      wanted === undefined ? metadata?.annotations?.[DEFAULT_CLASS] === "true" : metadata?.name === wanted,
    );
    if (found !== undefined) {
      const name = found.metadata?.name ?? "";
      return ok(`${name}${wanted === undefined ? ", the default," : ""} by ${found.provisioner}`);
    }
    const names = classes.map(({ metadata }) => metadata?.name).join(", ") || "none";
    return wanted === undefined
      ? fail(`the cluster has no default StorageClass (it has: ${names})`, NO_DEFAULT)
      : fail(
          `PVC_STORAGE_CLASS ${wanted} does not exist (there are: ${names})`,
          "name one that exists in PVC_STORAGE_CLASS",
        );
  }
  // Admission fills in the default: that shows without the right to read StorageClasses.
  if (claim === undefined) return blocked("rbac.persistentvolumeclaims");
  if (claim.refusal !== undefined) return blocked(rootOf(claim.refusal));
  const given = claim.object.spec?.storageClassName;
  if (given === undefined) return fail("the cluster has no default StorageClass", NO_DEFAULT);
  if (wanted === undefined)
    return ok(`${given}, the default; its provisioner is not to be seen with the runner's rights`);
  return skip(
    `the runner may not read StorageClasses, so whether ${wanted} exists is not known`,
    `kubectl get storageclass ${wanted}; or k8s-runner doctor --volumes, which makes a volume of it`,
  );
}

const NO_DEFAULT = `name one in PVC_STORAGE_CLASS, or make one the default: kubectl annotate storageclass <name> ${DEFAULT_CLASS}=true`;

/** The labels that the runner writes on every workload Pod, by which policies hold it. */
const WORKLOAD_LABELS: Readonly<Record<string, string>> = {
  [MANAGED_BY_LABEL]: MANAGER,
  [PLATFORM_LABEL]: PLATFORM_MANAGER,
  [WORKLOAD_ID_LABEL]: "",
};

async function networkPolicies({ cluster, namespace, signal }: Exam): Promise<Finding> {
  const look = `kubectl --namespace ${namespace} get networkpolicies`;
  const policies = await ifAllowed(cluster.networkPolicies(namespace, signal));
  if (policies === undefined)
    return skip("the runner may not read NetworkPolicies, and needs no right to", `look yourself: ${look}`);
  const holding = policies.filter(selectsWorkloads);
  const named = (direction: string) =>
    holding.filter(({ spec }) => spec?.policyTypes?.includes(direction)).map(({ metadata }) => metadata?.name ?? "");
  const [egress, ingress] = [named("Egress"), named("Ingress")];
  const missing = [
    ...(egress.length === 0 ? ["where workloads may connect (workloadEgressNetworkPolicy.enabled=true)"] : []),
    ...(ingress.length === 0 ? ["what may connect to workloads (workloadIngressNetworkPolicy.enabled=true)"] : []),
  ];
  if (missing.length > 0)
    return warn(`no NetworkPolicy says ${missing.join(", nor ")}`, `set these values of the chart, then: ${look}`);
  return ok(
    `${[...new Set([...egress, ...ingress])].join(", ")}; whether the network plugin enforces them is not seen here`,
  );
}

/** Whether the policy's selector takes every workload: one that asks for more may take only some. */
export function selectsWorkloads({ spec }: NetworkPolicy): boolean {
  const { matchLabels = {}, matchExpressions = [] } = spec?.podSelector ?? {};
  const values = Object.entries(matchLabels).every(([key, value]) => WORKLOAD_LABELS[key] === value);
  return (
    values &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = WORKLOAD_LABELS[key];
      if (operator === "Exists") return value !== undefined;
      return operator === "In" && value !== undefined && values.includes(value);
    })
  );
}
