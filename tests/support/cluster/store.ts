import type { ApiObject } from "./objects.ts";
import { alreadyExists, expired, notFound } from "./status.ts";

/** Plural names as they stand in URLs. */
export type Resource = "pods" | "persistentvolumeclaims" | "secrets" | "events";

export const KINDS: Record<Resource, string> = {
  pods: "Pod",
  persistentvolumeclaims: "PersistentVolumeClaim",
  secrets: "Secret",
  events: "Event",
};

/** One step in the life of an object. `version` is that of the step; `previous` the object before it. */
export interface Change {
  readonly version: number;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: ApiObject;
  readonly previous: ApiObject | undefined;
}

export type Listener = (change: Change) => void;

/**
 * etcd and the API server's watch cache in one: objects, the one counter of versions, and a bounded history of changes.
 * Changes reach listeners at once and in order. `historyLimit` is in changes per resource; what is older is 410 Expired.
 */
export class Store {
  readonly #objects = new Map<Resource, Map<string, ApiObject>>();
  readonly #history = new Map<Resource, Change[]>();
  readonly #listeners = new Map<Resource, Set<Listener>>();
  /** Version of the newest change that the history has forgotten, for each resource. */
  readonly #forgotten = new Map<Resource, number>();
  readonly #historyLimit: number;
  // Not 1: so that a run crosses from two digits to three, and a comparison of versions as text shows.
  #version = 90;

  constructor(o: { historyLimit: number }) {
    this.#historyLimit = o.historyLimit;
  }

  /** Of the newest change of any object. */
  get version(): number {
    return this.#version;
  }

  find(resource: Resource, namespace: string, name: string): ApiObject | undefined {
    return this.#objects.get(resource)?.get(`${namespace}/${name}`);
  }

  get(resource: Resource, namespace: string, name: string): ApiObject {
    const found = this.find(resource, namespace, name);
    if (found === undefined) throw notFound(resource, name);
    return found;
  }

  /** In the order of keys, as etcd answers. Without a namespace: all of them. */
  list(resource: Resource, namespace?: string): ApiObject[] {
    const entries = [...(this.#objects.get(resource) ?? [])];
    return entries
      .filter(([key]) => namespace === undefined || key.startsWith(`${namespace}/`))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, object]) => object);
  }

  create(resource: Resource, object: ApiObject): ApiObject {
    const { namespace, name } = object.metadata;
    if (this.find(resource, namespace, name) !== undefined) throw alreadyExists(resource, name);
    return this.#apply(resource, "ADDED", object, undefined);
  }

  update(resource: Resource, object: ApiObject): ApiObject {
    const { namespace, name } = object.metadata;
    return this.#apply(resource, "MODIFIED", object, this.get(resource, namespace, name));
  }

  remove(resource: Resource, object: ApiObject): ApiObject {
    const { namespace, name } = object.metadata;
    return this.#apply(resource, "DELETED", object, this.get(resource, namespace, name));
  }

  /** All changes after `version`; throws 410 when some of them are forgotten. */
  since(resource: Resource, version: number): readonly Change[] {
    const forgotten = this.#forgotten.get(resource) ?? 0;
    // The text names the oldest version that could still be resumed from.
    if (version < forgotten) throw expired(`too old resource version: ${version} (${forgotten})`);
    return (this.#history.get(resource) ?? []).filter((change) => change.version > version);
  }

  /** Forgets all changes so far, as a compaction of etcd and a restart of the API server do: older watches get 410. */
  compact(): void {
    // A version of its own, so that even the newest one handed out is too old.
    this.#version += 1;
    for (const resource of Object.keys(KINDS) as Resource[]) {
      this.#history.set(resource, []);
      this.#forgotten.set(resource, this.#version);
    }
  }

  subscribe(resource: Resource, listener: Listener): () => void {
    const listeners = this.#listeners.get(resource) ?? new Set();
    this.#listeners.set(resource, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  #apply(resource: Resource, type: Change["type"], object: ApiObject, previous: ApiObject | undefined): ApiObject {
    const version = ++this.#version;
    const stored: ApiObject = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } };
    const { namespace, name } = stored.metadata;
    const objects = this.#objects.get(resource) ?? new Map<string, ApiObject>();
    if (type === "DELETED") objects.delete(`${namespace}/${name}`);
    else objects.set(`${namespace}/${name}`, stored);
    this.#objects.set(resource, objects);

    const change: Change = { version, type, object: stored, previous };
    const history = this.#history.get(resource) ?? [];
    history.push(change);
    if (history.length > this.#historyLimit) this.#forgotten.set(resource, history.shift()?.version ?? 0);
    this.#history.set(resource, history);
    // A copy: a listener may subscribe or leave meanwhile.
    for (const listener of [...(this.#listeners.get(resource) ?? [])]) listener(change);
    return stored;
  }
}
