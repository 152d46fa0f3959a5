import { unreachable } from "../errors.ts";
import type { Kube } from "../kube/client.ts";
import { KubeError } from "../kube/error.ts";
import type { Pod } from "../kube/types.ts";
import { boundedSignal, sleep } from "../time.ts";

/** Requests a second, and how long one waits for its turn: a caller may ask for absent workloads without end. */
const PER_SECOND = 100;
const TURN_MS = 2_000;
/** A live read is over by then, all its pages included. */
const READ_MS = 30_000;

/** Reads of Pods that go to the API server: few at a time, however many ask. */
export class LiveReads {
  /** How many went to the API, for metrics. */
  count = 0;
  readonly #kube: Pick<Kube, "pods">;
  readonly #reads = new Map<string, { running: Promise<unknown>; next?: Promise<unknown> }>();
  readonly #turns = new Turns(PER_SECOND);

  constructor(kube: Pick<Kube, "pods">) {
    this.#kube = kube;
  }

  /** The Pod of this name; undefined when the API server says that there is none. Throws as Kube does. */
  pod(name: string, signal: AbortSignal | undefined): Promise<Pod | undefined> {
    return this.#shared(`pod ${name}`, signal, async (bound) => {
      try {
        return await this.#kube.pods.get(name, { signal: bound });
      } catch (error) {
        if (error instanceof KubeError && error.notFound) return undefined;
        throw error;
      }
    });
  }

  list(labelSelector: string, signal: AbortSignal | undefined): Promise<{ items: Pod[]; version: string }> {
    return this.#shared(`list ${labelSelector}`, signal, (bound) =>
      this.#kube.pods.listAll({ labelSelector, signal: bound }),
    );
  }

  /**
   * One read for all who ask the same: whoever comes while it runs takes part in the next one, because the answer to come
   * may be older than the question.
   */
  #shared<T>(key: string, signal: AbortSignal | undefined, read: (bound: AbortSignal) => Promise<T>): Promise<T> {
    const once = async () => {
      this.count++;
      if (!(await this.#turns.take(TURN_MS))) throw unreachable();
      using bound = boundedSignal(READ_MS);
      try {
        return await read(bound.signal);
      } catch (error) {
        throw bound.timedOut ? unreachable(error) : error;
      }
    };
    return patient(this.#join(key, once), signal);
  }

  #join<T>(key: string, once: () => Promise<T>): Promise<T> {
    const current = this.#reads.get(key);
    // The cast: a key stands for one kind of read, so what is shared under it has the type of this one.
    if (current?.next !== undefined) return current.next as Promise<T>;
    const started = current === undefined ? once() : current.running.then(once, once);
    if (current === undefined) this.#run(key, started);
    else current.next = started;
    return started;
  }

  #run(key: string, running: Promise<unknown>): void {
    const entry: { running: Promise<unknown>; next?: Promise<unknown> } = { running };
    this.#reads.set(key, entry);
    const over = () => {
      if (entry.next === undefined) this.#reads.delete(key);
      else this.#run(key, entry.next);
    };
    running.then(over, over);
  }
}

/** The promise, unless its caller goes first. */
function patient<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  const { promise: gone, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  return Promise.race([promise, gone]).finally(() => signal.removeEventListener("abort", abort));
}

/** So many a second on average, and as many at once after a quiet second. */
class Turns {
  readonly #perSecond: number;
  #left: number;
  #at = performance.now();

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
    this.#left = perSecond;
  }

  /** Waits for a turn; false, at once, when that would take longer than `maxWaitMs`. */
  async take(maxWaitMs: number): Promise<boolean> {
    const now = performance.now();
    this.#left = Math.min(this.#perSecond, this.#left + ((now - this.#at) / 1000) * this.#perSecond);
    this.#at = now;
    const waitMs = this.#left >= 1 ? 0 : ((1 - this.#left) / this.#perSecond) * 1000;
    if (waitMs > maxWaitMs) return false;
    this.#left--;
    if (waitMs > 0) await sleep(waitMs);
    return true;
  }
}
