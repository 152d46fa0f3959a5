import { Code, ConnectError } from "@connectrpc/connect";
import { notFound } from "../errors.ts";
import { KubeError } from "../kube/error.ts";
import type { Pod } from "../kube/types.ts";
import { pvcNamesOf, secretNamesOf, TOUCHED_AT_ANNOTATION } from "../pod/names.ts";
import { findClaim, getPod, ignoreGone, ignoreNotFound, nameOf, uidOf } from "./find.ts";
import type { Parts } from "./parts.ts";

/** Clean-up after the Pod's deletion goes on when the caller has left, but not for ever. */
const CLEAN_UP_MS = 20_000;

/** StopWorkload (6.3): a terminating Pod may be stopped again; its claims are never touched. */
export async function stopWorkload(id: string, timeoutSec: number, parts: Parts, signal: AbortSignal): Promise<void> {
  const pod = await getPod(parts, id, signal);
  await deletePod(pod, timeoutSec > 0 ? timeoutSec : undefined, parts, signal);
  await deleteSecrets(pod, id, parts);
}

/** RemoveWorkload (6.4): stop, at once when forced, and the claims named on the Pod when asked. */
export async function removeWorkload(
  id: string,
  { force, removeVolumes }: { force: boolean; removeVolumes: boolean },
  parts: Parts,
  signal: AbortSignal,
): Promise<void> {
  const pod = await getPod(parts, id, signal);
  await deletePod(pod, force ? 0 : undefined, parts, signal);
  await deleteSecrets(pod, id, parts);
  if (removeVolumes) await deleteClaims(pod, id, parts);
}

/** RemoveVolume (6.11): success whenever the claim is, or will be, gone. */
export async function removeVolume(name: string, parts: Parts, signal: AbortSignal): Promise<void> {
  const claim = await findClaim(parts, name, signal);
  if (claim === undefined || claim.metadata?.deletionTimestamp !== undefined) return;
  await ignoreGone(parts.kube.claims.delete(name, { uid: uidOf(claim), signal }));
}

/** TouchWorkload (6.12). The uid in the patch is a precondition: a Pod made anew under the name is not this one. */
export async function touchWorkload(id: string, { kube, pods }: Parts, signal: AbortSignal): Promise<void> {
  const pod = await getPod({ kube, pods }, id, signal);
  const touchedAt = new Date().toISOString();
  const patch = { metadata: { uid: uidOf(pod), annotations: { [TOUCHED_AT_ANNOTATION]: touchedAt } } };
  try {
    pods.wrote(await kube.pods.patch(nameOf(pod), patch, { signal }));
  } catch (error) {
    // The API answers a wrong uid in a patch with 422; nothing else in this patch can be invalid.
    if (error instanceof KubeError && error.status === 422)
      throw notFound(`resource not found: pods "${nameOf(pod)}" not found`);
    throw error;
  }
}

/** Deletes exactly this Pod. That it has gone meanwhile is success: the request may have been sent twice. */
async function deletePod(pod: Pod, gracePeriodSeconds: number | undefined, parts: Parts, signal: AbortSignal) {
  const deleted = await ignoreGone(
    parts.kube.pods.delete(nameOf(pod), {
      uid: uidOf(pod),
      signal,
      ...(gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds }),
    }),
  );
  if (deleted === undefined) parts.pods.gone(pod);
  else parts.pods.wrote(deleted);
}

/** Secrets of Pods that do not own theirs (older versions made them so); failures are told in the log alone (6.3). */
async function deleteSecrets(pod: Pod, id: string, { kube, log }: Parts): Promise<void> {
  const signal = AbortSignal.timeout(CLEAN_UP_MS);
  const errors: string[] = [];
  for (const name of secretNamesOf(pod)) {
    try {
      await ignoreNotFound(kube.secrets.delete(name, { signal }));
    } catch (error) {
      errors.push(`${name}: ${error instanceof Error ? error.message : "failed"}`);
    }
  }
  if (errors.length > 0) log.error({ workload_id: id, errors }, "failed to delete pull secrets");
}

/** The claims that this Pod names, but for those that another workload mounts; every one is tried (6.4). */
async function deleteClaims(pod: Pod, id: string, parts: Parts): Promise<void> {
  const signal = AbortSignal.timeout(CLEAN_UP_MS);
  const errors: string[] = [];
  for (const name of pvcNamesOf(pod)) {
    try {
      const others = (await parts.pods.withClaim(name, signal)).filter((other) => uidOf(other) !== uidOf(pod));
      if (others.length > 0) {
        parts.log.info({ workload_id: id, pvc: name, used_by: others.map(nameOf) }, "kept pvc of another workload");
        continue;
      }
      await removeVolume(name, parts, signal);
    } catch (error) {
      errors.push(`${name}: ${error instanceof Error ? error.message : "failed"}`);
    }
  }
  if (errors.length === 0) return;
  parts.log.error({ workload_id: id, errors }, "failed to delete pvcs");
  throw new ConnectError("pvc_cleanup_failed", Code.Internal);
}
