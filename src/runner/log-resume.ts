import { Code, ConnectError } from "@connectrpc/connect";

const NEWLINE = 10;
const SPACE = 32;
/** Lines of one container come from two pipes, and may be out of order by a moment. */
const DISORDER_MS = 1_000;
/** What is kept of an unfinished line, in bytes. A longer one is sent as it comes, and known by so much of its beginning. */
const LONGEST_LINE = 65_536;

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
  #skip: { seen: number } | undefined;
  /** Within a line beyond LONGEST_LINE; `skip` bytes of what comes of it were sent by an earlier read. */
  #within: { skip: number } | undefined;
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
    this.#within = undefined;
    this.#skip = this.#last === undefined ? undefined : { seen: 0 };
  }

  /** What of this read is to be sent now: whole lines, and as much as there is of one beyond LONGEST_LINE. */
  take(data: Uint8Array): Uint8Array {
    const bytes = this.#partial.length === 0 ? data : joined([this.#partial, data]);
    const fresh: Uint8Array[] = [];
    let at = 0;
    for (;;) {
      const newline = bytes.indexOf(NEWLINE, at);
      const end = newline === -1 ? bytes.length : newline + 1;
      if (this.#within !== undefined) {
        fresh.push(this.#continued(bytes.subarray(at, end), this.#within));
        at = end;
        if (newline === -1) break;
        this.#within = undefined;
      } else if (end - at > LONGEST_LINE) {
        fresh.push(this.#line(bytes.subarray(at, at + LONGEST_LINE)));
        at += LONGEST_LINE;
      } else if (newline === -1) break;
      else {
        fresh.push(this.#line(bytes.subarray(at, end)));
        at = end;
      }
    }
    this.#partial = bytes.slice(at);
    return joined(fresh);
  }

  /** The read ended well: a last line without its newline is whole, too. */
  finish(): Uint8Array {
    const rest = this.#partial.length === 0 ? this.#partial : this.#line(this.#partial);
    this.#partial = new Uint8Array(0);
    if (this.#skip !== undefined) throw gap();
    return rest;
  }

  /** What of a line, or of the beginning of one, is to be sent. */
  #line(line: Uint8Array): Uint8Array {
    const skipping = this.#skip !== undefined;
    const fresh = this.#isFresh(line);
    const sent = skipping && this.#skip === undefined ? (this.#last?.rest ?? 0) : Number.POSITIVE_INFINITY;
    if (line.length === LONGEST_LINE && line.at(-1) !== NEWLINE) this.#within = { skip: fresh ? 0 : sent };
    if (!fresh) return line.subarray(0, 0);
    return this.#keepTimestamps ? line : line.subarray(line.indexOf(SPACE) + 1);
  }

  #continued(part: Uint8Array, within: { skip: number }): Uint8Array {
    const fresh = part.subarray(within.skip);
    within.skip = Math.max(0, within.skip - part.length);
    if (this.#last !== undefined) this.#last.rest += fresh.length;
    return fresh;
  }

  #isFresh(line: Uint8Array): boolean {
    const text = this.#decoder.decode(line);
    const time = Date.parse(text.slice(0, text.indexOf(" ")));
    if (Number.isNaN(time)) throw gap();
    if (this.#skip === undefined) {
      this.#last = { line: text, time, count: this.#last?.line === text ? this.#last.count + 1 : 1, rest: 0 };
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
  if (parts.length === 1 && parts[0] !== undefined) return parts[0];
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
