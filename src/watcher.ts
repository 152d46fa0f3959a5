import { unreachable } from "./errors.ts";
import type { Kube } from "./kube/client.ts";
import type { Pod } from "./kube/types.ts";
import type { Log } from "./log.ts";
import { isManaged, MANAGED_SELECTOR, podName, workloadIdOf } from "./pod/names.ts";
import { claimsOf } from "./pod/status.ts";
import { Backoff } from "./time.ts";
import { type CachedPod, type Change, compareVersions, hasLabels, lean, PodCache, versionOf } from "./watcher/cache.ts";
import { Freshness } from "./watcher/freshness.ts";
import { Listeners } from "./watcher/listeners.ts";
import { LiveReads } from "./watcher/live.ts";
import { Reflector, type WatchTiming } from "./watcher/reflector.ts";
import { type FreshnessOutcome, WatcherStats } from "./watcher/stats.ts";
import { Waiters } from "./watcher/waiters.ts";

export type { CachedPod, Change, PodChanges } from "./watcher/cache.ts";

/** The state counts as live so long after its last proof: a list, an event, a bookmark, the end of a whole watch. */
const STALE_MS = 45_000;
/** After so long without a proof, the reflector lists instead of watching on. */
const RELIST_AFTER_MS = 30_000;
/** How long a read waits for the first sync. */
const SYNC_WAIT_MS = 5_000;
/**
 * How long a read waits for the watch to bring our own write before it asks the API itself, in ms: usually 1 to 10. A list
 * waits longer the more Pods there are, as asking costs more.
 */
const FRESH_WAIT_MS = 25;
const FRESH_WAIT_MS_PER_POD = 0.1;
/** Delays between failing lists and watches; at most some 30 a minute, and back within 5 s of the server. */
const BACKOFF = { minMs: 250, maxMs: 3_000 };
/** Two `watch failed` lines are at least so far apart. */
const LOG_MS = 500;

export interface WatcherOptions {
  readonly kube: Kube;
  readonly log: Log;
  /** For tests. */
  readonly tuning?: WatchTiming & {
    staleMs?: number;
    relistAfterMs?: number;
    syncWaitMs?: number;
    freshWaitMs?: number;
    backoff?: { minMs: number; maxMs: number };
  };
}

/**
 * The informer: what LIST and WATCH say about our Pods, and the reads that every answer about them comes from. Absence is
 * told only when it is proven, by a live cache that has seen our own writes or by the API server (ruling 5).
 */
export class PodWatcher {
  readonly stats = new WatcherStats();
  readonly #log: Log;
  readonly #tuning: NonNullable<WatcherOptions["tuning"]>;
  readonly #cache = new PodCache();
  readonly #reflector: Reflector;
  readonly #live: LiveReads;
  readonly #freshness = new Freshness();
  /** Pods that the API says are gone while the cache still has them, by uid: a uid never comes back. */
  readonly #goneUids = new Set<string>();
  readonly #listeners: Listeners;
  /** Woken after anything became known: a change, a version, a proof. */
  readonly #waiters = new Waiters();
  #provenAt = Number.NEGATIVE_INFINITY;
  #synced = false;
  #startedAt = performance.now();
  #loggedAt = Number.NEGATIVE_INFINITY;

  constructor({ kube, log, tuning = {} }: WatcherOptions) {
    this.#log = log;
    this.#listeners = new Listeners(log);
    this.#tuning = tuning;
    this.#live = new LiveReads(kube);
    this.#reflector = new Reflector({
      kube,
      backoff: new Backoff(tuning.backoff ?? BACKOFF),
      relistAfterMs: tuning.relistAfterMs ?? RELIST_AFTER_MS,
      unprovenMs: () => performance.now() - this.#provenAt,
      timing: tuning,
      sink: {
        beforeList: () => this.#freshness.beforeList(),
        listed: (pods, version) => this.#listed(pods, version),
        event: (type, pod) => this.#event(type, pod),
        reached: (version) => this.#reached(version),
        proven: () => this.#proven(),
        failed: (error, cause) => this.#failed(error, cause),
      },
    });
  }

  /** Keeps the cache; until aborted, and never throws. */
  run(signal: AbortSignal): Promise<void> {
    this.#startedAt = performance.now();
    return this.#reflector.run(signal);
  }

  /** Synced, and proven within the last 45 s. */
  get live(): boolean {
    return this.unprovenMs < (this.#tuning.staleMs ?? STALE_MS);
  }

  /** Time since the last proof, in ms; Infinity before the first sync. */
  get unprovenMs(): number {
    return this.#synced ? performance.now() - this.#provenAt : Number.POSITIVE_INFINITY;
  }

  /** Resolves once the last proof is less than `ms` old. Rejects with `signal.reason`. */
  untilProven(ms: number, signal: AbortSignal): Promise<true> {
    return this.#waiters.until(() => (this.unprovenMs < ms ? true : undefined), signal);
  }

  get size(): number {
    return this.#cache.size;
  }

  /** Requests made so far, for metrics. */
  get requests(): { readonly lists: number; readonly watches: number; readonly liveReads: number } {
    return { ...this.#reflector.stats, liveReads: this.#live.count };
  }

  /** After a write of ours: the cache must have reached this object's version before it may tell anything else. */
  wrote(pod: Pod): void {
    this.#freshness.await(pod, this.#cache.seen(pod.metadata?.name ?? ""));
  }

  /** The API server said that this Pod is gone: no read tells of it any more, though the cache may still have it. */
  gone({ metadata = {} }: Pod): void {
    const { name = "", uid } = metadata;
    if (uid === undefined || this.#cache.get(name)?.metadata?.uid !== uid) return;
    this.#goneUids.add(uid);
    this.#waiters.wake();
  }

  /**
   * The managed Pod of this workload; undefined: proven absent. From the cache where that is live and has seen our writes,
   * else from the API, asked once. Throws KubeError when that fails, UNAVAILABLE before the first sync.
   */
  async pod(workloadId: string, signal?: AbortSignal): Promise<CachedPod | undefined> {
    const name = podName(workloadId);
    await this.#ready(signal);
    if (this.live && (await this.#fresh(() => !this.#freshness.lacks(name), FRESH_WAIT_MS, signal))) {
      const known = this.#known(name);
      if (known !== undefined) return workloadIdOf(known) === workloadId ? known : undefined;
    }
    return this.#ask(workloadId, name, signal);
  }

  /** The same where the cache can tell it at once, as nearly always; undefined: ask `pod`. */
  atHand(workloadId: string): CachedPod | undefined {
    const name = podName(workloadId);
    const known = this.live && !this.#freshness.lacks(name) ? this.#known(name) : undefined;
    return known !== undefined && workloadIdOf(known) === workloadId ? known : undefined;
  }

  /** What the cache has of this workload, at no cost. Nothing is proven by it: a Pod that is not here may be there. */
  peek(workloadId: string): CachedPod | undefined {
    return this.#known(podName(workloadId));
  }

  /** All managed Pods, in the order of their names. Throws as `pod` does. */
  async pods(signal?: AbortSignal): Promise<CachedPod[]> {
    return (await this.#asked(signal)) ?? this.#visible(this.#cache.all());
  }

  /** Those that have all these labels; as fast as the rarest label is rare. */
  async withLabels(labels: Readonly<Record<string, string>>, signal?: AbortSignal): Promise<CachedPod[]> {
    const asked = await this.#asked(signal);
    if (asked === undefined) return this.#visible(this.#cache.withLabels(labels));
    const wanted = Object.entries(labels);
    return asked.filter((pod) => hasLabels(pod, wanted));
  }

  /** Those that mount this claim. */
  async withClaim(claim: string, signal?: AbortSignal): Promise<CachedPod[]> {
    const asked = await this.#asked(signal);
    return asked?.filter((pod) => claimsOf(pod).includes(claim)) ?? this.#visible(this.#cache.withClaim(claim));
  }

  /**
   * The first result of `pick` that is not undefined, over the workload's Pod as it is now or becomes; `pick` gets
   * undefined while the Pod is proven absent. Rejects with `signal.reason`, or with what `pick` throws.
   */
  until<T>(workloadId: string, pick: (pod: CachedPod | undefined) => T | undefined, signal: AbortSignal): Promise<T> {
    const name = podName(workloadId);
    return this.#waiters.until(() => {
      const pod = this.#known(name);
      if (!this.#synced || this.#freshness.lacks(name) || (pod === undefined && !this.live)) return undefined;
      return pick(pod !== undefined && workloadIdOf(pod) === workloadId ? pod : undefined);
    }, signal);
  }

  /** Every change from now on. A listener that throws is logged and kept. Returns the way to end it. */
  subscribe(listener: (change: Change) => void): () => void {
    return this.#listeners.add(listener);
  }

  /** The same, after every Pod as it is now, as if it had just been applied. */
  follow(listener: (change: Change) => void): () => void {
    for (const pod of this.#cache.all()) this.#listeners.call(listener, { type: "applied", pod });
    return this.subscribe(listener);
  }

  /** All Pods as the API has them; undefined when the cache itself may answer. */
  async #asked(signal: AbortSignal | undefined): Promise<CachedPod[] | undefined> {
    await this.#ready(signal);
    const waitMs = FRESH_WAIT_MS + this.#cache.size * FRESH_WAIT_MS_PER_POD;
    if (this.live && (await this.#fresh(() => this.#freshness.lacking === 0, waitMs, signal))) return undefined;
    const { items: pods, version } = await this.#live.list(MANAGED_SELECTOR, signal);
    // No later read may tell of an earlier state: neither of these Pods, nor of those that are not among them any more.
    const uids = new Set(pods.map((pod) => pod.metadata?.uid));
    for (const pod of pods) this.wrote(pod);
    for (const pod of this.#cache.all())
      if (!uids.has(pod.metadata?.uid) && compareVersions(versionOf(pod), version) <= 0) this.gone(pod);
    // The cache may have come to know more meanwhile.
    if (this.live && this.#freshness.lacking === 0 && compareVersions(this.#cache.version, version) >= 0)
      return undefined;
    return pods.filter(isManaged).map(lean);
  }

  /** The API's own answer, unless the cache has come to know more meanwhile. */
  async #ask(workloadId: string, name: string, signal: AbortSignal | undefined): Promise<CachedPod | undefined> {
    const before = this.#cache.get(name);
    const pod = await this.#live.pod(name, signal);
    if (before !== undefined && before.metadata?.uid !== pod?.metadata?.uid) this.gone(before);
    if (pod === undefined) return undefined;
    this.wrote(pod); // no later read may tell of an earlier state
    const known = this.#known(name);
    const newest = known !== undefined && compareVersions(versionOf(known), versionOf(pod)) > 0 ? known : pod;
    return isManaged(newest) && workloadIdOf(newest) === workloadId ? lean(newest) : undefined;
  }

  #visible(pods: CachedPod[]): CachedPod[] {
    return this.#goneUids.size === 0 ? pods : pods.filter(({ metadata }) => !this.#goneUids.has(metadata?.uid ?? ""));
  }

  /** What the cache has of this name, but for a Pod that the API told is gone. */
  #known(name: string): CachedPod | undefined {
    const pod = this.#cache.get(name);
    return pod === undefined || this.#goneUids.has(pod.metadata?.uid ?? "") ? undefined : pod;
  }

  async #ready(signal: AbortSignal | undefined): Promise<void> {
    const waitMs = this.#tuning.syncWaitMs ?? SYNC_WAIT_MS;
    if (!(await this.#waiters.within(() => this.#synced, waitMs, signal))) throw unreachable();
  }

  /** Whether `isFresh` holds, or comes to hold soon. A watch that is known to be later than that is not waited for. */
  async #fresh(isFresh: () => boolean, maxWaitMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    if (isFresh()) return true;
    const { freshnessWaits } = this.stats;
    const waitMs = this.#tuning.freshWaitMs ?? maxWaitMs;
    let outcome: FreshnessOutcome = "left";
    try {
      if (this.#freshness.lateMs > waitMs) outcome = "skipped";
      else outcome = (await this.#waiters.within(isFresh, waitMs, signal)) ? "told" : "late";
    } finally {
      freshnessWaits.add(outcome);
    }
    return outcome === "told";
  }

  #listed(pods: readonly Pod[], version: string): void {
    const changes = this.#cache.replace(pods, version);
    this.#freshness.listed(version);
    if (!this.#synced) {
      this.#synced = true;
      this.#log.info({ pods: this.#cache.size, ms: Math.round(performance.now() - this.#startedAt) }, "cache synced");
    }
    this.#tell(changes);
    this.#proven();
  }

  #event(type: Change["type"], pod: Pod): void {
    const changes = this.#cache.apply(type, pod);
    this.#freshness.seen(pod.metadata?.name ?? "", versionOf(pod));
    this.#tell(changes);
    this.#proven();
  }

  #tell(changes: readonly Change[]): void {
    for (const change of changes) {
      this.stats.lastEventAt = performance.now();
      if (change.type === "deleted") this.#goneUids.delete(change.pod.metadata?.uid ?? "");
      this.#listeners.tell(change);
    }
  }

  #reached(version: string): void {
    this.#freshness.reached(version);
    if (compareVersions(version, this.#cache.version) > 0) this.#cache.version = version;
    this.#proven();
  }

  #proven(): void {
    this.#provenAt = performance.now();
    this.#waiters.wake();
  }

  #failed(error: unknown, cause: string): void {
    this.stats.failures.set(cause, (this.stats.failures.get(cause) ?? 0) + 1);
    const now = performance.now();
    if (now - this.#loggedAt < LOG_MS) return;
    this.#loggedAt = now;
    this.#log.warn({ cause, error }, "watch failed");
  }
}
