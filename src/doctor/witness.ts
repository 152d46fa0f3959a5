import type { Collection } from "../kube/client.ts";
import { KubeError } from "../kube/error.ts";
import { boundedSignal } from "../time.ts";

/** A watch ends by itself after so long, in seconds, should nobody stop it. */
const WATCH_SECONDS = 900;

export interface Lookout<T> {
  readonly collection: Collection<T>;
  readonly labelSelector?: string;
  sees(object: T): boolean;
}

/** A watch that looks out for one object, begun before that is made, as the runner's own watch is. */
export class Witness<T> {
  /** Resolves when it was told; rejects with KubeError when the watch failed or ended before. */
  readonly #seen: Promise<void>;
  readonly #over = new AbortController();

  private constructor(lookout: Lookout<T>, version: string) {
    this.#seen = this.#watch(lookout, version);
    this.#seen.catch(() => undefined); // told by who waits for it, if anybody does
  }

  /** Resolves once the state that it watches from is known. Throws KubeError when that cannot be listed. */
  static async of<T>(lookout: Lookout<T>, signal: AbortSignal): Promise<Witness<T>> {
    const { metadata } = await lookout.collection.list({ limit: 1, signal });
    return new Witness(lookout, metadata.resourceVersion);
  }

  /** Whether it is told within `ms`. Throws KubeError when the watch failed before, or ended. */
  async sees(ms: number, signal: AbortSignal): Promise<boolean> {
    using bound = boundedSignal(ms, signal);
    const { promise, resolve } = Promise.withResolvers<false>();
    bound.signal.addEventListener("abort", () => resolve(false), { once: true });
    return await Promise.race([this.#seen.then(() => true), promise]);
  }

  stop(): void {
    this.#over.abort(new Error("nobody needs the watch any more"));
  }

  async #watch({ collection, labelSelector, sees }: Lookout<T>, resourceVersion: string): Promise<void> {
    const { signal } = this.#over;
    const selector = labelSelector === undefined ? {} : { labelSelector };
    const request = { ...selector, resourceVersion, timeoutSeconds: WATCH_SECONDS, signal };
    for await (const { type, object } of collection.watch(request)) if (type !== "BOOKMARK" && sees(object)) return;
    throw new KubeError(200, "", "the watch ended before it told anything");
  }
}
