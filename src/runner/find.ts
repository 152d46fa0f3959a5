import type { ConnectError } from "@connectrpc/connect";
import { invalid, notFound } from "../errors.ts";
import { KubeError } from "../kube/error.ts";
import type { Claim, Pod } from "../kube/types.ts";
import { isManaged, isManagedClaim, podName, workloadIdOf } from "../pod/names.ts";
import { trim } from "../pod/validate.ts";
import type { Parts } from "./parts.ts";

/** The trimmed id, or INVALID_ARGUMENT `token` when it is blank. Any other form of id is a matter of "not found". */
export function requireText(text: string, token: string): string {
  const trimmed = trim(text);
  if (trimmed === "") throw invalid(token);
  return trimmed;
}

export const requireWorkloadId = (id: string): string => requireText(id, "workload_id_required");

/** Whether an object can have this name (RFC 1123 subdomain): what cannot exist is not asked for. */
const isObjectName = (name: string): boolean =>
  name.length <= 253 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name);

/** NOT_FOUND in the words of the API server, also for ids that could never name a Pod (clients.md 3.4). */
export const podNotFound = (name: string): ConnectError => notFound(`resource not found: pods "${name}" not found`);

/**
 * The workload's managed Pod, from the cache; NOT_FOUND only where its absence is proven (rulings 3 and 5). Of `call`, which
 * may be a handler's context, the signal is only asked for when there is something to wait for: it is dear for a short call.
 */
export async function findPod(
  { pods }: Pick<Parts, "pods">,
  workloadId: string,
  call: { readonly signal: AbortSignal },
): Promise<Pod> {
  const known = pods.atHand(workloadId);
  if (known !== undefined) return known;
  const name = podName(workloadId);
  const pod = isObjectName(name) ? await pods.pod(workloadId, call.signal) : undefined;
  if (pod === undefined) throw podNotFound(name);
  return pod;
}

/** The same, asked of the API server itself: writes never trust the cache. */
export async function getPod(
  { kube, pods }: Pick<Parts, "kube" | "pods">,
  workloadId: string,
  signal: AbortSignal,
): Promise<Pod> {
  const name = podName(workloadId);
  if (!isObjectName(name)) throw podNotFound(name);
  const known = pods.peek(workloadId);
  const pod = await kube.pods.get(name, { signal }).catch((error: unknown) => {
    // What is told to be gone here, no later read may tell of.
    if (known !== undefined && error instanceof KubeError && error.notFound) pods.gone(known);
    throw error;
  });
  if (!isManaged(pod) || workloadIdOf(pod) !== workloadId) throw podNotFound(name);
  return pod;
}

/** The managed claim of this name; undefined when there is none (a foreign one is treated as not there, ruling 3). */
export async function findClaim(
  { kube }: Pick<Parts, "kube">,
  name: string,
  signal: AbortSignal,
): Promise<Claim | undefined> {
  if (!isObjectName(name)) return undefined;
  const claim = await ignoreNotFound(kube.claims.get(name, { signal }));
  return claim !== undefined && isManagedClaim(claim) ? claim : undefined;
}

/** undefined in place of a 404. */
export async function ignoreNotFound<T>(request: Promise<T>): Promise<T | undefined> {
  try {
    return await request;
  } catch (error) {
    if (error instanceof KubeError && error.notFound) return undefined;
    throw error;
  }
}

/** The same, and for a 409: what was to be deleted has gone, or is not what it was when that was decided. */
export async function ignoreGone<T>(request: Promise<T>): Promise<T | undefined> {
  try {
    return await ignoreNotFound(request);
  } catch (error) {
    if (error instanceof KubeError && error.reason === "Conflict") return undefined;
    throw error;
  }
}

/** The name of an object that came from the API server. */
export function nameOf(object: Pod | Claim): string {
  return object.metadata?.name ?? "";
}

/** The uid as a precondition of a delete: the object that was looked at, and no other of its name. */
export function uidOf(object: Pod | Claim): string {
  const uid = object.metadata?.uid;
  if (uid === undefined) throw new KubeError(200, "", `the API server answered ${nameOf(object)} without a uid`);
  return uid;
}
