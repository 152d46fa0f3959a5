import type { Container, Pod } from "../kube/types.ts";
import { isManaged } from "../pod/names.ts";
import { claimsOf } from "../pod/status.ts";

/** A Pod without managedFields, env values and whatever no answer needs. Field names are the Pod's. */
export type CachedPod = Pod;

export interface Change {
  readonly type: "applied" | "deleted";
  /** Of a deleted Pod the last that was known. */
  readonly pod: CachedPod;
}

/** What whoever acts on changes of Pods needs: each Pod as it is, then every change. Returns the way to end it. */
export interface PodChanges {
  follow(listener: (change: Change) => void): () => void;
}

/** Deleted Pods whose late events are still recognized; older ones are beyond what any connection keeps back. */
const GRAVES = 10_000;

/**
 * Order of resource versions of one resource, as decimal strings of any length: below, equal to or above 0.
 * (Kubernetes API concepts, "Resource version comparability", KEP-5504.)
 */
export function compareVersions(left: string, right: string): number {
  return left.length - right.length || (left < right ? -1 : left === right ? 0 : 1);
}

export const versionOf = ({ metadata }: Pod): string => metadata?.resourceVersion ?? "";

/** What is kept of a Pod: 10,000 of them are held in memory. Shares the parts it keeps with `pod`. */
export function lean({ metadata = {}, spec, status, ...rest }: Pod): CachedPod {
  const { managedFields: _, annotations = {}, ...kept } = metadata;
  const ours = Object.entries(annotations).filter(([key]) => key.startsWith("agyn.io/"));
  return {
    ...rest,
    metadata: { ...kept, ...(ours.length > 0 ? { annotations: Object.fromEntries(ours) } : {}) },
    ...(spec === undefined ? {} : { spec: leanSpec(spec) }),
    ...(status === undefined ? {} : { status }),
  };
}

function leanSpec(spec: NonNullable<Pod["spec"]>): NonNullable<Pod["spec"]> {
  const { affinity: _a, tolerations: _t, containers, initContainers, ...kept } = spec;
  return {
    ...kept,
    containers: containers.map(leanContainer),
    ...(initContainers === undefined ? {} : { initContainers: initContainers.map(leanContainer) }),
  };
}

/** No environment (it may hold secrets), no command, no probes. */
function leanContainer(container: Container): Container {
  const { name, image, restartPolicy, volumeMounts } = container;
  return {
    name,
    ...(image === undefined ? {} : { image }),
    ...(restartPolicy === undefined ? {} : { restartPolicy }),
    ...(volumeMounts === undefined ? {} : { volumeMounts }),
  };
}

/**
 * The managed Pods as LIST and WATCH told them: nothing else writes here. Never goes back in time: events that are older
 * than what is known are ignored, except that a LIST replaces everything (a restored etcd counts from lower versions).
 */
export class PodCache {
  /** The state of the cluster that this cache has reached; empty before the first list. */
  version = "";
  readonly #pods = new Map<string, CachedPod>();
  readonly #byLabel = new Index();
  readonly #byClaim = new Index();
  /** Name → version at which a Pod was deleted. */
  readonly #graves = new Map<string, string>();
  /** The version of the last list: it tells all that happened up to there. */
  #listed = "";
  #sorted: string[] | undefined;

  get size(): number {
    return this.#pods.size;
  }

  get(name: string): CachedPod | undefined {
    return this.#pods.get(name);
  }

  /** The version up to which this name's Pods are known. */
  seen(name: string): string {
    return this.#pods.get(name)?.metadata?.resourceVersion ?? this.#graves.get(name) ?? this.#listed;
  }

  /** All Pods in the order of their names, which is the API server's. */
  all(): CachedPod[] {
    this.#sorted ??= [...this.#pods.keys()].sort();
    return this.#at(this.#sorted);
  }

  /** The Pods that have all these labels; costs as much as the rarest of them has Pods. */
  withLabels(labels: Readonly<Record<string, string>>): CachedPod[] {
    const wanted = Object.entries(labels);
    if (wanted.length === 0) return this.all();
    const hits = wanted.map(([key, value]) => this.#byLabel.get(labelKey(key, value)));
    const rarest = hits.reduce((left, right) => (right.size < left.size ? right : left));
    return this.#at([...rarest].sort()).filter((pod) => hasLabels(pod, wanted));
  }

  withClaim(claim: string): CachedPod[] {
    return this.#at([...this.#byClaim.get(claim)].sort());
  }

  /** Everything is as this list says. Returns what that changed. */
  replace(pods: readonly Pod[], version: string): Change[] {
    const changes: Change[] = [];
    const managed = new Map<string, Pod>();
    for (const pod of pods) if (isManaged(pod)) managed.set(pod.metadata?.name ?? "", pod);
    for (const [name, known] of this.#pods) {
      const now = managed.get(name);
      if (now !== undefined && now.metadata?.uid === known.metadata?.uid) continue;
      this.#remove(name);
      changes.push({ type: "deleted", pod: known });
    }
    for (const [name, pod] of managed) {
      const known = this.#pods.get(name);
      const kept = this.#put(name, pod);
      if (known?.metadata?.resourceVersion !== kept.metadata?.resourceVersion)
        changes.push({ type: "applied", pod: kept });
    }
    this.#graves.clear();
    this.#listed = version;
    this.version = version;
    return changes;
  }

  /**
   * One watch event. Returns the changes: none when it told nothing new, two when it shows another Pod of the same name.
   * A Pod that is no longer managed is gone. `pod` must have an identity.
   */
  apply(type: "applied" | "deleted", pod: Pod): Change[] {
    const { name = "", uid, resourceVersion: version = "" } = pod.metadata ?? {};
    if (compareVersions(version, this.version) > 0) this.version = version;
    const known = this.#pods.get(name);
    const same = known?.metadata?.uid === uid;
    const order = compareVersions(version, this.seen(name));
    if (type === "deleted" || !isManaged(pod)) {
      if (known === undefined) this.#bury(name, version);
      if (known === undefined || !same || order < 0) return []; // not there, or the end of a former Pod of this name
      this.#remove(name);
      this.#bury(name, version);
      return [{ type: "deleted", pod: known }];
    }
    if (order <= 0) return [];
    const replaced: Change[] = known === undefined || same ? [] : [{ type: "deleted", pod: known }];
    if (replaced.length > 0) this.#remove(name);
    this.#graves.delete(name);
    return [...replaced, { type: "applied", pod: this.#put(name, pod) }];
  }

  #put(name: string, pod: Pod): CachedPod {
    const kept = lean(pod);
    const known = this.#pods.get(name);
    if (known === undefined) this.#sorted = undefined;
    else this.#unindex(name, known);
    this.#pods.set(name, kept);
    for (const key of labelKeysOf(kept)) this.#byLabel.add(key, name);
    for (const claim of claimsOf(kept)) this.#byClaim.add(claim, name);
    return kept;
  }

  #remove(name: string): void {
    const known = this.#pods.get(name);
    if (known === undefined) return;
    this.#unindex(name, known);
    this.#pods.delete(name);
    this.#sorted = undefined;
  }

  #unindex(name: string, pod: CachedPod): void {
    for (const key of labelKeysOf(pod)) this.#byLabel.delete(key, name);
    for (const claim of claimsOf(pod)) this.#byClaim.delete(claim, name);
  }

  #bury(name: string, version: string): void {
    const former = this.#graves.get(name);
    this.#graves.delete(name); // to the end of the line
    this.#graves.set(name, former !== undefined && compareVersions(former, version) > 0 ? former : version);
    if (this.#graves.size <= GRAVES) return;
    for (const oldest of this.#graves.keys()) {
      this.#graves.delete(oldest);
      break;
    }
  }

  #at(names: readonly string[]): CachedPod[] {
    return names.flatMap((name) => this.#pods.get(name) ?? []);
  }
}

/** Key → names. */
class Index {
  readonly #names = new Map<string, Set<string>>();

  get(key: string): ReadonlySet<string> {
    return this.#names.get(key) ?? NOTHING;
  }

  add(key: string, name: string): void {
    const names = this.#names.get(key);
    if (names === undefined) this.#names.set(key, new Set([name]));
    else names.add(name);
  }

  delete(key: string, name: string): void {
    const names = this.#names.get(key);
    names?.delete(name);
    if (names?.size === 0) this.#names.delete(key);
  }
}

const NOTHING: ReadonlySet<string> = new Set();

/** No label key or value holds an `=`. */
const labelKey = (key: string, value: string): string => `${key}=${value}`;

const labelKeysOf = ({ metadata }: CachedPod): string[] =>
  Object.entries(metadata?.labels ?? {}).map(([key, value]) => labelKey(key, value));

/** Equality of all entries. */
export const hasLabels = ({ metadata }: CachedPod, wanted: readonly (readonly [string, string])[]): boolean =>
  wanted.every(
    ([key, value]) =>
      metadata?.labels !== undefined && Object.hasOwn(metadata.labels, key) && metadata.labels[key] === value,
  );
