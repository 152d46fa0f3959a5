import { ConnectionError, ErrorCode, Flag, FRAME_BYTES, FrameType, HEADER_BYTES, PREFACE } from "./frame.ts";

/** Who is told of the frames of a connection, in their order. What it throws is thrown to who reads. */
export interface FrameHandler {
  /** The header of a frame is here; its payload, of `length` bytes, is not. */
  announced(type: number, flags: number, stream: number, length: number): void;
  /**
   * A piece of DATA, `isLast` of its frame. The bytes are not copied, and without what fills the frame up, which counts like
   * them for flow control: `counted` bytes.
   */
  data(stream: number, flags: number, bytes: Buffer, counted: number, isLast: boolean): void;
  /** Header fields are complete: the blocks of HEADERS and CONTINUATION, `flags` of the former. */
  headers(stream: number, flags: number, block: Buffer): void;
  /** Any other frame, whole. */
  frame(type: number, flags: number, stream: number, payload: Buffer): void;
}

const EMPTY = Buffer.alloc(0);

/**
 * Takes what a client sends on one HTTP/2 connection, from its preface on and in any pieces, and tells of its frames. Throws
 * ConnectionError for what no frame may be; then it must not be given any more. How long a header block may be is for the
 * handler to say, to whom each part of it is announced.
 */
export class FrameReader {
  readonly #handler: FrameHandler;
  #bytes: Buffer = EMPTY;
  /** Where in them what comes next begins. */
  #at = 0;
  #hasPreface = false;
  /** The frame whose header has been read, and how much of its payload has not; undefined between two of them. */
  #frame: { type: number; flags: number; stream: number; left: number } | undefined;
  /** The header block that is not complete. */
  #block: { stream: number; flags: number; parts: Buffer[] } | undefined;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  read(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    this.#at = 0;
    while (this.#step());
    // A copy of what is kept, so that a few bytes keep no large chunk in memory.
    this.#bytes = this.#at === this.#bytes.length ? EMPTY : Buffer.from(this.#bytes.subarray(this.#at));
  }

  /** Takes one thing: the preface, the header of a frame, a payload or a piece of it. False when more has to come first. */
  #step(): boolean {
    if (!this.#hasPreface) return this.#takePreface();
    const frame = this.#frame;
    const here = this.#bytes.length - this.#at;
    if (frame === undefined) {
      if (here >= HEADER_BYTES) this.#begin();
      return here >= HEADER_BYTES;
    }
    const { type, flags, stream, left } = frame;
    const isWhole = here >= left;
    if (isWhole) this.#frame = undefined;
    if (type === FrameType.DATA && (flags & Flag.PADDED) === 0) {
      if (here === 0 && !isWhole) return false;
      frame.left -= Math.min(here, left);
      const bytes = this.#take(Math.min(here, left));
      this.#handler.data(stream, flags, bytes, bytes.length, isWhole);
      return true;
    }
    if (isWhole) this.#tell(type, flags, stream, this.#take(left));
    return isWhole;
  }

  #take(bytes: number): Buffer {
    const from = this.#at;
    this.#at += bytes;
    return this.#bytes.subarray(from, this.#at);
  }

  #takePreface(): boolean {
    const length = Math.min(this.#bytes.length, PREFACE.length);
    if (!this.#bytes.subarray(0, length).equals(PREFACE.subarray(0, length))) throw protocolError("no preface");
    this.#hasPreface = length === PREFACE.length;
    if (this.#hasPreface) this.#at = length;
    return this.#hasPreface;
  }

  #begin(): void {
    const bytes = this.#bytes;
    const at = this.#at;
    const left = bytes.readUIntBE(at, 3);
    const type = bytes[at + 3] ?? 0;
    const flags = bytes[at + 4] ?? 0;
    const stream = bytes.readUInt32BE(at + 5) & 0x7fff_ffff;
    if (left > FRAME_BYTES)
      throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, `a frame of ${left} bytes is larger than was granted`);
    const isNext = type === FrameType.CONTINUATION && stream === this.#block?.stream;
    if (isNext !== (this.#block !== undefined || type === FrameType.CONTINUATION))
      throw protocolError("CONTINUATION where none is to be, or none where one is");
    this.#handler.announced(type, flags, stream, left);
    this.#frame = { type, flags, stream, left };
    this.#at += HEADER_BYTES;
  }

  /** Tells of a frame that is whole. */
  #tell(type: number, flags: number, stream: number, payload: Buffer): void {
    if (type === FrameType.DATA) this.#handler.data(stream, flags, unpadded(payload, flags), payload.length, true);
    else if (type === FrameType.HEADERS) {
      const content = unpadded(payload, flags);
      if ((flags & Flag.PRIORITY) === 0) this.#addBlock(stream, flags, content);
      else {
        if (content.length < 5) throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority");
        this.#addBlock(stream, flags, content.subarray(5));
      }
    } else if (type === FrameType.CONTINUATION) this.#addBlock(stream, flags, payload);
    else this.#handler.frame(type, flags, stream, payload);
  }

  #addBlock(stream: number, flags: number, part: Buffer): void {
    const isComplete = (flags & Flag.END_HEADERS) !== 0;
    if (this.#block === undefined && isComplete) {
      this.#handler.headers(stream, flags, part);
      return;
    }
    this.#block ??= { stream, flags, parts: [] };
    this.#block.parts.push(Buffer.from(part)); // a copy, as of all that is kept
    if (!isComplete) return;
    const { flags: first, parts } = this.#block;
    this.#block = undefined;
    this.#handler.headers(stream, first, Buffer.concat(parts));
  }
}

/** Without the length of what fills it up, and that (section 6.1). */
function unpadded(payload: Buffer, flags: number): Buffer {
  if ((flags & Flag.PADDED) === 0) return payload;
  const padding = payload[0];
  if (padding === undefined) throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its length");
  if (padding >= payload.length) throw protocolError("a frame is filled up with more than it holds");
  return payload.subarray(1, payload.length - padding);
}

const protocolError = (text: string) => new ConnectionError(ErrorCode.PROTOCOL_ERROR, text);
