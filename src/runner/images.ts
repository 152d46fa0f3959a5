/** Containers remembered at most; forgetting one costs one more failed try. */
const PLACES_LIMIT = 10_000;

/**
 * Which containers have something, learnt from how executions went. Not which images: a mount can hide a shell and a
 * workload can remove it, and no other workload may lose its marks, and so its kill, by that.
 */
class Places {
  readonly #known = new Map<string, boolean>();

  get(place: string): boolean | undefined {
    return this.#known.get(place);
  }

  learn(place: string, has: boolean): void {
    if (this.#known.get(place) === has) return;
    if (this.#known.size >= PLACES_LIMIT) this.#known.clear();
    this.#known.set(place, has);
  }
}

/** What is known of containers' images. */
export class Images {
  /** /bin/sh. */
  readonly shell = new Places();
  /** A program that sets a terminal raw. */
  readonly stty = new Places();
}
