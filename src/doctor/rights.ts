import { type Check, type Finding, fail, ok, type Right, skip, warn } from "./check.ts";
import type { Exam } from "./exam.ts";

/** Every right of the runner (ruling 23), and what fails without it. */
export const RIGHTS = {
  pods: {
    get: "StopWorkload, and reads that the cache cannot answer alone",
    list: "every read: the runner never learns which workloads there are",
    watch: "every read, some 45 s after each list: the runner does not hear of changes",
    create: "StartWorkload",
    delete: "StopWorkload and RemoveWorkload; starts that failed stay behind",
    patch: "TouchWorkload, and StartWorkload with new volumes, pull credentials or inline files",
  },
  "pods/exec": { get: "Exec, CancelExecution and PutArchive", create: "the same on Kubernetes from 1.35 on" },
  "pods/log": { get: "StreamWorkloadLogs" },
  persistentvolumeclaims: {
    get: "StartWorkload with volumes, and RemoveVolume",
    list: "ListVolumes, and the removal of starts that died",
    watch: "nothing in this version",
    create: "StartWorkload with a new volume",
    delete: "RemoveVolume, and RemoveWorkload with its volumes",
  },
  secrets: {
    create: "StartWorkload with pull credentials or inline files",
    delete: "their removal with workloads of older runners",
  },
  events: { list: "StreamEvents", watch: "StreamEvents" },
} as const satisfies Readonly<Record<string, Readonly<Record<string, string>>>>;

type Resource = keyof typeof RIGHTS;

export const ALL_RIGHTS: readonly Right[] = Object.entries(RIGHTS).flatMap(([resource, verbs]) =>
  Object.keys(verbs).map((verb) => `${resource} ${verb}`),
);

/** Rights without which everything that this version does works on this cluster. */
const spare = (right: Right, minor: number | undefined): boolean =>
  right === "persistentvolumeclaims watch" || (right === "pods/exec create" && minor !== undefined && minor < 35);

/** Rights that nobody should give the runner: what they would open, and where (undefined: in every namespace). */
const EXCESS = [
  { text: "read Secrets", verb: "get", resource: "secrets", own: true },
  { text: "list Secrets", verb: "list", resource: "secrets", own: true },
  { text: "run Pods in every namespace", verb: "create", resource: "pods", own: false },
  {
    text: "run commands in the Pods of every namespace",
    verb: "get",
    resource: "pods",
    subresource: "exec",
    own: false,
  },
  { text: "read Secrets of every namespace", verb: "get", resource: "secrets", own: false },
  { text: "delete Secrets of every namespace", verb: "delete", resource: "secrets", own: false },
  { text: "do anything", verb: "*", resource: "*", group: "*", own: false },
] as const;

/** The rights that the API server denies us in the workload namespace. Throws KubeError when it does not say. */
export async function deniedRights({ cluster, namespace, signal }: Exam): Promise<Right[]> {
  const answers = await Promise.all(
    ALL_RIGHTS.map(async (right) => {
      const [path = "", verb = ""] = right.split(" ");
      const [resource = "", subresource] = path.split("/");
      const allowed = await cluster.may(
        { verb, resource, namespace, ...(subresource === undefined ? {} : { subresource }) },
        signal,
      );
      return allowed ? [] : [right];
    }),
  );
  return answers.flat();
}

/** One check for each resource, which tells of all its verbs. */
export const rightsChecks: readonly Check[] = [
  ...(Object.keys(RIGHTS) as Resource[]).map((resource) => ({
    id: `rbac.${resource}`,
    needs: ["namespace"],
    run: (exam: Exam) => rightsOf(resource, exam),
  })),
  { id: "rbac.excess", needs: ["namespace"], run: excess },
];

function rightsOf(resource: Resource, { reviewed, denied, minor, user, namespace }: Exam): Finding {
  if (!reviewed) return unreviewed();
  const verbs: Readonly<Record<string, string>> = RIGHTS[resource];
  const missing = Object.keys(verbs).filter((verb) => denied.has(`${resource} ${verb}`));
  if (missing.length === 0) return ok(`may ${Object.keys(verbs).join(", ")}`);
  const broken = missing.map((verb) => `${verb} (breaks ${verbs[verb]})`).join(", ");
  const advice = `install the chart's Role (rbac.create=true, rbac.rules as the chart has them), or: ${granting(resource, missing, { user, namespace })}`;
  const needless = missing.every((verb) => spare(`${resource} ${verb}`, minor));
  return needless ? warn(`may not ${broken}`, advice) : fail(`may not ${broken}`, advice);
}

/** The command that gives these rights: a Role of its own, so that no other has to be known. */
function granting(
  resource: string,
  verbs: readonly string[],
  { user, namespace }: { user: string | undefined; namespace: string },
): string {
  const [, accountNamespace, account] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(user ?? "") ?? [];
  const subject = account === undefined ? `--user=${user}` : `--serviceaccount=${accountNamespace}:${account}`;
  const name = `k8s-runner-${resource.replace("/", "-")}`;
  const kubectl = `kubectl --namespace ${namespace}`;
  return `${kubectl} create role ${name} --verb=${verbs.join(",")} --resource=${resource} && ${kubectl} create rolebinding ${name} --role=${name} ${subject}`;
}

async function excess({ reviewed, cluster, namespace, user, signal }: Exam): Promise<Finding> {
  if (!reviewed) return unreviewed();
  const found = await Promise.all(
    EXCESS.map(async ({ text, own, ...action }) =>
      (await cluster.may({ ...action, ...(own ? { namespace } : {}) }, signal)) ? [text] : [],
    ),
  );
  const texts = found.flat();
  if (texts.length === 0) return ok("nothing beyond its namespace, and no Secret can be read");
  return warn(
    `${user ?? "the runner"} may also ${texts.join(", ")}`,
    "leave rbac.clusterWide=false and bind the ServiceAccount to the chart's Role alone; a kubeconfig of an administrator is expected to show this",
  );
}

/** Reviews are open to everybody who is authenticated, unless an operator took them away. */
const unreviewed = (): Finding =>
  skip("the API server does not let this user ask what it may do", "bind the ClusterRole system:basic-user to it");
