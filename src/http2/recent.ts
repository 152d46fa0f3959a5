/** So many are known. */
const KNOWN = 256;

/** The streams of a connection that ended last. */
export class Recent {
  readonly #ids = new Int32Array(KNOWN);
  readonly #wereReset = new Uint8Array(KNOWN);
  #count = 0;

  /** Once for each stream. `wasReset`: by the server. */
  add(id: number, wasReset: boolean): void {
    const place = this.#count % KNOWN;
    this.#ids[place] = id;
    this.#wereReset[place] = wasReset ? 1 : 0;
    this.#count += 1;
  }

  /** Whether no stream that has ended is forgotten yet. */
  get isWhole(): boolean {
    return this.#count <= KNOWN;
  }

  /** True: its client may have sent more of it before it knew that it is over. False: it knew. Undefined: not known any more. */
  wasReset(id: number): boolean | undefined {
    const place = id === 0 ? -1 : this.#ids.indexOf(id);
    return place < 0 ? undefined : this.#wereReset[place] === 1;
  }
}
