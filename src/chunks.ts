/** Chunks of up to so many bytes together are made one. */
const JOINED_BYTES = 4 * 1024;

/** Bytes as they have come, in their order, that wait to be taken. A flood of small pieces costs little more than its bytes. */
export class Chunks {
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  add(chunk: Buffer): void {
    this.#bytes += chunk.length;
    const place = this.#chunks.length - 1;
    const last = this.#chunks[place];
    if (last !== undefined && last.length + chunk.length <= JOINED_BYTES)
      this.#chunks[place] = Buffer.concat([last, chunk]);
    else this.#chunks.push(kept(chunk));
  }

  /** The first `count` bytes, which must be there, and maybe more; they stay. */
  first(count: number): Buffer {
    const [first = EMPTY] = this.#chunks;
    if (first.length >= count) return first;
    let parts = 0;
    for (let bytes = 0; bytes < count && parts < this.#chunks.length; parts++)
      bytes += this.#chunks[parts]?.length ?? 0;
    const joined = Buffer.concat(this.#chunks.slice(0, parts));
    this.#chunks.splice(0, parts, joined);
    return joined;
  }

  /** The first `count` bytes, which must be there. */
  take(count: number): Buffer {
    if (count === 0) return EMPTY;
    const first = this.first(count);
    if (first.length === count) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(count);
    this.#bytes -= count;
    return first.length === count ? first : first.subarray(0, count);
  }

  /** Takes the first chunk, if `rest` bytes are there without it. */
  shift(rest: number): Buffer | undefined {
    const [first] = this.#chunks;
    if (first === undefined || this.#bytes - first.length < rest) return undefined;
    this.#bytes -= first.length;
    return this.#chunks.shift();
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#bytes = 0;
  }
}

const EMPTY = Buffer.alloc(0);

/** Memory up to so many bytes is worth no copy, nor is memory of which at least this share is kept. */
const SMALL_BYTES = 8 * 1024;
const SHARE = 1 / 4;

/** Copied where it is a small part of the memory that it stands in, which would be kept with it. */
const kept = (chunk: Buffer): Buffer =>
  chunk.length < SHARE * chunk.buffer.byteLength && chunk.buffer.byteLength > SMALL_BYTES ? Buffer.from(chunk) : chunk;
