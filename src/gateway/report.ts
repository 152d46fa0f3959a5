import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { Tally } from "../figures.ts";
import { WorkloadStatus } from "../gen/agynio/api/runners/v1/runners_pb.ts";
import type { Log } from "../log.ts";
import { workloadIdOf } from "../pod/names.ts";
import { boundedSignal, sleep } from "../time.ts";
import type { CachedPod, Change, PodChanges } from "../watcher.ts";
import type { Gateway, StateReport } from "./client.ts";
import { Slots } from "./slots.ts";
import { changedAtMs, type ReportedStatus, reportedContainersOf, statusOf } from "./state.ts";

/** process.md 5.2. */
const TIMING = {
  /** Longest time of a call. */
  callMs: 10_000,
  /** Before the second and the third attempt, which is the last. */
  waitsMs: [1_000, 2_000] as readonly number[],
  /** What was not accepted is tried again so often. */
  replayMs: 30_000,
};
/** Calls at a time: enough that slow answers to some do not hold up the others, few enough for any gateway. */
const CALLS = 64;
/** A workload whose reports the platform does not apply is left out of at most so many replays in a row: 8 minutes. */
const MAX_REST = 15;

export interface ReporterOptions {
  readonly pods: PodChanges;
  readonly gateway: Pick<Gateway, "reportState">;
  readonly log: Log;
  /** For tests. */
  readonly timing?: Partial<typeof TIMING>;
  /** Unix ms; for tests. */
  readonly now?: () => number;
}

/** What comes of a report that was sent. */
export const REPORT_OUTCOMES = ["applied", "not_applied", "failed"] as const;

/** Plain figures for metrics. */
export interface StateReports {
  /** Workloads with a report that the platform has not accepted yet. */
  readonly pending: number;
  readonly sent: Tally<(typeof REPORT_OUTCOMES)[number]>;
}

type Report = StateReport & { readonly status: ReportedStatus };

/** What is known of one workload's reports. At most one report of it is held, its newest. */
class Workload {
  /** Undefined when its Pod is gone. */
  pod: CachedPod | undefined;
  /** What the platform knows, as far as it matters: the same is not told twice. */
  told: ReportedStatus | undefined;
  wanted: Report | undefined;
  /** The platform knows no such workload of ours: nothing more of this Pod is told. */
  refused = false;
  delivering = false;
  lastObservedMs = 0;
  /** Replays that it is still left out of, and how many it was left out of last. */
  rest = { left: 0, last: 0 };
  /** What was logged as failed: once for each state. */
  logged: ReportedStatus | undefined;
  /** Ends the wait for the next attempt. */
  hurry: AbortController | undefined;
  readonly id: string;

  constructor(id: string) {
    this.id = id;
  }

  /** Another Pod, or none: nothing of what was told holds. */
  reset(): void {
    this.told = undefined;
    this.wanted = undefined;
    this.refused = false;
    this.rest = { left: 0, last: 0 };
    this.logged = undefined;
    this.hurry?.abort();
  }
}

/**
 * Tells the platform which workloads run and which have failed, as seen by the watcher (process.md 5.2, fault table REPORT).
 * Reports of one workload go one after another, the newest state only; those of different workloads do not wait for each
 * other. Nothing of it is waited for by anything else.
 */
export class StateReporter implements StateReports {
  readonly sent = new Tally(REPORT_OUTCOMES);
  readonly #options: ReporterOptions;
  readonly #timing: typeof TIMING;
  readonly #now: () => number;
  readonly #workloads = new Map<string, Workload>();
  readonly #slots = new Slots(CALLS);
  /** Aborts when nothing is reported any more. */
  readonly #over = new AbortController();
  readonly #deliveries = new Set<Promise<void>>();
  #clockMs = 0;

  constructor(options: ReporterOptions) {
    this.#options = options;
    this.#timing = { ...TIMING, ...options.timing };
    this.#now = options.now ?? Date.now;
  }

  /** Workloads with a report that the platform has not accepted yet, for metrics. */
  get pending(): number {
    return [...this.#workloads.values()].filter(({ wanted }) => wanted !== undefined).length;
  }

  /** Workloads that are kept in mind, for metrics. */
  get size(): number {
    return this.#workloads.size;
  }

  /** Reports until aborted, or until the platform turns out to take no reports. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    const end = () => this.#end(signal.reason);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    let stop: (() => void) | undefined;
    try {
      stop = this.#options.pods.follow((change) => this.#take(change));
      for (;;) {
        await sleep(this.#timing.replayMs, this.#over.signal);
        for (const workload of this.#workloads.values()) this.#replay(workload);
      }
    } catch (error) {
      if (!this.#over.signal.aborted) this.#options.log.warn({ error }, "workload state reporting stopped");
    } finally {
      stop?.();
      signal.removeEventListener("abort", end);
      this.#end(new Error("reporting has stopped"));
      await Promise.all(this.#deliveries);
    }
  }

  /** Waits up to `ms` for what is under way. */
  async flush(ms: number): Promise<void> {
    using limit = boundedSignal(ms, this.#over.signal);
    const { promise: late, resolve } = Promise.withResolvers<void>();
    if (limit.signal.aborted) resolve();
    limit.signal.addEventListener("abort", () => resolve(), { once: true });
    await Promise.race([Promise.all(this.#deliveries), late]);
  }

  #end(reason: unknown): void {
    this.#over.abort(reason);
    this.#workloads.clear();
  }

  #take({ type, pod }: Change): void {
    const id = workloadIdOf(pod).trim();
    if (id === "" || this.#over.signal.aborted) return;
    const workload = this.#workloads.get(id) ?? new Workload(id);
    const same = workload.pod?.metadata?.uid === pod.metadata?.uid;
    if (type === "deleted") {
      if (same) this.#forget(workload);
      return;
    }
    this.#workloads.set(id, workload);
    if (!same) workload.reset();
    workload.pod = pod;
    this.#look(workload, pod);
  }

  /** Nothing is sent of a Pod that is gone, and the same id reports afresh. */
  #forget(workload: Workload): void {
    workload.pod = undefined;
    workload.reset();
    if (!workload.delivering) this.#workloads.delete(workload.id);
  }

  #replay(workload: Workload): void {
    if (workload.rest.left > 0) workload.rest.left--;
    else if (workload.pod !== undefined) this.#look(workload, workload.pod);
  }

  /** Wants the Pod's state reported if it is not what was told, and nothing else. */
  #look(workload: Workload, pod: CachedPod): void {
    const status = statusOf(pod);
    if (workload.refused || status === workload.wanted?.status) return;
    workload.wanted = undefined; // it does not hold any more
    if (status === undefined || status === workload.told) return;
    const observedAt = timestampFromMs(this.#observe(workload, pod));
    workload.wanted = { workloadId: workload.id, status, observedAt, containers: reportedContainersOf(pod) };
    workload.hurry?.abort();
    if (workload.delivering) return;
    workload.delivering = true;
    const delivery = this.#deliver(workload).finally(() => this.#deliveries.delete(delivery));
    this.#deliveries.add(delivery);
  }

  /** Now, never before the Pod's own change nor before what was told last: clocks differ, and are set back. */
  #observe(workload: Workload, pod: CachedPod): number {
    this.#clockMs = Math.max(this.#clockMs, this.#now());
    workload.lastObservedMs = Math.max(this.#clockMs, changedAtMs(pod), workload.lastObservedMs + 1);
    return workload.lastObservedMs;
  }

  /** Sends what is wanted of this workload until there is nothing more. Never rejects. */
  async #deliver(workload: Workload): Promise<void> {
    const { signal } = this.#over;
    let attempt = 0;
    let last: StateReport | undefined;
    while (workload.wanted !== undefined && !signal.aborted) {
      await this.#slots.take(async () => {
        const { wanted: report, pod } = workload;
        if (report === undefined || signal.aborted) return;
        attempt = report === last ? attempt + 1 : 1;
        last = report;
        workload.told = undefined; // until it is answered, either may be on the platform's record
        const outcome = await this.#send(report);
        if (outcome === "applied") this.#applied(workload, report, pod);
        else if (this.#endsAll(outcome)) return;
        else if (report !== workload.wanted)
          return; // a newer state counts, whatever came of this one
        else if (outcome === "not applied") this.#notApplied(workload);
        else this.#failed(workload, report, outcome, attempt);
      });
      if (workload.wanted === last && last !== undefined) await this.#wait(workload, attempt);
    }
    workload.delivering = false;
    if (workload.pod === undefined && this.#workloads.get(workload.id) === workload)
      this.#workloads.delete(workload.id);
  }

  async #send(report: Report): Promise<"applied" | "not applied" | ConnectError> {
    try {
      const limits = { signal: this.#over.signal, timeoutMs: this.#timing.callMs };
      const applied = await this.#options.gateway.reportState(report, limits);
      this.sent.add(applied ? "applied" : "not_applied");
      return applied ? "applied" : "not applied";
    } catch (error) {
      this.sent.add("failed");
      return ConnectError.from(error);
    }
  }

  async #wait(workload: Workload, attempt: number): Promise<void> {
    const hurry = new AbortController();
    workload.hurry = hurry;
    const end = () => hurry.abort();
    this.#over.signal.addEventListener("abort", end, { once: true });
    if (this.#over.signal.aborted) end();
    await sleep(this.#timing.waitsMs[attempt - 1] ?? 0, hurry.signal).catch(() => undefined); // hurried or over
    this.#over.signal.removeEventListener("abort", end);
    workload.hurry = undefined;
  }

  #applied(workload: Workload, { status }: Report, pod: CachedPod | undefined): void {
    if (workload.pod?.metadata?.uid !== pod?.metadata?.uid) return; // it was about a Pod that is gone
    if (workload.wanted?.status === status) workload.wanted = undefined;
    workload.told = status;
    workload.rest = { left: 0, last: 0 };
    workload.logged = undefined;
  }

  /** Removed on the platform, or its record is newer than our clock: the next replays find out, ever more rarely. */
  #notApplied(workload: Workload): void {
    workload.wanted = undefined;
    workload.told = undefined;
    const { last } = workload.rest;
    workload.rest = { left: last, last: Math.min(2 * last + 1, MAX_REST) };
  }

  #failed(workload: Workload, report: Report, error: ConnectError, attempt: number): void {
    const unknown = error.code === Code.NotFound || error.code === Code.PermissionDenied;
    const invalid = error.code === Code.InvalidArgument;
    if (!unknown && !invalid && attempt <= this.#timing.waitsMs.length) return;
    this.#warn(workload, report, error);
    workload.wanted = undefined;
    workload.refused = unknown;
    // What is invalid now will be so the next time; anything else is forgotten, and the next replay tries again.
    workload.told = invalid ? report.status : undefined;
  }

  /** Whether this is the platform's word that it takes no reports at all. */
  #endsAll(outcome: "not applied" | ConnectError): boolean {
    if (outcome === "not applied" || outcome.code !== Code.Unimplemented) return false;
    if (this.#over.signal.aborted) return true;
    this.#options.log.info("platform does not accept workload state reports; leaving it to reconciliation");
    this.#end(outcome);
    return true;
  }

  /** Once for each state of a workload: a gateway that stays away must not fill the log. */
  #warn(workload: Workload, report: Report, error: ConnectError): void {
    if (this.#over.signal.aborted) return;
    const status = report.status === WorkloadStatus.RUNNING ? "running" : "failed";
    const level = workload.logged === report.status ? "debug" : "warn";
    workload.logged = report.status;
    this.#options.log[level]({ workload_id: workload.id, status, error }, "report workload state");
  }
}
