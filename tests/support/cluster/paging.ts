import { createHmac, randomBytes } from "node:crypto";
import { type ApiObject, isObject } from "./objects.ts";
import type { Selector } from "./selectors.ts";
import { badRequest, expired } from "./status.ts";
import { KINDS, type Resource, type Store } from "./store.ts";

export interface ListOptions {
  readonly resource: Resource;
  readonly namespace: string | undefined;
  readonly selector: Selector;
  readonly query: URLSearchParams;
}

interface Snapshot {
  readonly version: number;
  readonly objects: readonly ApiObject[];
}

/**
 * Lists in pages. A page but the first shows the objects as they were at the version of the first, as the API server
 * does; its token is good until `expire`, for the server keeps what the pages to come will show.
 */
export class Pager {
  readonly #store: Store;
  readonly #snapshots = new Map<string, Snapshot>();
  readonly #key = randomBytes(16);

  constructor(store: Store) {
    this.#store = store;
  }

  /** All continue tokens given so far are good no more (410), as after a compaction of etcd. */
  expire(): void {
    this.#snapshots.clear();
  }

  list({ resource, namespace, selector, query }: ListOptions) {
    const limit = numberIn(query, "limit");
    const token = query.get("continue") ?? "";
    const { snapshot, start } = token === "" ? this.#fresh(resource, namespace) : this.#resumed(token);
    const selected = snapshot.objects.filter(({ metadata }) => selector(metadata.labels));
    const end = limit > 0 ? Math.min(start + limit, selected.length) : selected.length;
    const rest = selected.length - end;
    return {
      kind: `${KINDS[resource]}List`,
      apiVersion: "v1",
      metadata: {
        resourceVersion: String(snapshot.version),
        ...(rest > 0 ? { continue: this.#token(snapshot, end) } : {}),
        // With a selector the API server does not know what remains.
        ...(rest > 0 && !query.get("labelSelector") ? { remainingItemCount: rest } : {}),
      },
      items: selected.slice(start, end),
    };
  }

  #fresh(resource: Resource, namespace: string | undefined): { snapshot: Snapshot; start: number } {
    return { snapshot: { version: this.#store.version, objects: this.#store.list(resource, namespace) }, start: 0 };
  }

  #token(snapshot: Snapshot, start: number): string {
    const id = `${snapshot.version}-${createHmac("sha256", this.#key)
      .update(snapshot.objects.map(({ metadata }) => metadata.uid).join())
      .digest("hex")
      .slice(0, 16)}`;
    this.#snapshots.set(id, snapshot);
    return Buffer.from(JSON.stringify({ v: "meta.k8s.io/v1", id, start })).toString("base64url");
  }

  #resumed(token: string): { snapshot: Snapshot; start: number } {
    const { id, start } = decode(token);
    const snapshot = this.#snapshots.get(id);
    if (snapshot !== undefined) return { snapshot, start };
    throw expired(
      "The provided continue parameter is too old to display a consistent list result. You can start a new list without " +
        "the continue parameter.",
    );
  }
}

/** Where a token says that the list goes on. Throws 400 for what is none. */
function decode(token: string): { id: string; start: number } {
  const value: unknown = ((text: string) => {
    try {
      return JSON.parse(text);
    } catch {
      return undefined; // told below
    }
  })(Buffer.from(token, "base64url").toString());
  if (!isObject(value)) throw badRequest("continue key is not valid: encoding is not valid");
  const { id, start } = value;
  if (typeof id !== "string" || typeof start !== "number")
    throw badRequest("continue key is not valid: incorrect encoding");
  return { id, start };
}

/** A number of the query; what is none counts as 0. */
export const numberIn = (query: URLSearchParams, name: string): number => Number(query.get(name) ?? 0) || 0;
