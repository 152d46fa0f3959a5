import { VolumeKind } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { KubeError } from "../kube/error.ts";
import type { Claim, Pod } from "../kube/types.ts";
import { blocked, type Check, type Finding, fail, ok, skip, warn } from "./check.ts";
import type { Exam } from "./exam.ts";

/**
 * What the API server would say to objects of the runner's, by a dry run of each: nothing is stored, but every admission
 * controller is asked. In this way the runner's own rights are enough to see what only others may read.
 */
export interface Admission {
  /** A workload without anything special. */
  readonly plain?: Attempt<Pod>;
  /** One with the platform's network sidecar, which asks for NET_ADMIN; when there is a platform. */
  readonly network?: Attempt<Pod>;
  /** One with the docker capability, when that is configured. */
  readonly docker?: Attempt<Pod>;
  readonly claim?: Attempt<Claim>;
  readonly secret?: Attempt<object>;
}

/** The object as it would be stored, or the refusal. */
export type Attempt<T> =
  | { readonly object: T; readonly refusal?: undefined }
  | { readonly object?: undefined; readonly refusal: KubeError };

const WHAT: Readonly<Record<keyof Admission, string>> = {
  plain: "a workload",
  network: "a workload with the platform's network sidecar (NET_ADMIN)",
  docker: "a workload with docker",
  claim: "a volume",
  secret: "a Secret",
};

/** Which check a refusal belongs to, by the API server's words; they are not meant for programs, but have not changed in years. */
const ROOTS: readonly (readonly [check: string, message: RegExp])[] = [
  ["namespace", /^namespaces ".*" not found/],
  ["namespace", /because it is being terminated/],
  ["pod-security", /violates PodSecurity/],
  ["quota", /exceeded quota|failed quota/],
  ["service-account", /service account/],
  ["runtime-class", /RuntimeClass/],
];

export const rootOf = ({ message }: KubeError): string =>
  ROOTS.find(([, words]) => words.test(message))?.[0] ?? "admission";

/** The dry runs that the runner has the right to. Throws KubeError when the API cannot be reached. */
export async function attempts(exam: Exam): Promise<Admission> {
  const { kube, settings, signal, denied } = exam;
  const dryRun = { dryRun: true, signal };
  const main = { image: exam.options.image, cmd: ["sleep", "1"] };
  const ask = async <T>(right: string, work: () => Promise<T>): Promise<Attempt<T> | undefined> => {
    if (denied.has(right)) return undefined;
    try {
      return { object: await work() };
    } catch (error) {
      if (error instanceof KubeError && !error.unreachable) return { refusal: error };
      throw error;
    }
  };
  const pod = (request: Parameters<Exam["planFor"]>[0]) =>
    ask("pods create", () => kube.pods.create(exam.planFor(request).pod, dryRun));
  const volume = { name: "data", kind: VolumeKind.NAMED, persistentName: "k8s-runner-doctor" };
  const [claim] = exam.planFor({ main, volumes: [volume] }).claims;
  const sidecar = { name: "network", image: main.image, requiredCapabilities: ["NET_ADMIN"] };
  const secret = {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "k8s-runner-doctor" },
    stringData: { probe: "" },
  };
  const found = {
    plain: await pod({ main }),
    network: allowsNetwork(exam) ? await pod({ main, sidecars: [sidecar] }) : undefined,
    docker: settings.docker === undefined ? undefined : await pod({ main, capabilities: ["docker"] }),
    claim: claim && (await ask("persistentvolumeclaims create", () => kube.claims.create(claim, dryRun))),
    secret: await ask("secrets create", () => kube.secrets.create(secret, dryRun)),
  };
  return Object.fromEntries(Object.entries(found).filter(([, attempt]) => attempt !== undefined));
}

const allowsNetwork = ({ settings: { platform, allowedLinuxCapabilities } }: Exam): boolean =>
  platform !== undefined && allowedLinuxCapabilities?.includes("NET_ADMIN") !== false;

const asked = ["namespace"];
export const admissionChecks: readonly Check[] = [
  { id: "service-account", needs: asked, rights: ["pods create"], run: serviceAccount },
  { id: "pod-security", needs: asked, rights: ["pods create"], run: podSecurity },
  { id: "runtime-class", needs: asked, rights: ["pods create"], run: runtimeClass },
  { id: "quota", needs: asked, run: quota },
  { id: "admission", needs: asked, run: admission },
];

/** What was refused for the reason that is this check's; or the check that the first refusal belongs to, which hides ours. */
function refused(
  check: string,
  { admission }: Exam,
  kinds: readonly (keyof Admission)[],
): string | Finding | undefined {
  const refusals = kinds.flatMap((kind) => {
    const refusal = admission[kind]?.refusal;
    return refusal === undefined ? [] : [{ kind, refusal, root: rootOf(refusal) }];
  });
  const ours = refusals.filter(({ root }) => root === check);
  const [first] = ours;
  // One text for all: the cause is the same.
  if (first !== undefined)
    return `${ours.map(({ kind }) => WHAT[kind]).join(", ")} would be refused: ${first.refusal.message}`;
  const [other] = refusals;
  return other === undefined ? undefined : blocked(other.root);
}

function serviceAccount(exam: Exam): Finding {
  const { namespace, admission } = exam;
  const found = refused("service-account", exam, ["plain"]);
  if (typeof found === "string")
    return fail(
      found,
      `kubectl --namespace ${namespace} create serviceaccount default (or name one by workloadPodTemplate)`,
    );
  if (found !== undefined) return found;
  const spec = admission.plain?.object?.spec;
  const name = spec?.serviceAccountName ?? "default";
  const pull = (spec?.imagePullSecrets ?? []).map((secret) => secret.name ?? "");
  if (pull.length > 0)
    return warn(
      `ServiceAccount ${name} gives every workload the pull Secrets ${pull.join(", ")}`,
      `kubectl --namespace ${namespace} patch serviceaccount ${name} --type=merge --patch '{"imagePullSecrets":null}'`,
    );
  const token = (spec?.volumes ?? []).some(({ projected }) =>
    projected?.sources?.some(({ serviceAccountToken }) => serviceAccountToken !== undefined),
  );
  return token
    ? warn(
        `workloads get a token of ServiceAccount ${name}, which the runner forbids: an admission webhook adds it`,
        "kubectl get mutatingwebhookconfigurations",
      )
    : ok(`${name} gives workloads neither a token nor pull Secrets`);
}

function podSecurity(exam: Exam): Finding {
  const { namespace, settings } = exam;
  const found = refused("pod-security", exam, ["plain", "network", "docker"]);
  if (typeof found === "string")
    return fail(
      found,
      `kubectl label namespace ${namespace} --overwrite pod-security.kubernetes.io/enforce=${levelFor(exam)} (docs/security.md says what that opens)`,
    );
  if (found !== undefined) return found;
  const admitted = [settings.docker && `docker (${settings.docker})`, allowsNetwork(exam) && "the network sidecar"];
  return ok(
    `the namespace admits workloads${admitted
      .filter(Boolean)
      .map((what) => `, with ${what}`)
      .join("")}`,
  );
}

/** Pod Security has no level between the two (docs/security.md). */
const levelFor = (exam: Exam): string =>
  exam.settings.docker !== undefined || allowsNetwork(exam) ? "privileged" : "baseline";

function runtimeClass(exam: Exam): Finding {
  const found = refused("runtime-class", exam, ["plain", "docker"]);
  if (typeof found === "string")
    return fail(
      found,
      "install the runtime and its RuntimeClass, or name another docker in CAPABILITY_IMPLEMENTATIONS",
    );
  if (found !== undefined) return found;
  const { plain, docker } = exam.admission;
  const names = [plain, docker].flatMap((attempt) => attempt?.object?.spec?.runtimeClassName ?? []);
  return names.length === 0 ? skip("none is asked for") : ok([...new Set(names)].join(", "));
}

function quota(exam: Exam): Finding {
  const found = refused("quota", exam, ["plain", "network", "docker", "claim", "secret"]);
  if (typeof found === "string")
    return fail(
      found,
      `kubectl --namespace ${exam.namespace} describe resourcequota; raise it, or set resources by workloadPodTemplate`,
    );
  return found ?? ok("none stands against one more workload, volume and Secret");
}

function admission(exam: Exam): Finding {
  const found = refused("admission", exam, ["plain", "network", "docker", "claim", "secret"]);
  if (typeof found === "string")
    return fail(
      found,
      `the message names the policy, webhook or LimitRange: change it for namespace ${exam.namespace}, or fit workloads to it by workloadPodTemplate`,
    );
  if (found !== undefined) return found;
  const spec = exam.admission.plain?.object?.spec;
  const more = [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])].map(({ name }) => name);
  const added = more.filter((name) => name !== "main");
  return added.length === 0
    ? ok("workloads are stored as the runner writes them")
    : warn(
        `an admission webhook adds containers to every workload: ${added.join(", ")}`,
        `keep it off namespace ${exam.namespace} unless that is meant: kubectl get mutatingwebhookconfigurations`,
      );
}
