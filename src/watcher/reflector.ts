import type { WatchEvent } from "../kube/answer.ts";
import type { Kube } from "../kube/client.ts";
import { KubeError, noAnswer } from "../kube/error.ts";
import type { Pod } from "../kube/types.ts";
import { MANAGED_SELECTOR } from "../pod/names.ts";
import type { Backoff } from "../time.ts";
import { compareVersions, lean } from "./cache.ts";

/** A watch is ended by the server after 25 to 30 s: its clean end proves the connection alive. */
const WATCH_SECONDS = { min: 25, spread: 6 };
/** One that the server has not ended so long after that is taken for dead, however many bytes it trickles. */
const OVERTIME_MS = 5_000;
/** A watch that was younger when it ended is taken for a failure, whatever it delivered before. */
const SHORT_WATCH_MS = 5_000;
/** An event this long after the start of its watch shows that the server is well again. */
const LIFE_MS = 1_000;
/** On the bookmark that ends the Pods which a watch begins with (KEP-3157). */
const INITIAL_EVENTS_END = "k8s.io/initial-events-end";

/** Where the facts go. */
export interface Sink {
  beforeList(): void;
  /** These Pods and no others, as of this version. */
  listed(pods: readonly Pod[], version: string): void;
  event(type: "applied" | "deleted", pod: Pod): void;
  /** Everything up to this version has been told. */
  reached(version: string): void;
  /** A watch ended as it should: nothing was held back. */
  proven(): void;
  /** A list or watch failed. `cause` is a word for a metric. */
  failed(error: unknown, cause: string): void;
}

/** For tests, in place of the constants above. */
export interface WatchTiming {
  readonly watchSeconds?: { readonly min: number; readonly spread: number };
  readonly overtimeMs?: number;
  readonly shortWatchMs?: number;
  readonly lifeMs?: number;
}

export interface ReflectorOptions {
  readonly kube: Pick<Kube, "pods">;
  readonly sink: Sink;
  /** How long ago the state was last proven, in ms. */
  readonly unprovenMs: () => number;
  /** Beyond this the state is listed anew instead of being watched on, in ms. */
  readonly relistAfterMs: number;
  readonly backoff: Pick<Backoff, "wait" | "reset">;
  readonly timing?: WatchTiming;
  readonly random?: () => number;
}

/**
 * LIST, then WATCH from there, for ever: everything that happened to our Pods, told to `sink` (as client-go's Reflector
 * does). Any doubt leads to a new LIST, so nothing is missed; faults make it slow, never hectic. Ends when aborted.
 */
export class Reflector {
  readonly stats = { lists: 0, watches: 0 };
  readonly #options: ReflectorOptions;
  /** Where to watch on from; empty: list first. */
  #version = "";
  /** Whether a watch may begin with the list: not where the server refuses that, nor right after it failed. */
  #streaming: "yes" | "not now" | "refused" = "yes";

  constructor(options: ReflectorOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { backoff, sink, relistAfterMs, unprovenMs } = this.#options;
    while (!signal.aborted) {
      let retryAfterMs = 0;
      let alive = false;
      try {
        const listing = this.#version === "" ? await this.#list(signal) : undefined;
        alive = await this.#watch(listing, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof KubeError && error.gone) this.#version = "";
        if (error instanceof KubeError) retryAfterMs = (error.retryAfterSeconds ?? 0) * 1000;
        sink.failed(error, causeOf(error));
      }
      // Watches that end at once tell nothing, not even that their version has expired; silence tells as little.
      if (unprovenMs() >= relistAfterMs) this.#version = "";
      if (!alive) await backoff.wait(signal, retryAfterMs).catch(() => undefined); // aborted: the loop ends
    }
  }

  /** A consistent list, all or nothing. Returns the watch that it came with, if it came with one. */
  async #list(signal: AbortSignal): Promise<Watch | undefined> {
    const { kube, sink } = this.#options;
    this.stats.lists++;
    sink.beforeList();
    if (this.#streaming === "yes") {
      try {
        return await this.#streamedList(signal);
      } catch (error) {
        const refused = error instanceof KubeError && (error.status === 400 || error.status === 422);
        this.#streaming = refused ? "refused" : "not now";
        if (!refused) throw error;
      }
    }
    const { items, version } = await kube.pods.listAll({ labelSelector: MANAGED_SELECTOR, signal });
    if (this.#streaming === "not now") this.#streaming = "yes";
    this.#version = version;
    sink.listed(items, version);
    return undefined;
  }

  /** The list as the first events of a watch, one Pod at a time, which spares the server and us the whole of it as one text. */
  async #streamedList(signal: AbortSignal): Promise<Watch> {
    const watch = this.#open({ sendInitialEvents: true }, signal);
    const pods = new Map<string, Pod>();
    for (;;) {
      const { done, value: event } = await watch.events.next();
      if (done) throw noAnswer("the watch ended before all that it was to begin with");
      const version = requireVersion(event);
      const { name = "", annotations } = event.object.metadata ?? {};
      if (event.type === "DELETED") pods.delete(name);
      else if (event.type !== "BOOKMARK") pods.set(name, lean(event.object));
      else if (annotations?.[INITIAL_EVENTS_END] === "true") {
        this.#version = version;
        this.#options.sink.listed([...pods.values()], version);
        return watch;
      }
    }
  }

  #open(from: { resourceVersion: string } | { sendInitialEvents: true }, signal: AbortSignal): Watch {
    const {
      kube,
      timing: { watchSeconds = WATCH_SECONDS, overtimeMs = OVERTIME_MS } = {},
      random = Math.random,
    } = this.#options;
    const timeoutSeconds = watchSeconds.min + Math.floor(random() * watchSeconds.spread);
    const totalMs = timeoutSeconds * 1000 + overtimeMs;
    const events = kube.pods.watch({ labelSelector: MANAGED_SELECTOR, ...from, timeoutSeconds, totalMs, signal });
    return { events, startedAt: performance.now() };
  }

  /** One watch to its end; whether it was a sign of life. */
  async #watch(begun: Watch | undefined, signal: AbortSignal): Promise<boolean> {
    const { sink, backoff, timing: { shortWatchMs = SHORT_WATCH_MS, lifeMs = LIFE_MS } = {} } = this.#options;
    if (begun === undefined) this.stats.watches++; // one that came with a list is counted there
    const { events, startedAt } = begun ?? this.#open({ resourceVersion: this.#version }, signal);
    let quiet = true;
    let disordered = false;
    try {
      for await (const event of events) {
        const version = requireVersion(event);
        if (event.type === "BOOKMARK") sink.reached(version);
        else sink.event(event.type === "DELETED" ? "deleted" : "applied", event.object);
        quiet = false;
        const order = compareVersions(version, this.#version);
        if (order > 0) this.#version = version;
        disordered ||= order < 0;
        if (performance.now() - startedAt >= lifeMs) backoff.reset();
      }
    } finally {
      // What comes late may also be lost between two watches: only a list is certain then.
      if (disordered) this.#version = "";
    }
    if (performance.now() - startedAt < shortWatchMs) {
      sink.failed(noAnswer("the watch was ended early"), "short");
      return false;
    }
    if (quiet && !(await this.#countsOn(signal))) {
      sink.failed(noAnswer("the cluster counts from a lower version"), "restored");
      this.#version = "";
      return true;
    }
    backoff.reset();
    sink.proven();
    return true;
  }

  /**
   * Whether the cluster has not gone back behind our version, as one does whose etcd was restored: a watch from a version
   * that is still to come is silent and ends well. One that told anything, if only a bookmark, needs no such question.
   */
  async #countsOn(signal: AbortSignal): Promise<boolean> {
    const { metadata } = await this.#options.kube.pods.list({ labelSelector: MANAGED_SELECTOR, limit: 1, signal });
    return compareVersions(metadata.resourceVersion, this.#version) >= 0;
  }
}

interface Watch {
  readonly events: AsyncGenerator<WatchEvent<Pod>, void>;
  readonly startedAt: number;
}

/** The event's resource version. Throws when it has none, or, but for a bookmark, no name or uid. */
function requireVersion({ type, object }: WatchEvent<Pod>): string {
  const { name, uid, resourceVersion: version = "" } = object.metadata ?? {};
  if (!/^\d+$/.test(version)) throw noAnswer("a watch event without a resource version");
  if (type !== "BOOKMARK" && !(name && uid)) throw noAnswer("a watch event without a name or uid");
  return version;
}

function causeOf(error: unknown): string {
  if (!(error instanceof KubeError)) return "error";
  if (error.gone) return "gone";
  return error.status === 0 ? "connection" : String(error.status);
}
