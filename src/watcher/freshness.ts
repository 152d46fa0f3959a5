import type { Pod } from "../kube/types.ts";
import { compareVersions } from "./cache.ts";

/**
 * Which versions the cache must still reach before it may tell of a Pod again, and how late the watch is with them.
 * A Pod's own event brings its version, and so does a list or bookmark, which tells of all Pods; another Pod's event does
 * not, whatever its version: events may come in another order than they happened.
 */
export class Freshness {
  readonly #awaited = new Map<string, { readonly version: string; readonly since: number }>();
  /** `#awaited` as it was when the running list began: the list contains all of it. */
  #beforeList = new Map<string, unknown>();
  /** Everything up to this version has been told. */
  #told = "";
  /** How long the last awaited version took to come, in ms. */
  #lastMs = 0;

  /** How many Pods the cache must not tell of yet. */
  get lacking(): number {
    return this.#awaited.size;
  }

  lacks(name: string): boolean {
    return this.#awaited.has(name);
  }

  /** How late the watch is, in ms: what it owes for longest, or what it took to bring the last one. */
  get lateMs(): number {
    // Entries are in the order of their time.
    for (const { since } of this.#awaited.values()) return Math.max(this.#lastMs, performance.now() - since);
    return this.#lastMs;
  }

  /** The cache, which has seen this Pod at version `seen`, must reach this state of it. */
  await({ metadata = {} }: Pod, seen: string): void {
    const { name, resourceVersion: version } = metadata;
    if (!name || !version) return;
    const known = [seen, this.#told, this.#awaited.get(name)?.version ?? ""];
    if (known.some((one) => compareVersions(one, version) >= 0)) return;
    this.#awaited.delete(name); // to the end of the line
    this.#awaited.set(name, { version, since: performance.now() });
  }

  /** An event of this Pod has come. */
  seen(name: string, version: string): void {
    const awaited = this.#awaited.get(name);
    if (awaited !== undefined && compareVersions(awaited.version, version) <= 0) this.#came(name, awaited);
  }

  /** Everything up to this version has been told. */
  reached(version: string): void {
    if (compareVersions(version, this.#told) > 0) this.#told = version;
    for (const [name, awaited] of this.#awaited)
      if (compareVersions(awaited.version, version) <= 0) this.#came(name, awaited);
  }

  beforeList(): void {
    this.#beforeList = new Map(this.#awaited);
  }

  /** The list contains what was written before it began, even where a restored etcd counts from lower versions now. */
  listed(version: string): void {
    for (const [name, awaited] of this.#awaited) if (this.#beforeList.get(name) === awaited) this.#came(name, awaited);
    this.#told = version;
    this.reached(version);
  }

  #came(name: string, { since }: { readonly since: number }): void {
    this.#awaited.delete(name);
    this.#lastMs = performance.now() - since;
  }
}
