/**
 * Memory that is used again. What is new for each large message makes the collector look for garbage with every few of them,
 * and most of its work is what stays.
 */
export class Memory {
  readonly #bytes: number;
  readonly #most: number;
  readonly #spare: ArrayBuffer[] = [];

  /** Pieces of `bytes` each, of which `most` are kept at once while nobody has them. */
  constructor(bytes: number, most: number) {
    this.#bytes = bytes;
    this.#most = most;
  }

  /** So many bytes, with whatever is in them; new where they are more than a piece. */
  take(bytes: number): Buffer<ArrayBuffer> {
    if (bytes > this.#bytes) return Buffer.allocUnsafeSlow(bytes);
    return Buffer.from(this.#spare.pop() ?? new ArrayBuffer(this.#bytes), 0, bytes);
  }

  /** Takes back what `take` gave, which nobody may look at any more. */
  give({ buffer }: Buffer<ArrayBuffer>): void {
    if (buffer.byteLength === this.#bytes && this.#spare.length < this.#most) this.#spare.push(buffer);
  }
}
