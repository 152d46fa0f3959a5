import { Code, ConnectError } from "@connectrpc/connect";
import type { Log } from "../log.ts";
import { boundedSignal, sleep } from "../time.ts";
import type { CallLimits } from "./client.ts";

/** Before the second attempt and each one after it; the last holds for all that follow (process.md 3.2). */
const WAITS_MS = [1_000, 2_000, 4_000, 8_000, 15_000];

/** The longest deadline that gRPC can tell in milliseconds: eight digits, more than a day. */
const MAX_DEADLINE_MS = 99_999_999;

export interface RetryOptions {
  /** What is tried, for the log. */
  readonly operation: string;
  /** Over all attempts together, in ms. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
  /** For tests: waits a number of ms, or rejects when the signal comes. */
  readonly wait?: typeof sleep;
}

/**
 * The answer of a call that is repeated on UNAVAILABLE and UNKNOWN, without jitter (process.md 3.2). Throws what the call
 * throws otherwise; `context deadline exceeded` when the time is over, `context canceled` when the signal comes.
 */
export async function retried<T>(call: (limits: CallLimits) => Promise<T>, options: RetryOptions): Promise<T> {
  const { operation, timeoutMs, signal, log, wait = sleep } = options;
  const startedAt = performance.now();
  using limit = boundedSignal(timeoutMs, signal);
  for (let attempt = 1; ; attempt++) {
    try {
      const leftMs = Math.ceil(timeoutMs - (performance.now() - startedAt));
      return await call({ signal: limit.signal, timeoutMs: Math.min(Math.max(1, leftMs), MAX_DEADLINE_MS) });
    } catch (error) {
      if (limit.signal.aborted) throw endOf(signal);
      const { code } = ConnectError.from(error);
      if (code === Code.DeadlineExceeded) throw new Error("context deadline exceeded"); // it knew the deadline too
      if (code !== Code.Unavailable && code !== Code.Unknown) throw error;
      const waitMs = WAITS_MS[Math.min(attempt, WAITS_MS.length) - 1] ?? 0;
      log.warn({ operation, attempt, backoff: waitMs / 1000, error }, "operation failed, retrying");
      await wait(waitMs, limit.signal).catch(() => {
        throw endOf(signal);
      });
    }
  }
}

/** Why nothing is tried any more, in the words that operators know from Go. */
const endOf = (signal: AbortSignal): Error =>
  new Error(signal.aborted ? "context canceled" : "context deadline exceeded");
