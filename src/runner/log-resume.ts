import { Code, ConnectError } from "@connectrpc/connect";
import { lend, release } from "../memory.ts";

const [NEWLINE, SPACE, POINT, ZERO, NINE, UTC] = [10, 32, 46, 48, 57, 90];
/** Lines of one container come from two pipes, and may be out of order by a moment. */
const DISORDER_MS = 1_000;
/** What is kept of an unfinished line, in bytes. A longer one is sent as it comes, and known by so much of its beginning. */
const LONGEST_LINE = 65_536;
/** Of a timestamp as kubelets write it, to its point: `2026-01-02T03:04:05.`, in bytes. Nine digits and a `Z` follow. */
const TO_SECOND_BYTES = 20;
const STAMP_BYTES = TO_SECOND_BYTES + 10;
const EMPTY = Buffer.alloc(0);

/**
 * Joins the reads of one log into one stream without a gap or a repeat (ruling 17). Every line is asked for with its
 * timestamp, which names it; a read that resumes begins a little before the last line sent, and is skipped up to it.
 * Throws UNAVAILABLE `logs_gap` when that line is no longer served, and for a line without a timestamp: that one is the
 * kubelet's own, in place of a log that it no longer has.
 */
export class LogResume {
  readonly #keepTimestamps: boolean;
  /**
   * The last line sent, with its timestamp, and how often it came in a row: lines can be equal to the nanosecond. `rest` is
   * how many bytes were sent of it beyond LONGEST_LINE.
   */
  #last: { line: string; count: number; time: number; rest: number } | undefined;
  /** The last line sent, while it is in the bytes that are looked at. Of thousands of them, only the last one becomes `#last`. */
  #newest: { from: number; to: number; count: number } | undefined;
  #skip: { seen: number } | undefined;
  /** Within a line beyond LONGEST_LINE; `skip` bytes of what comes of it were sent by an earlier read. */
  #within: { skip: number } | undefined;
  #partial: Buffer = EMPTY;
  /** The beginning of a timestamp that is one, to its point: that of the lines of one second. */
  readonly #second = Buffer.alloc(TO_SECOND_BYTES, NEWLINE); // no line begins like that

  constructor({ keepTimestamps }: { keepTimestamps: boolean }) {
    this.#keepTimestamps = keepTimestamps;
  }

  /** Where the next read must begin, as the API takes it; undefined while nothing was sent. */
  get sinceTime(): string | undefined {
    if (this.#last === undefined) return undefined;
    return new Date(Math.floor((this.#last.time - DISORDER_MS) / 1000) * 1000).toISOString().replace(".000Z", "Z");
  }

  /** A read begins: a line that the last one left unfinished comes again, whole. */
  begin(): void {
    this.#partial = EMPTY;
    this.#within = undefined;
    this.#newest = undefined;
    this.#skip = this.#last === undefined ? undefined : { seen: 0 };
  }

  /**
   * What of this read is to be sent now: whole lines, and as much as there is of one beyond LONGEST_LINE. In memory that may be lent
   * (memory.ts), for whoever has done with it to give back. `data` is not kept.
   */
  take(data: Uint8Array): Uint8Array {
    const out = new Output(this.#partial.length + data.length);
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    let at = 0;
    if (this.#partial.length > 0) {
      at = bytes.indexOf(NEWLINE) + 1 || bytes.length;
      const line = Buffer.concat([this.#partial, bytes.subarray(0, at)]);
      this.#partial = EMPTY;
      this.#lines(line, out);
    }
    if (at < bytes.length) this.#lines(bytes.subarray(at), out);
    return out.whole();
  }

  /** The read ended well: a last line without its newline is whole, too. */
  finish(): Uint8Array {
    const out = new Output(this.#partial.length);
    if (this.#partial.length > 0) this.#line(this.#partial, 0, this.#partial.length, out);
    this.#remember(this.#partial);
    this.#partial = EMPTY;
    if (this.#skip !== undefined) throw gap();
    return out.whole();
  }

  /** Takes whole lines, and keeps what is left. */
  #lines(bytes: Buffer, out: Output): void {
    let at = 0;
    for (;;) {
      const newline = bytes.indexOf(NEWLINE, at);
      const end = newline === -1 ? bytes.length : newline + 1;
      if (this.#within !== undefined) {
        this.#continue(bytes, at, end, this.#within, out);
        at = end;
        if (newline === -1) break;
        this.#within = undefined;
      } else if (end - at > LONGEST_LINE) {
        this.#line(bytes, at, at + LONGEST_LINE, out);
        at += LONGEST_LINE;
        this.#remember(bytes); // what comes of it is counted
      } else if (newline === -1) break;
      else {
        this.#line(bytes, at, end, out);
        at = end;
      }
    }
    this.#remember(bytes);
    if (at < bytes.length) this.#partial = Buffer.from(bytes.subarray(at));
  }

  /** A line, or the beginning of one. */
  #line(bytes: Buffer, from: number, to: number, out: Output): void {
    if (this.#skip !== undefined) {
      this.#pass(bytes, from, to, this.#skip);
      return;
    }
    const text = this.#textFrom(bytes, from, to);
    const { count } = this.#newest ?? this.#last ?? { count: 0 };
    this.#newest = { from, to, count: this.#isLast(bytes, from, to) ? count + 1 : 1 };
    if (isCut(bytes, from, to)) this.#within = { skip: 0 };
    out.add(bytes, this.#keepTimestamps ? from : text, to);
  }

  /** A line that was sent by an earlier read, if it is not before those. */
  #pass(bytes: Buffer, from: number, to: number, skip: { seen: number }): void {
    const line = bytes.toString("latin1", from, to);
    const time = timeOf(line);
    const last = this.#last;
    const isLast = last !== undefined && line === last.line && ++skip.seen === last.count;
    if (isLast) this.#skip = undefined;
    else if (last !== undefined && line !== last.line && time > last.time + DISORDER_MS) throw gap();
    if (isCut(bytes, from, to)) this.#within = { skip: isLast ? last.rest : Number.POSITIVE_INFINITY };
  }

  #continue(bytes: Buffer, from: number, to: number, within: { skip: number }, out: Output): void {
    const fresh = Math.min(to, from + within.skip);
    within.skip = Math.max(0, within.skip - (to - from));
    if (this.#last !== undefined) this.#last.rest += to - fresh;
    out.add(bytes, fresh, to);
  }

  /** Where the text of a line begins, after its timestamp. That of most lines is of the same second as the last one's. */
  #textFrom(bytes: Buffer, from: number, to: number): number {
    if (to - from > STAMP_BYTES && this.#isOfSecond(bytes, from)) return from + STAMP_BYTES + 1;
    const line = bytes.toString("latin1", from, to);
    timeOf(line);
    const stampBytes = line.indexOf(" ");
    const end = from + TO_SECOND_BYTES;
    if (stampBytes >= TO_SECOND_BYTES && bytes[end - 1] === POINT) bytes.copy(this.#second, 0, from, end);
    return from + stampBytes + 1;
  }

  #isOfSecond(bytes: Buffer, from: number): boolean {
    const second = this.#second;
    for (let at = TO_SECOND_BYTES - 1; at >= 0; at--) if (bytes[from + at] !== second[at]) return false;
    for (let at = from + TO_SECOND_BYTES; at < from + STAMP_BYTES - 1; at++) if (!isDigit(bytes[at])) return false;
    return bytes[from + STAMP_BYTES - 1] === UTC && bytes[from + STAMP_BYTES] === SPACE;
  }

  /** Whether a line is the same as the one before it. */
  #isLast(bytes: Buffer, from: number, to: number): boolean {
    const newest = this.#newest;
    if (newest === undefined) return this.#last?.line === bytes.toString("latin1", from, to);
    if (newest.to - newest.from !== to - from) return false;
    // They differ, if they do, by the end of their timestamps.
    const end = Math.min(to - from, STAMP_BYTES);
    for (let at = end - 1; at >= 0; at--) if (bytes[newest.from + at] !== bytes[from + at]) return false;
    return bytes.compare(bytes, newest.from, newest.to, from, to) === 0;
  }

  /** The bytes that were looked at go. */
  #remember(bytes: Buffer): void {
    if (this.#newest === undefined) return;
    const { from, to, count } = this.#newest;
    const line = bytes.toString("latin1", from, to); // one character a byte: an identity, not a text
    this.#last = { line, time: timeOf(line), count, rest: 0 };
    this.#newest = undefined;
  }
}

const gap = (): ConnectError => new ConnectError("logs_gap", Code.Unavailable);

const isDigit = (byte = 0): boolean => byte >= ZERO && byte <= NINE;

/** Whether it is the beginning of a line beyond LONGEST_LINE. */
const isCut = (bytes: Buffer, from: number, to: number): boolean =>
  to - from === LONGEST_LINE && bytes[to - 1] !== NEWLINE;

function timeOf(line: string): number {
  const time = Date.parse(line.slice(0, line.indexOf(" ")));
  if (Number.isNaN(time)) throw gap();
  return time;
}

/** What is to be sent of bytes that go, in memory that is lent. */
class Output {
  readonly #bytes: Buffer;
  #length = 0;

  constructor(most: number) {
    this.#bytes = lend(most);
  }

  add(bytes: Buffer, from: number, to: number): void {
    bytes.copy(this.#bytes, this.#length, from, to);
    this.#length += to - from;
  }

  whole(): Uint8Array {
    if (this.#length > 0) return this.#bytes.subarray(0, this.#length);
    release(this.#bytes);
    return EMPTY;
  }
}
