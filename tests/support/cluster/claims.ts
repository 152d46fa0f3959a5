/** PersistentVolumeClaims: their checks, and what the volume and garbage collecting controllers do with objects. */
import type { Collection, Rules } from "./collections.ts";
import { isClaim, isPod, objectAt, type StoredClaim, type StoredPod, textAt, textsAt } from "./objects.ts";
import { forbidden, invalid, required } from "./status.ts";
import type { Change, Resource, Store } from "./store.ts";

/** The only storage class there is: a claim of any other one stays pending. */
export const STORAGE_CLASS = "standard";
/** Keeps a claim that is mounted until no Pod uses it. */
const PROTECTION = "kubernetes.io/pvc-protection";

export const claimRules: Rules = {
  answersObject: true,
  finalizers: [PROTECTION],
  create(body, problems) {
    const spec = objectAt(body, "spec");
    if (textsAt(spec, "accessModes").length === 0)
      problems.push(required("spec.accessModes", "at least 1 access mode is required"));
    const storage = textAt(objectAt(objectAt(spec, "resources"), "requests"), "storage");
    if (storage === "") problems.push(required("spec.resources[storage]"));
    return {
      spec: { storageClassName: STORAGE_CLASS, volumeMode: "Filesystem", ...spec },
      status: { phase: "Pending" },
    };
  },
  update(before, after) {
    if (!isClaim(before) || !isClaim(after)) return after;
    if (Bun.deepEquals(before.spec, after.spec)) return { ...after, status: before.status } as typeof after;
    throw invalid("PersistentVolumeClaim", before.metadata.name, [
      forbidden(
        "spec",
        "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
      ),
    ]);
  },
};

export const secretRules: Rules = {
  create(body) {
    const data = objectAt(body, "data");
    const strings = Object.entries(objectAt(body, "stringData")).map(([key, value]) => [
      key,
      Buffer.from(String(value)).toString("base64"),
    ]);
    return { data: { ...data, ...Object.fromEntries(strings) }, type: textAt(body, "type") || "Opaque" };
  },
};

export const eventRules: Rules = {
  create({ metadata: _, apiVersion: __, kind: ___, ...fields }) {
    return fields;
  },
};

/** Binds new claims, lets terminating ones go when no Pod uses them, and collects what belonged to a Pod that is gone. */
export function runControllers(store: Store, claims: Collection): () => void {
  const leave = [
    store.subscribe("persistentvolumeclaims", ({ type, object }) => {
      if (type === "DELETED" || !isClaim(object)) return;
      // Later, as a controller would: whoever created it first sees it pending.
      if (object.status.phase === "Pending") soon(() => bind(store, object));
      else if (object.metadata.deletionTimestamp !== undefined) soon(() => release(store, claims, object));
    }),
    store.subscribe("pods", (change) => {
      soon(() => releaseAll(store, claims));
      if (change.type === "DELETED") soon(() => collect(store, change));
    }),
    store.subscribe("secrets", (change) => {
      if (change.type === "ADDED") soon(() => collectOrphan(store, "secrets", change));
    }),
  ];
  let stopped = false;
  const soon = (work: () => void) => setTimeout(() => stopped || work(), 0);
  return () => {
    stopped = true;
    for (const each of leave) each();
  };
}

function bind(store: Store, { metadata: { namespace, name } }: StoredClaim): void {
  const claim = store.find("persistentvolumeclaims", namespace, name);
  if (claim === undefined || !isClaim(claim) || claim.status.phase !== "Pending") return;
  if (claim.spec.storageClassName !== STORAGE_CLASS) return;
  const { resources, accessModes } = claim.spec;
  const capacity = resources?.requests ?? {};
  const bound = {
    ...claim,
    spec: { ...claim.spec, volumeName: `pv-${claim.metadata.uid.slice(0, 8)}` },
    status: { phase: "Bound", ...(accessModes ? { accessModes } : {}), capacity },
  };
  store.update("persistentvolumeclaims", bound);
}

function releaseAll(store: Store, claims: Collection): void {
  for (const claim of store.list("persistentvolumeclaims"))
    if (isClaim(claim) && claim.metadata.deletionTimestamp !== undefined) release(store, claims, claim);
}

function release(store: Store, claims: Collection, { metadata: { namespace, name } }: StoredClaim): void {
  const claim = store.find("persistentvolumeclaims", namespace, name);
  if (claim === undefined || claim.metadata.deletionTimestamp === undefined) return;
  const used = store.list("pods", namespace).some((pod) => isPod(pod) && uses(pod, name));
  if (used || !claim.metadata.finalizers?.includes(PROTECTION)) return;
  const { finalizers = [], ...metadata } = claim.metadata;
  const others = finalizers.filter((each) => each !== PROTECTION);
  claims.settle(
    store.update("persistentvolumeclaims", {
      ...claim,
      metadata: { ...metadata, ...(others.length > 0 ? { finalizers: others } : {}) },
    }),
  );
}

/** A Pod that is on no node, or has ended, holds no claim. */
function uses({ spec, status }: StoredPod, claim: string): boolean {
  const alive = spec.nodeName !== undefined && status.phase !== "Succeeded" && status.phase !== "Failed";
  return alive && (spec.volumes ?? []).some(({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName === claim);
}

/** Deletes what a Pod that is gone owned (ownerReferences by uid). */
function collect(store: Store, { object: { metadata } }: Change): void {
  for (const resource of ["secrets", "persistentvolumeclaims"] as const)
    for (const object of store.list(resource, metadata.namespace))
      if (object.metadata.ownerReferences?.some(({ uid }) => uid === metadata.uid)) store.remove(resource, object);
}

/** An object whose owner was gone before it came. */
function collectOrphan(store: Store, resource: Resource, { object: { metadata } }: Change): void {
  const [owner] = metadata.ownerReferences ?? [];
  if (owner === undefined || owner.kind !== "Pod") return;
  const current = store.find(resource, metadata.namespace, metadata.name);
  const pod = store.find("pods", metadata.namespace, owner.name);
  if (current !== undefined && pod?.metadata.uid !== owner.uid) store.remove(resource, current);
}

/** The mounted claims of a Pod and what hinders their use; undefined when nothing does. */
export function claimProblem(store: Store, pod: StoredPod): string | undefined {
  for (const { persistentVolumeClaim } of pod.spec.volumes ?? []) {
    if (!persistentVolumeClaim) continue;
    const { claimName } = persistentVolumeClaim;
    const claim = store.find("persistentvolumeclaims", pod.metadata.namespace, claimName);
    if (claim === undefined) return `persistentvolumeclaim "${claimName}" not found`;
    if (claim.metadata.deletionTimestamp !== undefined) return `persistentvolumeclaim "${claimName}" is being deleted`;
    if (isClaim(claim) && claim.status.phase !== "Bound") return "pod has unbound immediate PersistentVolumeClaims";
  }
  return undefined;
}
