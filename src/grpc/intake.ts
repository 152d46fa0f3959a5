import { lend, Memory } from "../memory.ts";

const BLOCK_BYTES = 64 * 1024;
/** Blocks kept while nothing is in them. */
const SPARE_BLOCKS = 16;
/** What is shorter gets no block, and up to so much of it together is made one piece: in bytes. */
const SHORT_BYTES = 4 * 1024;

/** Of all calls. */
const memory = new Memory(BLOCK_BYTES, SPARE_BLOCKS);

/** Bytes of `memory` from `from` to `to`; a block has room for more after them. */
interface Part {
  memory: Buffer<ArrayBuffer>;
  from: number;
  to: number;
  readonly isBlock: boolean;
}

/**
 * Bytes of a request that wait to be taken. They are copied both when they come and when they are taken: into blocks that are
 * used again, so that what is read from a socket can be given back at once, and out of them, into memory that nobody else has
 * until its taker gives it back. It may be lent: then its buffer is longer than the bytes, and holds what others have left in it.
 */
export class Intake {
  readonly #parts: Part[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  add(chunk: Uint8Array): void {
    this.#bytes += chunk.length;
    for (let at = this.#fill(chunk); at < chunk.length; at += this.#fill(chunk.subarray(at)))
      if (chunk.length - at < SHORT_BYTES) {
        this.#addShort(chunk.subarray(at));
        return;
      } else this.#parts.push({ memory: memory.take(BLOCK_BYTES), from: 0, to: 0, isBlock: true });
  }

  /** The byte at a place, of those that wait. */
  at(place: number): number | undefined {
    let left = place;
    for (const { memory, from, to } of this.#parts) {
      if (left < to - from) return memory[from + left];
      left -= to - from;
    }
    return undefined;
  }

  /** The first `count` bytes, which must be there. */
  take(count: number): Buffer<ArrayBuffer> {
    if (count > this.#bytes) throw new Error(`${count - this.#bytes} bytes too few`);
    const bytes = lend(count);
    for (let at = 0; at < count; ) {
      const part = this.#parts[0];
      if (part === undefined) break; // as many are there
      const length = Math.min(count - at, part.to - part.from);
      part.memory.copy(bytes, at, part.from, part.from + length);
      at += length;
      part.from += length;
      if (part.from === part.to) this.#drop();
    }
    this.#bytes -= count;
    this.#shrink();
    return bytes;
  }

  clear(): void {
    while (this.#parts.length > 0) this.#drop();
    this.#bytes = 0;
  }

  /** Copies what there is room for in the last block; returns its length. */
  #fill(chunk: Uint8Array): number {
    const last = this.#parts.at(-1);
    if (!last?.isBlock) return 0;
    const length = Math.min(chunk.length, BLOCK_BYTES - last.to);
    last.memory.set(length === chunk.length ? chunk : chunk.subarray(0, length), last.to);
    last.to += length;
    return length;
  }

  #addShort(chunk: Uint8Array): void {
    const last = this.#parts.at(-1);
    const kept = last === undefined ? 0 : last.to - last.from;
    if (last === undefined || last.isBlock || kept + chunk.length > SHORT_BYTES)
      this.#parts.push({ memory: Buffer.from(chunk), from: 0, to: chunk.length, isBlock: false });
    else {
      last.memory = Buffer.concat([last.memory.subarray(last.from, last.to), chunk]);
      last.from = 0;
      last.to = last.memory.length;
    }
  }

  /** A few bytes that wait for the rest of a message keep no block. */
  #shrink(): void {
    const [first, second] = this.#parts;
    if (!first?.isBlock || second !== undefined || first.to - first.from >= SHORT_BYTES) return;
    const rest = first.memory.subarray(first.from, first.to);
    this.#parts.push({ memory: Buffer.from(rest), from: 0, to: rest.length, isBlock: false });
    this.#drop();
  }

  /** The first part is done with. */
  #drop(): void {
    const part = this.#parts.shift();
    if (part?.isBlock) memory.give(part.memory);
  }
}
