import type { ServiceImpl } from "@connectrpc/connect";
import { notFound } from "./errors.ts";
import {
  type Health as HealthService,
  HealthCheckResponse_ServingStatus as Status,
} from "./gen/grpc/health/v1/health_pb.ts";
import { type Pages, textPage } from "./http.ts";
import type { Log } from "./log.ts";
import { sleep } from "./time.ts";
import { Waiters } from "./watcher/waiters.ts";

/** After so long without a proof that the cache is in step, calls can no longer be answered well. */
const LOST_MS = 60_000;

export interface HealthOptions {
  /** What the runner's answers come from. */
  readonly cache: {
    /** Since it was last proven to be in step with the cluster; Infinity before the first sync. */
    readonly unprovenMs: number;
    /** Resolves once that is less than so many ms; rejects with `signal.reason`. */
    untilProven(withinMs: number, signal: AbortSignal): Promise<unknown>;
  };
  /** Names of the services that it holds for, beside "", the server as a whole. */
  readonly services: readonly string[];
  /** Aborts when the process begins to end, with the error that endless streams end with. */
  readonly draining: AbortSignal;
  readonly log: Log;
  /** For tests. */
  readonly lostMs?: number;
}

/**
 * Whether this runner can do its work: from the first sync on, while the cluster was heard of within the last minute, and
 * until the process begins to end. One state for gRPC's health service, for `/readyz` and for the log.
 */
export class Health {
  readonly #options: HealthOptions;
  readonly #services: readonly string[];
  readonly #waiters = new Waiters();
  #problem: string | undefined = "the cache has not synced";

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#services = ["", ...options.services];
    options.draining.addEventListener("abort", () => this.#waiters.wake(), { once: true });
  }

  /** Why it is not serving; undefined: it is. */
  get problem(): string | undefined {
    return this.#options.draining.aborted ? "the runner is shutting down" : this.#problem;
  }

  /** Keeps the state; until aborted, and never throws. */
  async run(signal: AbortSignal): Promise<void> {
    const { cache, lostMs = LOST_MS } = this.#options;
    while (!signal.aborted) {
      const leftMs = lostMs - cache.unprovenMs;
      if (leftMs > 0) this.#set(undefined);
      else if (cache.unprovenMs < Number.POSITIVE_INFINITY) this.#set("the cluster has not been heard of for a minute");
      const change = leftMs > 0 ? sleep(leftMs, signal) : cache.untilProven(lostMs, signal);
      await change.catch(() => undefined); // aborted
    }
  }

  /** `/healthz`: the process answers, whatever the cluster does. `/readyz`: it can do its work. */
  get pages(): Pages {
    return {
      "/healthz": () => textPage(200, "ok"),
      "/readyz": () => (this.problem === undefined ? textPage(200, "ok") : textPage(503, this.problem)),
    };
  }

  /** grpc.health.v1.Health. */
  get service(): Required<ServiceImpl<typeof HealthService>> {
    return {
      check: ({ service }) => {
        const status = this.#statusOf(service);
        if (status === Status.SERVICE_UNKNOWN) throw notFound("unknown service");
        return { status };
      },
      list: () => ({
        statuses: Object.fromEntries(this.#services.map((service) => [service, { status: this.#statusOf(service) }])),
      }),
      watch: ({ service }, { signal }) => this.#watch(service, signal),
    };
  }

  /** Every status from now on; ends with the caller, or after the last one when the process begins to end. */
  async *#watch(service: string, signal: AbortSignal): AsyncGenerator<{ status: Status }> {
    const { draining } = this.#options;
    let told: Status | undefined;
    for (;;) {
      told = await this.#waiters.until(() => {
        const status = this.#statusOf(service);
        if (status !== told) return status;
        draining.throwIfAborted();
        return undefined;
      }, signal);
      yield { status: told };
    }
  }

  #statusOf(service: string): Status {
    if (!this.#services.includes(service)) return Status.SERVICE_UNKNOWN;
    return this.problem === undefined ? Status.SERVING : Status.NOT_SERVING;
  }

  #set(problem: string | undefined): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    const { log } = this.#options;
    if (problem === undefined) log.info("health: serving");
    else log.warn({ reason: problem }, "health: not serving");
    this.#waiters.wake();
  }
}
