import {
  ErrorCode,
  Flag,
  FRAME_BYTES,
  FrameType,
  frameOf,
  HEADER_BYTES,
  headerFrames,
  MAX_WINDOW_BYTES,
  putFrame,
  putHeader,
  resetFrame,
  windowFrame,
} from "./frame.ts";
import type { Head } from "./head.ts";
import { PART_BYTES, type Writer } from "./writer.ts";

/** What a client may send on a stream before it is told that there is room for more, in bytes. */
export const STREAM_WINDOW = 256 * 1024;
/** How much of a request is thrown away after its answer; about what a client sends before it can notice. */
const DISMISSED_BYTES = 1024 * 1024;
/** Answers of up to so many bytes are put together as one, in bytes. */
const SHORT_BYTES = 2 * 1024;

/** The connection, as its streams see it. */
export interface StreamOwner {
  readonly writer: Writer;
  /** Bytes of DATA that may be sent, on all streams together. */
  readonly sendWindow: number;
  /** A header block, with what the client has to be told before it. */
  told(block: Uint8Array): Uint8Array;
  /** So many bytes of DATA leave. */
  sent(bytes: number): void;
  /** The stream is answered, and its request goes on. */
  answered(stream: Http2Stream): void;
  /** The connection has no room for what the stream has to send: `sendOn` is to be called when it has. */
  waits(stream: Http2Stream): void;
  /** The stream is no more; `wasReset`: by the server. */
  closed(stream: Http2Stream, wasReset: boolean): void;
}

/** A message that has not left whole: `head` and then `data`. */
interface Piece {
  readonly head: Uint8Array;
  readonly data: Uint8Array;
  /** Bytes of both that have left. */
  sent: number;
}

const EMPTY = Buffer.alloc(0);
const nothing = (): void => undefined;

/**
 * A request and its answer on an HTTP/2 connection (RFC 9113 sections 5 and 8.1). Who serves it says at once, when it is
 * given the stream, what it wants to hear of.
 */
export class Http2Stream {
  readonly id: number;
  readonly head: Head;
  readonly #owner: StreamOwner;
  /** Content of the request; what of it is to be kept is to be made `lasting` (memory.ts). */
  onData: (chunk: Buffer) => void = nothing;
  /** The request is complete. */
  onEnd: () => void = nothing;
  /** It was ended, by an HTTP/2 error code, before both sides had said all. */
  onLost: (code: number) => void = nothing;
  /** There is room for another `write`, after one that said false. */
  onRoom: () => void = nothing;

  #sendWindow: number;
  #receiveWindow = STREAM_WINDOW;
  /** Bytes that have come, for which the client has not been given room again. */
  #taken = 0;
  #contentBytes = 0;
  #dismissedBytes = 0;
  #isPaused = false;
  #isComplete = false;

  #pieces: Piece[] = [];
  /** Whether its connection keeps it for `sendOn`. The connection's own. */
  isWaiting = false;
  #isFull = false;
  #hasHead = false;
  /** The head of the answer, while it has not left; `#isHeadAll`: nothing comes after it. */
  #block: Uint8Array | undefined;
  #isHeadAll = false;
  /** What ends the answer, once that is known: null is nothing. */
  #trailers: Uint8Array | null | undefined;
  #isAnswered = false;
  #isClosed = false;
  #overdueSince: number | undefined;

  constructor(id: number, head: Head, owner: StreamOwner, sendWindow: number) {
    this.id = id;
    this.head = head;
    this.#owner = owner;
    this.#sendWindow = sendWindow;
  }

  /** The same object for all streams of one connection. */
  get connection(): object {
    return this.#owner;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether the head of the answer has been given. */
  get hasHead(): boolean {
    return this.#hasHead;
  }

  /** Whether the client has said all. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** Whether the answer has left whole. */
  get isAnswered(): boolean {
    return this.#isAnswered;
  }

  // The answer.

  /** Its head, as a whole block (`encodeHeaders`). Nothing after it when it is all. */
  respond(block: Uint8Array, isAll = false): void {
    if (this.#isClosed || this.#hasHead) return;
    this.#hasHead = true;
    this.#block = block;
    this.#isHeadAll = isAll;
    this.sendOn();
  }

  /**
   * Content of it, as two parts that are one after the other, which may not be changed until it has left. False: it, or a part,
   * waits for the client to read; then `onRoom` tells when another may come.
   */
  write(head: Uint8Array, data: Uint8Array = EMPTY): boolean {
    if (this.#isOver) return true;
    if (head.length + data.length === 0) return !this.#isFull;
    this.#pieces.push({ head, data, sent: 0 });
    this.sendOn();
    this.#isFull = this.#pieces.length > 0;
    return !this.#isFull;
  }

  /** Its end, after what has been written; with trailers, as a whole block, or without. */
  end(trailers: Uint8Array | null): void {
    if (this.#isOver) return;
    this.#trailers = trailers;
    this.sendOn();
  }

  /** All of it at once. */
  answer(block: Uint8Array, content: Uint8Array, trailers: Uint8Array): void {
    const isShort = block.length + content.length + trailers.length <= SHORT_BYTES;
    const hasRoom = content.length <= Math.min(this.#sendWindow, this.#owner.sendWindow) && !this.#owner.writer.isFull;
    if (!isShort || !hasRoom || this.#hasHead || this.#isClosed) {
      this.respond(block);
      this.write(content);
      this.end(trailers);
      return;
    }
    this.#hasHead = true;
    const { id } = this;
    const head = this.#owner.told(block);
    const bytes = Buffer.allocUnsafe(3 * HEADER_BYTES + head.length + content.length + trailers.length);
    let at = putFrame(bytes, 0, FrameType.HEADERS, Flag.END_HEADERS, id, head);
    at = putFrame(bytes, at, FrameType.DATA, 0, id, content);
    putFrame(bytes, at, FrameType.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, id, trailers);
    this.#spend(content.length);
    this.#owner.writer.send(bytes);
    this.#finish();
  }

  /** Ends both sides at once, unless that is over. */
  reset(code: number): void {
    if (this.#isClosed) return;
    this.#owner.writer.send(resetFrame(this.id, code));
    this.#close(true);
    this.onLost(code);
  }

  // The request.

  /** Gives the client no more room. What it has room for may still come. */
  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#giveRoom();
  }

  /** Gives the client room for so many bytes more at once, beyond what it would have. */
  allow(bytes: number): void {
    if (bytes <= 0 || this.#isComplete || this.#isClosed) return;
    this.#owner.writer.send(windowFrame(this.id, bytes));
    this.#receiveWindow += bytes;
  }

  // For its connection.

  get hasMore(): boolean {
    return this.#block !== undefined || this.#pieces.length > 0 || (this.#trailers !== undefined && !this.#isAnswered);
  }

  /** Sends what there is room for. */
  sendOn(): void {
    if (this.#isClosed || (this.#block !== undefined && !this.#sendHead(this.#block))) return;
    for (let piece = this.#pieces[0]; piece !== undefined; piece = this.#pieces[0]) {
      const left = piece.head.length + piece.data.length - piece.sent;
      const bytes = Math.min(left, this.#sendWindow, this.#owner.sendWindow, PART_BYTES);
      if (this.#sendWindow <= 0) return; // its client tells when there is room
      if (this.#mustWait()) return;
      if (bytes <= 0) {
        this.#owner.waits(this);
        return;
      }
      this.#sendPart(piece, bytes);
      if (bytes === left) this.#pieces.shift();
    }
    if (this.#trailers !== undefined && !this.#isAnswered) {
      if (!this.#mustWait()) this.#sendEnd(this.#trailers);
    } else if (this.#isFull) {
      this.#isFull = false;
      this.onRoom();
    }
  }

  /** The client gives room for so many bytes more, or less. False: for more than there can be. */
  widen(bytes: number): boolean {
    this.#sendWindow += bytes;
    return this.#sendWindow <= MAX_WINDOW_BYTES;
  }

  /** A frame of so many bytes is coming. False: there is no room for it. */
  announced(bytes: number): boolean {
    this.#receiveWindow -= bytes;
    return this.#receiveWindow >= 0;
  }

  /** `counted`: bytes for flow control. False: they are more than the request has announced. */
  take(bytes: Buffer, counted: number): boolean {
    this.#taken += counted;
    this.#contentBytes += bytes.length;
    if (this.#contentBytes > (this.head.contentLength ?? Number.POSITIVE_INFINITY)) return false;
    if (this.#isAnswered) this.#dismiss(bytes.length);
    else if (bytes.length > 0) this.onData(bytes);
    this.#giveRoom();
    return true;
  }

  /** The client has said all. False: that is less than the request has announced. */
  complete(): boolean {
    if (this.#isClosed) return true;
    if (this.#contentBytes !== (this.head.contentLength ?? this.#contentBytes)) return false;
    this.#isComplete = true;
    if (this.#isAnswered) this.#close();
    else this.onEnd();
    return true;
  }

  /** It is over for its client, by an HTTP/2 error code. */
  lose(code: number): void {
    if (this.#isClosed) return;
    this.#close();
    this.onLost(code);
  }

  /** Since when its answer is complete and the client has not read it, or not said all; undefined: it is not. In ms, like `now`. */
  overdueSince(now: number): number | undefined {
    if (this.#trailers === undefined && !this.#isHeadAll && !this.#isAnswered) return undefined;
    this.#overdueSince ??= now;
    return this.#overdueSince;
  }

  /** Whether nothing may be added to the answer any more. */
  get #isOver(): boolean {
    return this.#isClosed || this.#isAnswered || this.#isHeadAll || this.#trailers !== undefined;
  }

  /** Whether the client reads too slowly for anything to be sent: so it waits here, and takes one of the client's streams. */
  #mustWait(): boolean {
    const { isFull } = this.#owner.writer;
    if (isFull) this.#owner.waits(this);
    return isFull;
  }

  /** False: what comes after it cannot be sent. */
  #sendHead(block: Uint8Array): boolean {
    if (this.#mustWait()) return false;
    this.#block = undefined;
    this.#owner.writer.send(headerFrames(this.id, this.#owner.told(block), this.#isHeadAll));
    if (this.#isHeadAll) this.#finish();
    return !this.#isHeadAll;
  }

  #sendPart(piece: Piece, bytes: number): void {
    const size = bytes + HEADER_BYTES * Math.ceil(bytes / FRAME_BYTES);
    const out = this.#owner.writer.room(size);
    const end = piece.sent + bytes;
    for (let at = out.length - size; piece.sent < end; ) {
      const length = Math.min(FRAME_BYTES, end - piece.sent);
      at = putHeader(out, at, FrameType.DATA, 0, this.id, length);
      at = copyPart(piece, length, out, at);
    }
    this.#spend(bytes);
    this.#owner.writer.send(out);
  }

  #spend(bytes: number): void {
    this.#sendWindow -= bytes;
    this.#owner.sent(bytes);
  }

  #sendEnd(trailers: Uint8Array | null): void {
    this.#owner.writer.send(
      trailers === null
        ? frameOf(FrameType.DATA, Flag.END_STREAM, this.id, EMPTY)
        : headerFrames(this.id, this.#owner.told(trailers), true),
    );
    this.#finish();
  }

  #finish(): void {
    this.#isAnswered = true;
    if (this.#isComplete) {
      this.#close();
      return;
    }
    this.#isPaused = false;
    this.#giveRoom();
    this.#owner.answered(this);
  }

  /**
   * For what comes of a request that is answered. Its client waits for room to send the rest, some for ever: so that is taken in
   * and thrown away, until it is too much or the server closes. Not refused at once, as clients on Bun 1.4.5 then lose what
   * they have not read of the answer.
   */
  #dismiss(bytes: number): void {
    this.#dismissedBytes += bytes;
    if (this.#dismissedBytes > DISMISSED_BYTES) this.reset(ErrorCode.NO_ERROR); // section 8.1
  }

  #giveRoom(): void {
    if (this.#isPaused || this.#isComplete || this.#isClosed || this.#taken < STREAM_WINDOW / 2) return;
    this.allow(this.#taken);
    this.#taken = 0;
  }

  #close(wasReset = false): void {
    this.#isClosed = true;
    this.#pieces = [];
    this.#block = undefined;
    this.#owner.closed(this, wasReset);
  }
}

/** Copies the next bytes of a piece; returns where they end. */
function copyPart(piece: Piece, bytes: number, to: Buffer, at: number): number {
  const { head, data, sent } = piece;
  const ofHead = Math.min(bytes, Math.max(0, head.length - sent));
  if (ofHead > 0) to.set(partOf(head, sent, ofHead), at);
  if (ofHead < bytes) to.set(partOf(data, sent + ofHead - head.length, bytes - ofHead), at + ofHead);
  piece.sent += bytes;
  return at + bytes;
}

/** No view of what is whole: of a few bytes, it takes longer than the copy. */
const partOf = (bytes: Uint8Array, from: number, length: number): Uint8Array =>
  length === bytes.length ? bytes : bytes.subarray(from, from + length);
