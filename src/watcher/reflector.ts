import type { Kube } from "../kube/client.ts";
import { KubeError, noAnswer } from "../kube/error.ts";
import type { Pod } from "../kube/types.ts";
import { MANAGED_SELECTOR } from "../pod/names.ts";
import type { Backoff } from "../time.ts";
import { compareVersions, identityOf } from "./cache.ts";

/** A watch is ended by the server after 25 to 30 s: its clean end proves the connection alive. */
const WATCH_SECONDS = { min: 25, spread: 6 };
/** A watch that was younger when it ended is taken for a failure, whatever it delivered before. */
const SHORT_WATCH_MS = 5_000;
/** An event this long after the start of its watch shows that the server is well again. */
const LIFE_MS = 1_000;

export interface ReflectorOptions {
  readonly kube: Pick<Kube, "pods">;
  /** Where the facts go. */
  readonly sink: {
    beforeList(): void;
    listed(pods: readonly Pod[], version: string): void;
    applied(pod: Pod): void;
    deleted(pod: Pod): void;
    /** Everything up to this version has been told. */
    reached(version: string): void;
    /** A watch ended as it should: nothing was held back. */
    proven(): void;
    /** A list or watch failed. `cause` is a word for a metric. */
    failed(error: unknown, cause: string): void;
  };
  /** How long ago the state was last proven, in ms. */
  readonly unprovenMs: () => number;
  /** Beyond this the state is listed anew instead of being watched on, in ms. */
  readonly relistAfterMs: number;
  readonly backoff: Pick<Backoff, "wait" | "reset">;
  readonly shortWatchMs?: number | undefined;
  readonly lifeMs?: number | undefined;
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

  constructor(options: ReflectorOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { backoff, sink, relistAfterMs, unprovenMs } = this.#options;
    while (!signal.aborted) {
      let retryAfterMs = 0;
      let alive = false;
      try {
        if (this.#version === "") await this.#list(signal);
        alive = await this.#watch(signal);
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

  /** A consistent list, page by page; all or nothing. */
  async #list(signal: AbortSignal): Promise<void> {
    const { kube, sink } = this.#options;
    this.stats.lists++;
    sink.beforeList();
    const { items, version } = await kube.pods.listAll({ labelSelector: MANAGED_SELECTOR, signal });
    this.#version = version;
    sink.listed(items, version);
  }

  /** One watch to its end; whether it was a sign of life. */
  async #watch(signal: AbortSignal): Promise<boolean> {
    const {
      kube,
      sink,
      backoff,
      shortWatchMs = SHORT_WATCH_MS,
      lifeMs = LIFE_MS,
      random = Math.random,
    } = this.#options;
    this.stats.watches++;
    const timeoutSeconds = WATCH_SECONDS.min + Math.floor(random() * WATCH_SECONDS.spread);
    const startedAt = performance.now();
    let disordered = false;
    const options = { labelSelector: MANAGED_SELECTOR, resourceVersion: this.#version, timeoutSeconds, signal };
    try {
      for await (const { type, object } of kube.pods.watch(options)) {
        const version = object.metadata?.resourceVersion ?? "";
        if (!/^\d+$/.test(version)) throw noAnswer("a watch event without a resource version");
        if (type !== "BOOKMARK") {
          if (identityOf(object) === undefined) throw noAnswer("a watch event without a name or uid");
          if (type === "DELETED") sink.deleted(object);
          else sink.applied(object);
        }
        const order = compareVersions(version, this.#version);
        if (order > 0) this.#version = version;
        disordered ||= order < 0;
        sink.reached(this.#version);
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
    backoff.reset();
    sink.proven();
    return true;
  }
}

function causeOf(error: unknown): string {
  if (!(error instanceof KubeError)) return "error";
  if (error.gone) return "gone";
  return error.status === 0 ? "connection" : String(error.status);
}
