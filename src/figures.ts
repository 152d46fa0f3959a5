/*
 * What parts count about themselves: plain numbers, which cost nothing to keep and which whoever wants may read (metrics/).
 */

/** How often each of a fixed set of things happened; all of them are there from the start, as 0. */
export class Tally<Name extends string> {
  readonly #counts: Map<Name, number>;

  constructor(names: readonly Name[]) {
    this.#counts = new Map(names.map((name) => [name, 0]));
  }

  add(name: Name, by = 1): void {
    this.#counts.set(name, this.of(name) + by);
  }

  of(name: Name): number {
    return this.#counts.get(name) ?? 0;
  }

  get total(): number {
    return this.#counts.values().reduce((sum, count) => sum + count, 0);
  }

  [Symbol.iterator](): MapIterator<[Name, number]> {
    return this.#counts.entries();
  }
}

/** How long things took, in seconds: how many took no longer than each bound, and all of them together. */
export class Durations {
  /** Upper bounds in seconds, ascending. */
  readonly bounds: readonly number[];
  /** How many are at most the bound of the same index and above the one before; the last: above all bounds. */
  readonly counts: number[];
  count = 0;
  sum = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Array<number>(bounds.length + 1).fill(0);
  }

  add(seconds: number): void {
    let at = 0;
    while (at < this.bounds.length && seconds > (this.bounds[at] ?? 0)) at++;
    this.counts[at] = (this.counts[at] ?? 0) + 1;
    this.count++;
    this.sum += seconds;
  }
}
