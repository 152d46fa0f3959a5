import { randomUUID } from "node:crypto";
import type { HandlerContext } from "@connectrpc/connect";
import { failedPrecondition } from "../errors.ts";
import { type StartWorkloadRequest, WorkloadStatus } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { KubeError } from "../kube/error.ts";
import type { Claim, Pod } from "../kube/types.ts";
import { CREATED_FOR_ANNOTATION, isManagedClaim, SETUP_GATE, START_NONCE_ANNOTATION } from "../pod/names.ts";
import { type Plan, planWorkload } from "../pod/spec.ts";
import { ignoreNotFound, nameOf, uidOf } from "./find.ts";
import { annotate } from "./observe.ts";
import type { Parts } from "./parts.ts";
import { discard } from "./sweep.ts";

/** One start as a whole: well below the minute after which the sweep takes a gated Pod for a start that died (ruling 6). */
const START_MS = 40_000;
/** Undoing has time of its own, for the caller's may be what ran out. */
const UNDO_MS = 20_000;
/** Others may write the Pod while its gate comes off (an admission controller, a quota): each such conflict costs one try. */
const GATE_ATTEMPTS = 5;

/**
 * StartWorkload (6.2, ruling 6): plan it whole, then carry it out. A start that creates only a Pod is one POST. One that
 * needs Secrets or new claims creates the Pod gated, then the rest on its behalf, and lets it be scheduled last.
 *
 * The caller's signal is looked at between writes and never cuts one: an aborted POST may still be carried out, and then
 * nobody would know. A caller that left before the end gets its start undone.
 */
export async function startWorkload(request: StartWorkloadRequest, parts: Parts, context: HandlerContext) {
  const plan = planWorkload(request, { ...parts.settings, newWorkloadId: randomUUID(), nonce: randomUUID() });
  annotate(context, { workload_id: plan.workloadId });
  const start = new Start(plan, parts, context.signal);
  try {
    await start.carryOut();
    context.signal.throwIfAborted();
  } catch (error) {
    await start.undo();
    throw error;
  }
  return {
    id: plan.workloadId,
    containers: { main: nameOf(plan.pod), sidecars: [...plan.sidecars] },
    status: WorkloadStatus.STARTING,
  };
}

class Start {
  readonly #plan: Plan;
  readonly #parts: Parts;
  readonly #caller: AbortSignal;
  readonly #deadline = AbortSignal.timeout(START_MS);
  /** What this very call created, for undo. */
  #pod: Pod | undefined;
  readonly #claims: Claim[] = [];

  constructor(plan: Plan, parts: Parts, caller: AbortSignal) {
    this.#plan = plan;
    this.#parts = parts;
    this.#caller = caller;
  }

  async carryOut(): Promise<void> {
    const { claims, secrets, pod } = this.#plan;
    const missing: Claim[] = [];
    for (const claim of claims) if (!(await this.#claimExists(nameOf(claim)))) missing.push(claim);
    if (missing.length + secrets.length === 0) {
      await this.#createPod(pod);
      return;
    }
    const created = await this.#createPod(gated(pod));
    for (const claim of missing) await this.#createClaim(claim, uidOf(created));
    for (const secret of secrets) {
      this.#caller.throwIfAborted();
      const owned = { ...secret, metadata: { ...secret.metadata, ownerReferences: [ownerOf(created)] } };
      await this.#parts.kube.secrets.create(owned, { signal: this.#deadline });
    }
    this.#caller.throwIfAborted();
    this.#parts.pods.wrote(await this.#openGate(created));
  }

  /** Removes what this call created; the Pod's Secrets are collected with it. What cannot be undone now, the sweep ends. */
  async undo(): Promise<void> {
    if (this.#pod === undefined) return;
    try {
      await discard(this.#pod, this.#claims, this.#parts, AbortSignal.timeout(UNDO_MS));
    } catch (error) {
      this.#parts.log.error({ workload_id: this.#plan.workloadId, error }, "failed to undo a start");
    }
  }

  async #createPod(pod: Pod): Promise<Pod> {
    this.#caller.throwIfAborted();
    this.#pod = await this.#resolved(this.#parts.kube.pods.create(pod, { signal: this.#deadline }), async (signal) => {
      const found = await ignoreNotFound(this.#parts.kube.pods.get(nameOf(pod), { signal }));
      return nonceOf(found) === nonceOf(pod) ? found : undefined;
    });
    this.#parts.pods.wrote(this.#pod);
    return this.#pod;
  }

  async #createClaim(claim: Claim, podUid: string): Promise<void> {
    this.#caller.throwIfAborted();
    const annotations = { [CREATED_FOR_ANNOTATION]: podUid };
    const { kube, log } = this.#parts;
    try {
      const request = kube.claims.create(
        { ...claim, metadata: { ...claim.metadata, annotations } },
        { signal: this.#deadline },
      );
      const created = await this.#resolved(request, async (signal) => {
        const found = await ignoreNotFound(kube.claims.get(nameOf(claim), { signal }));
        return found?.metadata?.annotations?.[CREATED_FOR_ANNOTATION] === podUid ? found : undefined;
      });
      this.#claims.push(created);
      log.info({ pvc: nameOf(claim), workload_id: this.#plan.workloadId }, "created pvc");
    } catch (error) {
      // Another start made it meanwhile: then it is used as any claim that was found, and is not ours to undo.
      const exists = error instanceof KubeError && error.reason === "AlreadyExists";
      if (!exists || !(await this.#claimExists(nameOf(claim)))) throw error;
    }
  }

  /** True when there is a claim to use; FAILED_PRECONDITION when there is one that must not be (ruling 3). */
  async #claimExists(name: string): Promise<boolean> {
    const signal = AbortSignal.any([this.#caller, this.#deadline]);
    const claim = await ignoreNotFound(this.#parts.kube.claims.get(name, { signal }));
    if (claim === undefined) return false;
    if (!isManagedClaim(claim)) throw failedPrecondition(`volume_not_managed: ${name}`);
    if (claim.metadata?.deletionTimestamp !== undefined) throw failedPrecondition(`volume_terminating: ${name}`);
    return true;
  }

  /** Takes our gate off, and only ours: the list is written with the version it was read at. */
  async #openGate(pod: Pod): Promise<Pod> {
    const { kube } = this.#parts;
    for (let current = pod, attempt = 1; ; attempt++) {
      const gates = current.spec?.schedulingGates ?? [];
      const others = gates.filter(({ name }) => name !== SETUP_GATE);
      if (others.length === gates.length) return current; // an earlier try, whose answer was lost, had worked
      const { resourceVersion } = current.metadata ?? {};
      const patch = { metadata: { uid: uidOf(pod), resourceVersion }, spec: { schedulingGates: others } };
      try {
        return await kube.pods.patch(nameOf(pod), patch, { signal: this.#deadline });
      } catch (error) {
        const conflict = error instanceof KubeError && error.reason === "Conflict";
        if (!conflict || attempt === GATE_ATTEMPTS) throw error;
        current = await kube.pods.get(nameOf(pod), { signal: this.#deadline });
        if (current.metadata?.uid !== uidOf(pod)) throw error;
      }
    }
  }

  /** The created object, also when its answer was lost or no object: then `find` looks for what this call made. */
  async #resolved<T>(request: Promise<T>, find: (signal: AbortSignal) => Promise<T | undefined>): Promise<T> {
    try {
      return await request;
    } catch (error) {
      const refused = error instanceof KubeError && !error.retryable && error.status >= 300;
      if (refused) throw error;
      const found = await find(AbortSignal.timeout(UNDO_MS)).catch(() => undefined); // the first error says more
      if (found === undefined) throw error;
      return found;
    }
  }
}

const gated = (pod: Pod): Pod => ({
  ...pod,
  spec: { containers: [], ...pod.spec, schedulingGates: [...(pod.spec?.schedulingGates ?? []), { name: SETUP_GATE }] },
});

const ownerOf = (pod: Pod) => ({ apiVersion: "v1", kind: "Pod", name: nameOf(pod), uid: uidOf(pod) });

const nonceOf = (pod: Pod | undefined): string | undefined => pod?.metadata?.annotations?.[START_NONCE_ANNOTATION];
