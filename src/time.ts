/** The longest delay that setTimeout keeps, in ms: above it, it fires at once (2^31 - 1, about 24.8 days). */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Share of a backoff's delay that is left to chance, so that clients which failed together do not come back together. */
const JITTER = 0.25;

/** Resolves after `ms` milliseconds, however many (Infinity: never); rejects with `signal.reason` when aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = startTimer(ms, () => {
      signal?.removeEventListener("abort", abort);
      resolve();
    });
    const abort = () => {
      timer[Symbol.dispose]();
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** The result of `work`; rejects with `signal.reason` when aborted before it is there. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

const NO_TIMER: Disposable = { [Symbol.dispose]: () => undefined };

/** Calls `fire` once after `ms` milliseconds of any size (Infinity: never), unless disposed before. */
export function startTimer(ms: number, fire: () => void): Disposable {
  if (ms === Number.POSITIVE_INFINITY) return NO_TIMER;
  let left = Math.max(0, ms);
  let timer: NodeJS.Timeout;
  const arm = () => {
    const part = Math.min(left, MAX_TIMER_MS);
    left -= part;
    timer = setTimeout(left > 0 ? arm : fire, part);
  };
  arm();
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}

/** Exponential delays from `minMs` to `maxMs`, each shortened by up to a quarter at random. */
export class Backoff {
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;
  #nextMs: number;

  constructor({ minMs, maxMs, random = Math.random }: { minMs: number; maxMs: number; random?: () => number }) {
    this.#minMs = minMs;
    this.#maxMs = maxMs;
    this.#random = random;
    this.#nextMs = minMs;
  }

  /** Waits the next delay, or `atLeastMs` when that is longer (a Retry-After); rejects with `signal.reason`. */
  wait(signal?: AbortSignal, atLeastMs = 0): Promise<void> {
    const delayMs = this.#nextMs * (1 - JITTER * this.#random());
    this.#nextMs = Math.min(this.#nextMs * 2, this.#maxMs);
    return sleep(Math.max(delayMs, atLeastMs), signal);
  }

  /** The next delay is the shortest again. */
  reset(): void {
    this.#nextMs = this.#minMs;
  }
}

/** A signal of its own that follows another one and ends by itself; see `boundedSignal`. */
export interface BoundedSignal extends Disposable {
  readonly signal: AbortSignal;
  /** Whether the time ran out (and not the caller's patience). */
  readonly timedOut: boolean;
}

/**
 * A signal that aborts with `parent`, for the same reason, or after `ms`. Dispose of it when the work is over.
 * In place of AbortSignal.any, whose links to a parent that lives as long as the process are freed by the collector only.
 */
export function boundedSignal(ms: number, parent?: AbortSignal): BoundedSignal {
  const controller = new AbortController();
  let timedOut = false;
  const follow = () => controller.abort(parent?.reason);
  const timer = startTimer(ms, () => {
    timedOut = true;
    controller.abort(new Error(`timed out after ${ms} ms`));
  });
  if (parent?.aborted) follow();
  parent?.addEventListener("abort", follow, { once: true });
  return {
    signal: controller.signal,
    get timedOut() {
      return timedOut;
    },
    [Symbol.dispose]: () => {
      timer[Symbol.dispose]();
      parent?.removeEventListener("abort", follow);
    },
  };
}
