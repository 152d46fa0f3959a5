import type { Claim, Pod } from "../kube/types.ts";
import { CREATED_FOR_ANNOTATION, MANAGED_SELECTOR, SETUP_GATE } from "../pod/names.ts";
import { sleep } from "../time.ts";
import { ignoreGone, nameOf, uidOf } from "./find.ts";
import type { Parts } from "./parts.ts";

/** A Pod that shows our gate for longer belongs to a start that died with its process (ruling 6). */
const GATED_LIMIT_MS = 60_000;
const PERIOD_MS = 10_000;
const DISCARD_MS = 20_000;

type SweepParts = Pick<Parts, "kube" | "pods" | "log">;

/**
 * Ends starts that died half-way, their claims, then the gated Pod, whose Secrets Kubernetes collects; and, when asked
 * to, removes Pods that have finished (FINISHED_POD_TTL, ruling 26). Ages count from when this process first saw a Pod so,
 * by its own monotonic clock, since the cluster's may differ: after a restart they begin anew. Runs until aborted.
 */
export async function sweep(
  parts: SweepParts,
  signal: AbortSignal,
  {
    gatedMs = GATED_LIMIT_MS,
    periodMs = PERIOD_MS,
    finishedMs = Number.POSITIVE_INFINITY,
  }: { gatedMs?: number; periodMs?: number; finishedMs?: number | undefined } = {},
): Promise<void> {
  const gated = new Ages(hasSetupGate);
  const finished = new Ages(hasFinished);
  while (!signal.aborted) {
    try {
      const pods = await parts.pods.pods(signal);
      for (const pod of gated.over(gatedMs, pods)) await discardDeadStart(pod, parts);
      for (const pod of finished.over(finishedMs, pods)) await discardFinished(pod, parts);
    } catch (error) {
      if (!signal.aborted) parts.log.warn({ error }, "sweep failed");
    }
    await sleep(periodMs, signal).catch(() => undefined); // aborted: the loop ends
  }
}

/** Since when Pods are as `holds` says. */
class Ages {
  readonly #holds: (pod: Pod) => boolean;
  #since = new Map<string, number>();

  constructor(holds: (pod: Pod) => boolean) {
    this.#holds = holds;
  }

  /** Those that have been so for `ms` or longer; what is not among `pods` is forgotten. */
  over(ms: number, pods: readonly Pod[]): Pod[] {
    const now = performance.now();
    const holding = pods.filter(this.#holds);
    this.#since = new Map(holding.map((pod) => [uidOf(pod), this.#since.get(uidOf(pod)) ?? now]));
    return holding.filter((pod) => now - (this.#since.get(uidOf(pod)) ?? now) >= ms);
  }
}

async function discardFinished(pod: Pod, parts: SweepParts): Promise<void> {
  await discard(pod, [], parts, AbortSignal.timeout(DISCARD_MS), pod.metadata?.resourceVersion);
  parts.log.info({ pod: nameOf(pod), phase: pod.status?.phase }, "removed a finished workload");
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
    else await ignoreGone(kube.claims.delete(nameOf(claim), { uid: uidOf(claim), signal }));
  }
  const preconditions = { uid: uidOf(pod), ...(resourceVersion === undefined ? {} : { resourceVersion }) };
  const deleted = await ignoreGone(kube.pods.delete(nameOf(pod), { ...preconditions, gracePeriodSeconds: 0, signal }));
  if (deleted !== undefined) pods.wrote(deleted);
}

const hasSetupGate = (pod: Pod): boolean => pod.spec?.schedulingGates?.some(({ name }) => name === SETUP_GATE) ?? false;

const hasFinished = ({ status }: Pod): boolean => status?.phase === "Succeeded" || status?.phase === "Failed";
