import { sleep } from "../time.ts";

/** Those who wait for something to become true; `wake` whenever it may have. */
export class Waiters {
  readonly #waiting = new Set<() => void>();

  wake(): void {
    for (const look of [...this.#waiting]) look();
  }

  /** The first result of `check` that is not undefined, now or after a wake. Rejects with `signal.reason` or what it throws. */
  until<T>(check: () => T | undefined, signal: AbortSignal): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const finish = () => {
      this.#waiting.delete(look);
      signal.removeEventListener("abort", abort);
    };
    const abort = () => {
      finish();
      reject(signal.reason);
    };
    const look = () => {
      try {
        const result = check();
        if (result === undefined) return;
        finish();
        resolve(result);
      } catch (error) {
        finish();
        reject(error);
      }
    };
    if (signal.aborted) abort();
    else {
      signal.addEventListener("abort", abort, { once: true });
      this.#waiting.add(look);
      look();
    }
    return promise;
  }

  /** Whether `holds` becomes true within `ms`; rejects with `signal.reason`. */
  async within(holds: () => boolean, ms: number, signal: AbortSignal | undefined): Promise<boolean> {
    if (holds()) return true;
    signal?.throwIfAborted();
    const over = new AbortController();
    const follow = () => over.abort(signal?.reason);
    signal?.addEventListener("abort", follow, { once: true });
    try {
      const held = this.until(() => (holds() ? true : undefined), over.signal);
      return await Promise.race([held, sleep(ms, over.signal).then(() => false)]);
    } finally {
      signal?.removeEventListener("abort", follow);
      over.abort(); // frees the loser of the race
    }
  }
}
