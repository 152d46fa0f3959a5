import type { Socket } from "node:net";
import { release } from "../memory.ts";
import { noAnswer } from "./error.ts";
import { type HeaderFields, type ResponseHandler, ResponseReader } from "./response.ts";

/** Of a short read at a time: messages then cost little beside their bytes. */
const PIECE_BYTES = 64 * 1024;
/** Room for a piece, which ends with the chunk that makes it one. */
const PIECE_ROOM = PIECE_BYTES + 32 * 1024;

/** The head of an answer. */
interface Head {
  readonly status: number;
  readonly fields: HeaderFields;
}

/** The answer to a request, as it comes on a connection of HTTP/1.1: first its head, then its content when that is asked for. */
export class Incoming implements ResponseHandler {
  readonly #socket: Socket;
  readonly #reader = new ResponseReader(this);
  readonly #content: Content;
  readonly #left: (socket: Socket) => void;
  readonly #head = Promise.withResolvers<Head>();
  #isOver = false;
  #failure: { error: unknown } | undefined;
  #wake: (() => void) | undefined;

  /** `left` gets the connection, once it can be used again. */
  constructor(socket: Socket, content: Content, left: (socket: Socket) => void) {
    this.#socket = socket;
    this.#content = content;
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

  /** The next bytes, undefined at the end. After the last ones throws what the answer failed with. */
  async next(): Promise<Uint8Array | undefined> {
    const content = this.#content;
    content.drop();
    if (!content.isEnough && !this.#isOver) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.#socket.resume();
      await promise;
    }
    const bytes = content.take();
    if (bytes === undefined && this.#failure !== undefined) throw this.#failure.error;
    return bytes;
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
    this.#content.add(chunk, from, to);
  }

  readonly #take = (chunk: Buffer): void => {
    try {
      this.#reader.read(chunk);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#content.taken(chunk);
    if (this.#reader.isOver) this.#end();
    else if (this.#content.isEnough) this.#socket.pause();
    else return;
    this.#wake?.();
  };

  #end(): void {
    this.#isOver = true;
    this.#part();
    if (this.#reader.isKept) this.#left(this.#socket);
    else this.#socket.destroy();
  }

  readonly #lost = (): void => this.#fail(noAnswer("connection lost"));

  readonly #fail = (error: unknown): void => {
    if (this.#isOver) return;
    this.#isOver = true;
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

/** Content that has come and has not been taken. */
interface Content {
  readonly isEnough: boolean;
  /** Bytes of `chunk` from `from` to `to`. */
  add(chunk: Buffer, from: number, to: number): void;
  /** All that there is to add of it has been added. */
  taken(chunk: Buffer): void;
  /** All of it, undefined for nothing. */
  take(): Uint8Array | undefined;
  /** What was taken is done with. */
  drop(): void;
}

/** As it comes: what has come together is taken as one. */
export class Lasting implements Content {
  #waiting: Buffer[] = [];

  get isEnough(): boolean {
    return this.#waiting.length > 0;
  }

  add(chunk: Buffer, from: number, to: number): void {
    this.#waiting.push(chunk.subarray(from, to));
  }

  taken(): void {}

  take(): Uint8Array | undefined {
    const waiting = this.#waiting;
    this.#waiting = [];
    return waiting.length > 1 ? Buffer.concat(waiting) : waiting[0];
  }

  drop(): void {}
}

/**
 * In pieces of 64 KiB, put together in the same place one after the other. An API server writes a log line by line; to be given each
 * by itself costs more than all else that is done with it.
 */
export class Pieces implements Content {
  #room = Buffer.allocUnsafeSlow(PIECE_ROOM);
  #bytes = 0;
  /** How many of them are taken, and not done with. */
  #takenBytes = 0;

  get isEnough(): boolean {
    return this.#bytes >= PIECE_BYTES;
  }

  add(chunk: Buffer, from: number, to: number): void {
    const end = this.#bytes + to - from;
    if (end > this.#room.length) {
      const room = Buffer.allocUnsafeSlow(2 * end);
      this.#room.copy(room, 0, 0, this.#bytes);
      this.#room = room;
    }
    chunk.copy(this.#room, this.#bytes, from, to);
    this.#bytes = end;
  }

  taken(chunk: Buffer): void {
    release(chunk);
  }

  take(): Uint8Array | undefined {
    this.#takenBytes = this.#bytes;
    return this.#bytes === 0 ? undefined : this.#room.subarray(0, this.#bytes);
  }

  drop(): void {
    this.#room.copyWithin(0, this.#takenBytes, this.#bytes);
    this.#bytes -= this.#takenBytes;
    this.#takenBytes = 0;
  }
}
