import { randomUUID } from "node:crypto";
import { Tally } from "../figures.ts";
import { ExecExitReason, ExecExitReasonSchema } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { Images } from "./images.ts";

/** setTimeout takes 31 bits of milliseconds and fires at once above them; longer limits are re-armed (facts of the runtime). */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Why an execution is ended before its process ended. The first cause wins: `abort(reason)` keeps the first reason. */
export class Cut {
  readonly reason: ExecExitReason;
  /** Whether the processes are to be killed in the container (ruling 4). */
  readonly kill: boolean;
  /** For the log, where the reason alone says too little. */
  readonly detail: string | undefined;

  constructor(reason: ExecExitReason, { kill = false, detail }: { kill?: boolean; detail?: string } = {}) {
    this.reason = reason;
    this.kill = kill;
    this.detail = detail;
  }

  /** The code that goes with the reason when the process' own is not known (6.16.5). */
  get exitCode(): number {
    return this.reason === ExecExitReason.CANCELLED ? 0 : -1;
  }
}

const SHUT_DOWN = new Cut(ExecExitReason.CANCELLED, { detail: "the runner is shutting down" });

export interface ExecutionLimits {
  /** Milliseconds from the start; 0: none. */
  readonly timeoutMs: number;
  /** Milliseconds without a message or output; 0: none. */
  readonly idleTimeoutMs: number;
  readonly killOnTimeout: boolean;
}

/** One running execution: its id, its limits, and the one signal that ends it early. */
export class Execution implements Disposable {
  readonly id = randomUUID();
  readonly startedAt = new Date();
  readonly #controller = new AbortController();
  readonly #over = new AbortController();
  readonly #release: () => void;
  readonly #wall: LongTimer | undefined;
  readonly #idle: LongTimer | undefined;
  #exit: ExecExitReason | undefined;

  constructor(limits: ExecutionLimits, release: (execution: Execution) => void) {
    this.#release = () => release(this);
    const kill = limits.killOnTimeout;
    if (limits.timeoutMs > 0)
      this.#wall = new LongTimer(limits.timeoutMs, () => this.cut(new Cut(ExecExitReason.TIMEOUT, { kill })));
    if (limits.idleTimeoutMs > 0)
      this.#idle = new LongTimer(limits.idleTimeoutMs, () => this.cut(new Cut(ExecExitReason.IDLE_TIMEOUT, { kill })));
  }

  /** Aborts with a Cut when the execution is to end early. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The cause of the early end; undefined while there is none. */
  get cutBy(): Cut | undefined {
    return this.signal.reason instanceof Cut ? this.signal.reason : undefined;
  }

  /** Ends the execution; a later cause changes nothing. */
  cut(cause: Cut): void {
    this.#controller.abort(cause);
  }

  /** Why it ended, as its caller is told; cancelled, where nobody is left to be told. */
  get endedBy(): ExecExitReason {
    return this.#exit ?? this.cutBy?.reason ?? ExecExitReason.CANCELLED;
  }

  /** The reason that its exit event gives. */
  exited(reason: ExecExitReason): void {
    this.#exit = reason;
  }

  /** A message or output passed: the idle time begins anew. */
  touch(): void {
    this.#idle?.restart();
  }

  /** Aborts when the execution has ended, however it did: whatever waits on its behalf ends with it. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  [Symbol.dispose](): void {
    this.#wall?.stop();
    this.#idle?.stop();
    this.#over.abort();
    this.#release();
  }
}

/** The running executions of this process (6.17: a restart forgets them, for they end with it). */
export class Executions {
  readonly images = new Images();
  /** Those that have ended, by reason, for metrics. */
  readonly ended = new Tally(REASONS);
  readonly #running = new Map<string, Execution>();
  /** Resolves when the last one has gone after `end`. */
  #end: PromiseWithResolvers<void> | undefined;

  open(limits: ExecutionLimits): Execution {
    const execution = new Execution(limits, ({ id, endedBy }) => {
      if (this.#running.delete(id)) this.ended.add(reasonName(endedBy));
      if (this.#running.size === 0) this.#end?.resolve();
    });
    this.#running.set(execution.id, execution);
    if (this.#end !== undefined) execution.cut(SHUT_DOWN);
    return execution;
  }

  /** Cancels all, and those that still come; resolves when each has told its exit to who reads it. */
  end(): Promise<void> {
    this.#end ??= Promise.withResolvers();
    for (const execution of this.#running.values()) execution.cut(SHUT_DOWN);
    if (this.#running.size === 0) this.#end.resolve();
    return this.#end.promise;
  }

  /** False for one that is not known or has ended; true also when another cause came first. */
  cancel(id: string, force: boolean): boolean {
    const execution = this.#running.get(id);
    execution?.cut(new Cut(ExecExitReason.CANCELLED, { kill: force }));
    return execution !== undefined;
  }

  get size(): number {
    return this.#running.size;
  }
}

const REASONS = ["completed", "timeout", "idle_timeout", "cancelled", "runner_error"] as const;

function reasonName(reason: ExecExitReason): (typeof REASONS)[number] {
  const { localName = "" } = ExecExitReasonSchema.value[reason] ?? {};
  return REASONS.find((name) => name.toUpperCase() === localName) ?? "runner_error";
}

/** A one-shot timer of any length that can be restarted at the cost of a clock reading. */
class LongTimer {
  readonly #ms: number;
  readonly #fire: () => void;
  #due: number;
  #timer: Timer | undefined;

  constructor(ms: number, fire: () => void) {
    this.#ms = ms;
    this.#fire = fire;
    this.#due = performance.now() + ms;
    this.#arm();
  }

  restart(): void {
    this.#due = performance.now() + this.#ms; // the running timer finds out when it fires
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(): void {
    const left = this.#due - performance.now();
    this.#timer = setTimeout(
      () => {
        if (performance.now() >= this.#due) this.#fire();
        else this.#arm();
      },
      Math.min(Math.max(left, 1), LONGEST_TIMER_MS),
    );
  }
}
