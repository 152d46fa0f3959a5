import type { Pod } from "../kube/types.ts";

/**
 * What we write on objects and how we read it back (runner-api.md section 2, rulings 2, 3, 6 and 8).
 * Pods, claims and Secrets of ours carry the manager label; Pods and Secrets carry the workload id too, claims never.
 */

export const MANAGED_BY_LABEL = "app.kubernetes.io/managed-by";
export const MANAGER = "k8s-runner";
export const WORKLOAD_ID_LABEL = "agyn.io/workload-id";
/** Selects everything of ours; a Pod or Secret among it is managed when its workload id is not empty (`isManaged`). */
export const MANAGED_SELECTOR = `${MANAGED_BY_LABEL}=${MANAGER}`;

/** On every workload Pod: the platform's egress NetworkPolicy selects on it (runner-api.md 6.2.2). */
export const PLATFORM_LABEL = "agyn.dev/managed-by";
export const PLATFORM_MANAGER = "agents-orchestrator";

/** Set by callers, read by ListWorkloads and ListVolumes. */
export const WORKLOAD_KEY_LABEL = "workload_key";
export const VOLUME_KEY_LABEL = "volume_key";

export const PVC_NAMES_ANNOTATION = "agyn.io/pvc-names";
/** Pull Secrets, and the Secret of the inline files. */
export const SECRET_NAMES_ANNOTATION = "agyn.io/pull-secret-names";
export const TOUCHED_AT_ANNOTATION = "agyn.io/touched-at";
/** On claims: the uid of the gated Pod whose start created them (ruling 6). */
export const CREATED_FOR_ANNOTATION = "agyn.io/created-for";
/** On Pods: a random text that tells whether a Pod is that of a POST whose answer was lost (part of ruling 6). */
export const START_NONCE_ANNOTATION = "agyn.io/start-nonce";
/** The scheduling gate of a start that must create Secrets or claims (ruling 6). */
export const SETUP_GATE = "agyn.io/setup";

export const INLINE_FILES_VOLUME = "inline-files";

const POD_NAME_PREFIX = "workload-";

/** The part of an object's metadata that says whose it is. */
export interface Labelled {
  readonly metadata?: { readonly name?: string; readonly labels?: Readonly<Record<string, string>> };
}

interface Annotated {
  readonly metadata?: { readonly annotations?: Readonly<Record<string, string>> };
}

/** The name of a workload's Pod. The id is not checked: validate a name that comes from a request before it is sent. */
export const podName = (workloadId: string): string => POD_NAME_PREFIX + workloadId;

/** The name of the pull Secret at `index`: without a number when it is the only one (runner-api.md section 2). */
export const pullSecretName = (workloadId: string, index: number, count: number): string =>
  count === 1 ? `${podName(workloadId)}-pull` : `${podName(workloadId)}-pull-${index}`;

export const inlineFilesSecretName = (workloadId: string): string => `${podName(workloadId)}-inline-files`;

/** What a Pod or Secret is the part of; empty when it has no workload id. */
export const workloadIdOf = (object: Labelled): string => object.metadata?.labels?.[WORKLOAD_ID_LABEL] ?? "";

/** Whether this Pod or Secret is ours: the manager label and a workload id (ruling 3). */
export const isManaged = (object: Labelled): boolean => isManagedClaim(object) && workloadIdOf(object) !== "";

/** Whether this claim is ours: the manager label; claims outlive workloads and carry no workload id (ruling 3). */
export const isManagedClaim = (object: Labelled): boolean => object.metadata?.labels?.[MANAGED_BY_LABEL] === MANAGER;

/** Names as one annotation: commas, no spaces. */
export const writeList = (names: readonly string[]): string => names.join(",");

/** The names in an annotation: split at commas, trimmed, empty parts dropped; empty when it is not there. */
export const listAnnotation = (object: Annotated, annotation: string): string[] =>
  (object.metadata?.annotations?.[annotation] ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");

/**
 * The Secrets that may be deleted with this Pod: of the names in its annotation, which anybody who can write Pods could
 * change, only those of the very workload (ruling 3).
 */
export const secretNamesOf = (pod: Pod): string[] => {
  const name = podName(workloadIdOf(pod));
  return listAnnotation(pod, SECRET_NAMES_ANNOTATION).filter(
    (secret) =>
      secret.startsWith(`${name}-`) && /^(pull|pull-[0-9]+|inline-files)$/.test(secret.slice(name.length + 1)),
  );
};

/** The claims that StartWorkload wrote on the Pod, those that existed before it included. */
export const pvcNamesOf = (pod: Pod): string[] => listAnnotation(pod, PVC_NAMES_ANNOTATION);
