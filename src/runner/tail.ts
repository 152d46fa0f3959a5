/** What an exit message holds of each stream when the caller does not say, and at most (6.16.5), in bytes. */
const DEFAULT_BYTES = 65_536;
const MOST_BYTES = 262_144;

/** The `exit_tail_bytes` option as a limit: 0 is the default, and more than the maximum is the maximum. */
export const tailLimit = (exitTailBytes: bigint): number =>
  exitTailBytes === 0n ? DEFAULT_BYTES : Number(exitTailBytes > MOST_BYTES ? MOST_BYTES : exitTailBytes);

/** The last bytes of a stream, for the exit message. Holds copies in a ring, so that it keeps no larger buffer alive. */
export class Tail {
  readonly #limit: number;
  #ring = new Uint8Array(0);
  /** Bytes seen in all; the next one goes to `#seen % #limit`. */
  #seen = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(data: Uint8Array): void {
    const kept = data.length > this.#limit ? data.subarray(data.length - this.#limit) : data;
    this.#seen += data.length - kept.length;
    this.#grow(Math.min(this.#limit, this.#seen + kept.length));
    const at = this.#seen % this.#limit;
    const first = kept.subarray(0, this.#limit - at);
    this.#ring.set(first, at);
    this.#ring.set(kept.subarray(first.length), 0);
    this.#seen += kept.length;
  }

  bytes(): Uint8Array {
    if (this.#seen <= this.#limit) return this.#ring.slice(0, this.#seen);
    const at = this.#seen % this.#limit;
    const tail = new Uint8Array(this.#limit);
    tail.set(this.#ring.subarray(at), 0);
    tail.set(this.#ring.subarray(0, at), this.#limit - at);
    return tail;
  }

  /** Most executions print little: the ring is as large as what was seen, doubling up to the limit. */
  #grow(needed: number): void {
    if (needed <= this.#ring.length) return;
    const ring = new Uint8Array(Math.min(this.#limit, Math.max(needed, this.#ring.length * 2, 1024)));
    ring.set(this.#ring);
    this.#ring = ring;
  }
}
