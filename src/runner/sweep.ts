import { KubeError } from "../kube/error.ts";
import type { Claim, Pod } from "../kube/types.ts";
import { CREATED_FOR_ANNOTATION, MANAGED_SELECTOR, SETUP_GATE } from "../pod/names.ts";
import { sleep } from "../time.ts";
import { ignoreNotFound, nameOf, uidOf } from "./find.ts";
import type { Parts } from "./parts.ts";

/** A Pod that shows our gate for longer belongs to a start that died with its process (ruling 6). */
const GATED_LIMIT_MS = 60_000;
const PERIOD_MS = 10_000;
const DISCARD_MS = 20_000;

type SweepParts = Pick<Parts, "kube" | "pods" | "log">;

/**
 * Ends starts that died half-way: their claims, then the gated Pod, whose Secrets Kubernetes collects. A Pod's age counts
 * from when this process first saw it gated, by its own monotonic clock, since the cluster's may differ. Runs until aborted.
 */
export async function sweepDeadStarts(
  parts: SweepParts,
  signal: AbortSignal,
  { limitMs = GATED_LIMIT_MS, periodMs = PERIOD_MS } = {},
): Promise<void> {
  let firstSeen = new Map<string, number>();
  while (!signal.aborted) {
    try {
      const now = performance.now();
      const gated = (await parts.pods.pods(signal)).filter(hasSetupGate);
      firstSeen = new Map(gated.map((pod) => [uidOf(pod), firstSeen.get(uidOf(pod)) ?? now]));
      for (const pod of gated)
        if (now - (firstSeen.get(uidOf(pod)) ?? now) >= limitMs) await discardDeadStart(pod, parts);
    } catch (error) {
      if (!signal.aborted) parts.log.warn({ error }, "sweep of dead starts failed");
    }
    await sleep(periodMs, signal).catch(() => undefined); // aborted: the loop ends
  }
}

async function discardDeadStart(pod: Pod, parts: SweepParts): Promise<void> {
  const signal = AbortSignal.timeout(DISCARD_MS);
  const { items } = await parts.kube.claims.listAll({ labelSelector: MANAGED_SELECTOR, signal });
  const claims = items.filter((claim) => claim.metadata?.annotations?.[CREATED_FOR_ANNOTATION] === uidOf(pod));
  // The version makes sure that it is still gated: the gate's removal is a write.
  await discard(pod, claims, parts, signal, pod.metadata?.resourceVersion);
  parts.log.info({ pod: nameOf(pod), pvcs: claims.map(nameOf) }, "removed a start that died");
}

/** Deletes the claims that no other workload mounts meanwhile, then the Pod, each only if it is still the very object. */
export async function discard(
  pod: Pod,
  claims: readonly Claim[],
  { kube, pods, log }: SweepParts,
  signal: AbortSignal,
  resourceVersion?: string,
): Promise<void> {
  for (const claim of claims) {
    const others = (await pods.withClaim(nameOf(claim), signal)).filter((other) => uidOf(other) !== uidOf(pod));
    if (others.length > 0)
      log.info({ pvc: nameOf(claim), used_by: others.map(nameOf) }, "kept pvc of another workload");
    else await ignoreChanged(kube.claims.delete(nameOf(claim), { uid: uidOf(claim), signal }));
  }
  const preconditions = { uid: uidOf(pod), ...(resourceVersion === undefined ? {} : { resourceVersion }) };
  const deleted = await ignoreChanged(
    kube.pods.delete(nameOf(pod), { ...preconditions, gracePeriodSeconds: 0, signal }),
  );
  if (deleted !== undefined) pods.wrote(deleted);
}

const hasSetupGate = (pod: Pod): boolean => pod.spec?.schedulingGates?.some(({ name }) => name === SETUP_GATE) ?? false;

/** Gone already, or another object by now: either way there is nothing left to delete. */
async function ignoreChanged<T>(request: Promise<T>): Promise<T | undefined> {
  try {
    return await ignoreNotFound(request);
  } catch (error) {
    if (error instanceof KubeError && error.reason === "Conflict") return undefined;
    throw error;
  }
}
