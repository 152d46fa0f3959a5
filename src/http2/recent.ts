/** So many are known. */
const KNOWN = 256;

/** The streams of a connection that ended last. */
export class Recent {
  readonly #ids = new Int32Array(KNOWN);
  readonly #wereReset = new Uint8Array(KNOWN);
  #next = 0;

  /** `wasReset`: by the server. */
  add(id: number, wasReset: boolean): void {
    this.#ids[this.#next] = id;
    this.#wereReset[this.#next] = wasReset ? 1 : 0;
    this.#next = (this.#next + 1) % KNOWN;
  }

  /** True: its client may have sent more of it before it knew that it is over. False: it knew. Undefined: not known any more. */
  wasReset(id: number): boolean | undefined {
    const place = id === 0 ? -1 : this.#ids.indexOf(id);
    return place < 0 ? undefined : this.#wereReset[place] === 1;
  }
}
