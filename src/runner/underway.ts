import { startTimer, unlessAborted } from "../time.ts";

/** Work that leaves the cluster half done when the process ends in the middle of it, whether a caller waits for it or not. */
export class Underway {
  readonly #works = new Set<Promise<unknown>>();

  /** The same promise. */
  add<T>(work: Promise<T>): Promise<T> {
    const end = () => void this.#works.delete(work);
    this.#works.add(work);
    work.then(end, end);
    return work;
  }

  /** The result of `work`. Who waits for it is told `signal.reason` at once when that aborts; the work comes to its own end. */
  carry<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
    return unlessAborted(this.add(work), signal);
  }

  /** Resolves when none is left, or after `ms`, with how many are. What begins meanwhile counts. */
  async settled(ms: number): Promise<number> {
    const { promise: late, resolve } = Promise.withResolvers<"late">();
    using _timer = startTimer(ms, () => resolve("late"));
    while (this.#works.size > 0) if ((await Promise.race([Promise.allSettled(this.#works), late])) === "late") break;
    return this.#works.size;
  }
}
