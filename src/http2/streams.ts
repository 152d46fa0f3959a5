import type { Http2Stream } from "./stream.ts";

/**
 * The streams of a connection that are open, by their ids. Not a Map, for the reason that src/bag.ts gives: as ids only grow,
 * an array in their order is found in as fast.
 */
export class Streams {
  readonly #streams: Http2Stream[] = [];

  get size(): number {
    return this.#streams.length;
  }

  /** Its id must be larger than all before. */
  add(stream: Http2Stream): void {
    this.#streams.push(stream);
  }

  get(id: number): Http2Stream | undefined {
    const stream = this.#streams[this.#placeOf(id)];
    return stream?.id === id ? stream : undefined;
  }

  delete({ id }: Http2Stream): void {
    const place = this.#placeOf(id);
    if (this.#streams[place]?.id === id) this.#streams.splice(place, 1);
  }

  /** Those that are open now, by their ids. */
  all(): Http2Stream[] {
    return [...this.#streams];
  }

  /** Of the first whose id is not smaller. */
  #placeOf(id: number): number {
    let low = 0;
    let high = this.#streams.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#streams[middle]?.id ?? id) < id) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
