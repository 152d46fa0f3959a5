import type { Socket } from "node:net";
import { Memory } from "../memory.ts";
import { FRAME_BYTES, HEADER_BYTES } from "./frame.ts";

/** Longer writes go on as they are: a copy of them costs more than a system call. In bytes. */
const LONG_BYTES = 8 * 1024;

/** So many short ones wait at most: of many answers, the client can take the first while the last are made. */
const MOST = 6;

/** DATA that is sent at once at most: all of a message of log of 64 KiB, with what stands around it. In bytes. */
export const PART_BYTES = 4 * FRAME_BYTES + 512;
/** That as frames, behind short writes that wait. */
const PIECE_BYTES = PART_BYTES + HEADER_BYTES * Math.ceil(PART_BYTES / FRAME_BYTES) + LONG_BYTES;
/** Pieces kept while nothing is in them: enough for 16 streams that write at once. */
const SPARE_PIECES = 16;

/** Of all connections. */
const memory = new Memory(PIECE_BYTES, SPARE_PIECES);

/**
 * What leaves on a connection. The short writes of one turn of the event loop leave as one: the system call would take most
 * of the time of a short call when many come at once.
 */
export class Writer {
  readonly #socket: Socket;
  #waiting: Buffer<ArrayBuffer>[] = [];
  #waitingBytes = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Whether so much waits for the client to read it that no more should come; the socket tells of its `drain` then. */
  get isFull(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /**
   * Memory whose last `bytes` are to be filled and sent at once. Before them stands what waits, if they are many: then it leaves
   * with them, as one.
   */
  room(bytes: number): Buffer<ArrayBuffer> {
    if (bytes < LONG_BYTES) return Buffer.allocUnsafe(bytes);
    if (this.#waitingBytes > LONG_BYTES) this.flush();
    const room = memory.take(this.#waitingBytes + bytes);
    let at = 0;
    for (const each of this.#taken()) {
      room.set(each, at);
      at += each.length;
    }
    return room;
  }

  /** Nobody may change the bytes from now on: those of `room` are used again. */
  send(bytes: Buffer<ArrayBuffer>): void {
    if (bytes.length >= LONG_BYTES) {
      this.flush();
      if (this.#socket.writable) this.#socket.write(bytes, () => memory.give(bytes));
      return;
    }
    if (this.#waiting.length === 0) queueMicrotask(this.#flushLater);
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#waiting.length >= MOST) this.flush();
  }

  /** Lets leave what waits for the end of the turn. */
  flush(): void {
    const [first, ...rest] = this.#taken();
    if (first === undefined) return;
    if (this.#socket.writable) this.#socket.write(rest.length === 0 ? first : Buffer.concat([first, ...rest]));
  }

  /** What waits, which does so no more. */
  #taken(): Buffer<ArrayBuffer>[] {
    const waiting = this.#waiting;
    if (waiting.length > 0) this.#waiting = [];
    this.#waitingBytes = 0;
    return waiting;
  }

  /** The next tick comes when no promise can go on any more, and so after the answers of all requests that came together. */
  readonly #flushLater = (): void => process.nextTick(this.#flush);
  readonly #flush = (): void => this.flush();
}
