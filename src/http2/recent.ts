/** So many are known. A frame that comes later than that is taken for a mistake of its client. */
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

  /** True: its client may have sent more of it before it knew that it is over. False: it knew. Undefined: not known here. */
  wasReset(id: number): boolean | undefined {
    const place = this.#ids.lastIndexOf(id);
    return place < 0 ? undefined : this.#wereReset[place] === 1;
  }
}
