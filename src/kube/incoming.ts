import type { Socket } from "node:net";
import { Memory, release } from "../memory.ts";
import { noAnswer } from "./error.ts";
import { type HeaderFields, type ResponseHandler, ResponseReader } from "./response.ts";

/** What is given at a time, at most: messages then cost little beside their bytes, and what is made of one takes little memory. */
const PIECE_BYTES = 64 * 1024;
/** Enough of that: the rest would come in crumbs, as not all that arrives is content. */
const WHOLE_BYTES = PIECE_BYTES - 4 * 1024;
/**
 * After so many bytes came at once more are on their way: they wait in the kernel for so long, in ms, as to be woken for each few of them
 * takes most of the time. Not before so many came in all: a new connection has little room there, and grows as it is read.
 */
const REST = { bytes: 4 * 1024, ms: 1, after: 16 * 1024 * 1024 };
/** Pieces kept while nothing is in them. */
const SPARE_PIECES = 16;

/** Of all answers. */
const memory = new Memory(PIECE_BYTES, SPARE_PIECES);
const NOTHING = Buffer.alloc(0);

/** The head of an answer. */
interface Head {
  readonly status: number;
  readonly fields: HeaderFields;
}

/**
 * The answer to a request, as it comes on a connection of HTTP/1.1: first its head, then its content when that is asked for, piece by
 * piece, in memory that is used again. An API server writes a log line by line; to be given each by itself costs more than all else
 * that is done with it.
 */
export class Incoming implements ResponseHandler {
  readonly #socket: Socket;
  readonly #reader = new ResponseReader(this);
  #gatherMs: number;
  readonly #left: (socket: Socket) => void;
  readonly #head = Promise.withResolvers<Head>();
  /** What has come; `#readBytes` of it have been read. */
  #chunk: Buffer = NOTHING;
  #readBytes = 0;
  /** Content that has been read and not been done with: the first `#bytes` of it. */
  #piece: Buffer<ArrayBuffer> = NOTHING;
  #bytes = 0;
  #isGiven = false;
  /** When a piece may be given that is not whole, as `performance.now` has it. */
  #dueAt: number;
  #timer: NodeJS.Timeout | undefined;
  /** Until more is read. */
  #rest: NodeJS.Timeout | undefined;
  /** What came last, and in all, in bytes. */
  #lastBytes = 0;
  #allBytes = 0;
  #failure: { error: unknown } | undefined;
  #wake: (() => void) | undefined;

  /**
   * Content is given in whole pieces, and in smaller ones not sooner than `gatherMs` after the last one; with Infinity, only the last is
   * one. `left` gets the connection, once it can be used again.
   */
  constructor(socket: Socket, gatherMs: number, left: (socket: Socket) => void) {
    this.#socket = socket;
    this.#gatherMs = gatherMs;
    this.#dueAt = gatherMs === Number.POSITIVE_INFINITY ? gatherMs : 0;
    this.#left = left;
    this.#head.promise.catch(() => undefined); // who waits for it is told
    socket.on("data", this.#take);
    socket.on("error", this.#fail);
    socket.on("close", this.#lost);
    if (socket.destroyed) this.#lost();
  }

  /** Sends the request; resolves with the head of its answer. Rejects when it is lost before, or `signal` aborts. */
  async ask(request: string, signal: AbortSignal): Promise<Head> {
    using _ends = this.endWith(signal);
    this.#socket.write(request);
    return await this.#head.promise;
  }

  /**
   * The next bytes, 64 KiB at most, which are gone when the next are asked for; undefined at the end. After the last ones throws what
   * the answer failed with.
   */
  async next(): Promise<Uint8Array | undefined> {
    if (this.#isGiven) {
      memory.give(this.#piece);
      this.#piece = NOTHING; // who waits for a log that is silent keeps none
      this.#bytes = 0;
      this.#isGiven = false;
    }
    this.#read();
    if (!this.#isReady) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.#gather();
      if (!this.#rests()) this.#socket.resume();
      await promise;
      clearTimeout(this.#timer);
      clearTimeout(this.#rest);
      this.#timer = undefined;
    }
    this.#dueAt = performance.now() + this.#gatherMs;
    this.#isGiven = this.#bytes > 0;
    if (this.#isGiven) return this.#piece.subarray(0, this.#bytes);
    if (!this.#reader.isOver && this.#failure !== undefined) throw this.#failure.error;
    return undefined;
  }

  /** From now on content is given as it arrives: what it takes is little, and may not go on. */
  hurry(): void {
    this.#gatherMs = 0;
    this.#dueAt = 0;
  }

  /** Whether only the end of its connection ends it, so that a failure may be that. */
  get isEndless(): boolean {
    return this.#reader.isEndless;
  }

  /** Gives it up, unless it is complete. */
  close(): void {
    this.#lost();
  }

  /** Gives it up when the signal aborts, until that is disposed. */
  endWith(signal: AbortSignal | undefined): Disposable {
    signal?.addEventListener("abort", this.#lost, { once: true });
    if (signal?.aborted) this.#lost();
    return { [Symbol.dispose]: () => signal?.removeEventListener("abort", this.#lost) };
  }

  // ResponseHandler.

  head(status: number, fields: HeaderFields): void {
    this.#head.resolve({ status, fields });
  }

  data(chunk: Buffer, from: number, to: number): void {
    if (this.#bytes === 0) this.#piece = memory.take(PIECE_BYTES);
    chunk.copy(this.#piece, this.#bytes, from, to);
    this.#bytes += to - from;
  }

  get #unreadBytes(): number {
    return this.#chunk.length - this.#readBytes;
  }

  /** Whether nothing more is to come before the next piece is given. */
  get #isReady(): boolean {
    if (this.#isGiven || this.#bytes >= WHOLE_BYTES || this.#reader.isOver) return true;
    if (this.#failure !== undefined && this.#unreadBytes === 0) return true;
    return this.#bytes > 0 && performance.now() >= this.#dueAt;
  }

  readonly #take = (chunk: Buffer): void => {
    this.#chunk = this.#unreadBytes === 0 ? chunk : Buffer.concat([this.#chunk.subarray(this.#readBytes), chunk]);
    this.#readBytes = 0;
    this.#lastBytes = chunk.length; // before it has been read, and is gone
    this.#allBytes += chunk.length;
    this.#read();
    if (this.#isReady) this.#give();
    else {
      this.#gather();
      this.#rests();
    }
  };

  /** Lets more come before it is read, for a piece that may not be given yet anyway. False: there is no need to. */
  #rests(): boolean {
    const mayRest = this.#gatherMs >= REST.ms && this.#gatherMs !== Number.POSITIVE_INFINITY;
    if (!mayRest || this.#lastBytes < REST.bytes || this.#allBytes < REST.after) return false;
    this.#socket.pause();
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => this.#socket.resume(), REST.ms);
    return true;
  }

  readonly #give = (): void => {
    if (!this.#reader.isOver) this.#socket.pause(); // else it is not ours any more
    this.#wake?.();
  };

  /** Waits for the rest of a piece, but not for long. */
  #gather(): void {
    if (this.#bytes === 0 || this.#timer !== undefined || this.#dueAt === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(this.#give, this.#dueAt - performance.now());
  }

  /** Reads what has come, until that is enough. */
  #read(): void {
    while (this.#unreadBytes > 0 && !this.#isReady) {
      const part = this.#chunk.subarray(this.#readBytes, this.#readBytes + PIECE_BYTES - this.#bytes);
      this.#readBytes += part.length;
      try {
        this.#reader.read(part);
      } catch (error) {
        this.#drop();
        this.#fail(error);
      }
      if (this.#reader.isOver) this.#end();
      if (this.#unreadBytes === 0) this.#drop();
    }
  }

  #drop(): void {
    release(this.#chunk);
    this.#chunk = NOTHING;
    this.#readBytes = 0;
  }

  #end(): void {
    this.#part();
    const isQuiet = this.#unreadBytes + this.#socket.readableLength === 0;
    if (this.#reader.isKept && isQuiet && this.#failure === undefined) this.#left(this.#socket);
    else this.#socket.destroy();
  }

  readonly #lost = (): void => this.#fail(noAnswer("connection lost"));

  /** What has come before is given before that is told. */
  readonly #fail = (error: unknown): void => {
    if (this.#failure !== undefined || this.#reader.isOver) return;
    this.#failure = { error };
    this.#part();
    this.#socket.on("error", () => undefined);
    this.#socket.destroy();
    this.#head.reject(error);
    this.#wake?.();
  };

  #part(): void {
    this.#socket.off("data", this.#take).off("error", this.#fail).off("close", this.#lost);
  }
}
