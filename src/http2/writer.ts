import type { Socket } from "node:net";
import { Memory } from "../memory.ts";
import { FRAME_BYTES, HEADER_BYTES } from "./frame.ts";

/** Longer writes go on as they are: a copy of them costs more than a system call. In bytes. */
const LONG_BYTES = 4 * 1024;

/** So many short ones wait at most: of many answers, the client can take the first while the last are made. */
const MOST = 6;

/** DATA that is sent at once at most: all of a message of output or log of 32 KiB, with what stands around it. In bytes. */
export const PART_BYTES = 2 * FRAME_BYTES + 512;
/** That as frames. */
const PIECE_BYTES = PART_BYTES + HEADER_BYTES * Math.ceil(PART_BYTES / FRAME_BYTES);
/** Pieces kept while nothing is in them: enough for 16 streams that write at once. */
const SPARE_PIECES = 32;

/** Of all connections. */
const memory = new Memory(PIECE_BYTES, SPARE_PIECES);

/** Memory for a write of so many bytes, with whatever is in it. */
export const memoryFor = (bytes: number): Buffer<ArrayBuffer> =>
  bytes < LONG_BYTES ? Buffer.allocUnsafe(bytes) : memory.take(bytes);

/**
 * What leaves on a connection. The short writes of one turn of the event loop leave as one: the system call would take most
 * of the time of a short call when many come at once.
 */
export class Writer {
  readonly #socket: Socket;
  #waiting: Buffer<ArrayBuffer>[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Whether so much waits for the client to read it that no more should come; the socket tells of its `drain` then. */
  get isFull(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /** Nobody may change the bytes from now on: those of `memoryFor` are used again. */
  send(bytes: Buffer<ArrayBuffer>): void {
    if (bytes.length >= LONG_BYTES) {
      this.flush();
      if (this.#socket.writable) this.#socket.write(bytes, () => memory.give(bytes));
      return;
    }
    if (this.#waiting.length === 0) queueMicrotask(this.#flushLater);
    this.#waiting.push(bytes);
    if (this.#waiting.length >= MOST) this.flush();
  }

  /** Lets leave what waits for the end of the turn. */
  flush(): void {
    const [first, ...rest] = this.#waiting;
    if (first === undefined) return;
    this.#waiting = [];
    if (this.#socket.writable) this.#socket.write(rest.length === 0 ? first : Buffer.concat([first, ...rest]));
  }

  /** The next tick comes when no promise can go on any more, and so after the answers of all requests that came together. */
  readonly #flushLater = (): void => process.nextTick(this.#flush);
  readonly #flush = (): void => this.flush();
}
