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
  give({ buffer }: { readonly buffer: ArrayBuffer }): void {
    if (buffer.byteLength === this.#bytes && this.#spare.length < this.#most) this.#spare.push(buffer);
  }
}

/** What may stand before the bytes in their memory: the channel of a message, a prefix and a few tags; less than a wrapper's word (marks.ts). */
const MOST_BEFORE = 32;

/**
 * Gives memory back at once that is lent, or that `bytes` are all of, but for a few bytes before them; nobody may look at it any
 * more. The collector leaves what is large and short-lived for long, and memory that is new all the time costs more than most that
 * is done with it.
 */
export function release(bytes: Uint8Array): void {
  const loan = loans.get(bytes.buffer);
  if (loan === undefined) releaseLast(bytes, MOST_BEFORE);
  else if (loan.isOut) {
    loan.isOut = false; // twice given back, it would be lent to two
    lent.give(loan);
  }
}

/** A message of fewer bytes is not worth lending memory to, and one of more gets its own. */
const LENT_BYTES = { least: 16 * 1024, most: 128 * 1024 };
/** Pieces kept while nobody has them. */
const SPARE_PIECES = 16;

const lent = new Memory(LENT_BYTES.most, SPARE_PIECES);

interface Loan {
  readonly buffer: ArrayBuffer;
  isOut: boolean;
}

/** Of each piece that was ever lent and is still there. */
const loans = new WeakMap<ArrayBufferLike, Loan>();

/** Memory for a message of so many bytes, with whatever is in it. Its taker may give it back by `release`, by any part of it. */
export function lend(bytes: number): Buffer<ArrayBuffer> {
  if (bytes > LENT_BYTES.most) return Buffer.allocUnsafeSlow(bytes);
  if (bytes < LENT_BYTES.least) return Buffer.allocUnsafe(bytes);
  const piece = lent.take(bytes);
  const { buffer } = piece;
  const loan = loans.get(buffer);
  if (loan === undefined) loans.set(buffer, { buffer, isOut: true });
  else loan.isOut = true;
  return piece;
}

/** Content of a message is worth giving back from so many bytes on: more than what small pieces of memory are cut from. */
const LARGE_CONTENT_BYTES = 64 * 1024;
/** The shorter fields before it. */
const MOST_FIELDS = 8 * 1024;

/** Gives back a whole message, of which `content` is the last and by far the largest field; nobody may look at it any more. */
export function releaseContent(content: Uint8Array): void {
  if (content.length >= LARGE_CONTENT_BYTES) releaseLast(content, MOST_FIELDS);
}

function releaseLast({ buffer, byteOffset, byteLength }: Uint8Array, mostBefore: number): void {
  const isAll = byteOffset <= mostBefore && byteOffset + byteLength === buffer.byteLength;
  if (isAll && byteLength > 0 && buffer instanceof ArrayBuffer) buffer.transfer(0);
}

/** What is read from a socket at once and is larger is worth giving back, in bytes. */
const LARGE_READ_BYTES = 16 * 1024;

/** Gives back what was read from a socket, when that is worth it. Who keeps a part of it must have made it `lasting`. */
export function releaseRead(chunk: Buffer): void {
  if (chunk.length >= LARGE_READ_BYTES) release(chunk);
}

/** A part of what was read from a socket, for longer than its reader has it. */
export const lasting = (part: Buffer): Buffer =>
  part.buffer.byteLength >= LARGE_READ_BYTES ? Buffer.from(part) : part;
