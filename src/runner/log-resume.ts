import { Code, ConnectError } from "@connectrpc/connect";

const NEWLINE = 10;
const SPACE = 32;
/** Lines of one container come from two pipes, and may be out of order by a moment. */
const DISORDER_MS = 1_000;
/** A line longer than this is sent in parts; the runtime itself cuts lines at 16 KiB (CRI log format). */
const LONGEST_LINE = 1024 * 1024;

/**
 * Joins the reads of one log into one stream without a gap or a repeat (ruling 17). Every line is asked for with its
 * timestamp, which names it; a read that resumes begins a little before the last line sent, and is skipped up to it.
 * Throws UNAVAILABLE `logs_gap` when that line is no longer served.
 */
export class LogResume {
  readonly #keepTimestamps: boolean;
  /** The last line sent, with its timestamp, and how often it came in a row: lines can be equal to the nanosecond. */
  #last: { line: string; count: number; time: number } | undefined;
  #skip: { seen: number } | undefined;
  #partial: Uint8Array = new Uint8Array(0);
  readonly #decoder = new TextDecoder("latin1"); // one character a byte: an identity, not a text

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
    this.#partial = new Uint8Array(0);
    this.#skip = this.#last === undefined ? undefined : { seen: 0 };
  }

  /** What of this read is to be sent now: whole lines. */
  take(data: Uint8Array): Uint8Array {
    const bytes = this.#partial.length === 0 ? data : joined([this.#partial, data]);
    const end = bytes.lastIndexOf(NEWLINE) + 1;
    this.#partial = bytes.slice(end);
    if (this.#partial.length > LONGEST_LINE) throw new ConnectError("logs_stream_error", Code.Internal);
    return this.#lines(bytes.subarray(0, end));
  }

  /** The read ended well: a last line without its newline is whole, too. */
  finish(): Uint8Array {
    const rest = this.#lines(this.#partial);
    this.#partial = new Uint8Array(0);
    if (this.#skip !== undefined) throw gap();
    return rest;
  }

  #lines(bytes: Uint8Array): Uint8Array {
    const fresh: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; ) {
      const newline = bytes.indexOf(NEWLINE, at);
      const end = newline === -1 ? bytes.length : newline + 1;
      const line = bytes.subarray(at, end);
      at = end;
      if (this.#isFresh(line)) fresh.push(this.#keepTimestamps ? line : line.subarray(line.indexOf(SPACE) + 1));
    }
    return fresh.length === 1 ? (fresh[0] ?? bytes) : joined(fresh);
  }

  #isFresh(line: Uint8Array): boolean {
    const text = this.#decoder.decode(line);
    const time = Date.parse(text.slice(0, text.indexOf(" ")));
    if (this.#skip === undefined) {
      this.#last = { line: text, time, count: this.#last?.line === text ? this.#last.count + 1 : 1 };
      return true;
    }
    if (text === this.#last?.line) {
      this.#skip.seen++;
      if (this.#skip.seen === this.#last.count) this.#skip = undefined;
    } else if (this.#last !== undefined && time > this.#last.time + DISORDER_MS) throw gap();
    return false;
  }
}

const gap = (): ConnectError => new ConnectError("logs_gap", Code.Unavailable);

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
