import { Chunks } from "../chunks.ts";
import { release } from "../memory.ts";

/** What an exit message holds of each stream when the caller does not say, and at most (6.16.5), in bytes. */
const DEFAULT_BYTES = 65_536;
const MOST_BYTES = 262_144;

/** The `exit_tail_bytes` option as a limit: 0 is the default, and more than the maximum is the maximum. */
export const tailLimit = (exitTailBytes: bigint): number =>
  exitTailBytes === 0n ? DEFAULT_BYTES : Number(exitTailBytes > MOST_BYTES ? MOST_BYTES : exitTailBytes);

/**
 * The last bytes of a stream, for the exit message. Output is its own once it is pushed: it gives back the memory of what is
 * not among the last any more, which its caller must have done with by the next push.
 */
export class Tail {
  readonly #limit: number;
  readonly #chunks = new Chunks();

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(bytes: Buffer): void {
    for (let old = this.#chunks.shift(this.#limit); old !== undefined; old = this.#chunks.shift(this.#limit))
      release(old);
    this.#chunks.add(bytes);
  }

  bytes(): Uint8Array {
    const { bytes } = this.#chunks;
    return this.#chunks.first(bytes).subarray(Math.max(0, bytes - this.#limit));
  }
}
