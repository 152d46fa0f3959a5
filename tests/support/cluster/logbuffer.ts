/**
 * What a container has written, line by line with its time, stdout and stderr in the order of arrival. Bounded: the
 * oldest lines go first, as the kubelet's rotation does. Reads can follow.
 */

/** Lines are kept in blocks of one read each: an object for each would be larger than many a line. */
interface Block {
  /** Number of its first line since the start. */
  readonly first: number;
  /** Nanoseconds since 1970 of the first line; the others follow a nanosecond apart, so all differ. */
  readonly time: bigint;
  readonly count: number;
  /** Whole lines; or a single one without its end. */
  readonly data: Uint8Array;
}

export interface LogOptions {
  readonly follow: boolean;
  readonly timestamps: boolean;
  readonly tailLines: number | undefined;
  /** Nanoseconds since 1970; earlier lines are left out. */
  readonly since: bigint | undefined;
}

/** containerd takes a longer piece without a line end for a line. */
const LONGEST_LINE = 16_384;
const LINE_END = 10;

export class LogBuffer {
  readonly #limitBytes: number;
  readonly #blocks: Block[] = [];
  readonly #partial = new Map<string, Uint8Array>();
  #bytes = 0;
  #lines = 0;
  #lastTime = 0n;
  #closed = false;
  #changed = Promise.withResolvers<void>();

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** `stream` tells the two outputs apart, whose unfinished lines must not mix. The data is copied. */
  append(stream: "stdout" | "stderr", data: Uint8Array): void {
    const before = this.#partial.get(stream);
    const all = before === undefined ? Buffer.from(data) : Buffer.concat([before, data]);
    const end = all.lastIndexOf(LINE_END) + 1;
    this.#push(all.subarray(0, end), countLines(all.subarray(0, end)));
    let start = end;
    for (; all.length - start > LONGEST_LINE; start += LONGEST_LINE)
      this.#push(all.subarray(start, start + LONGEST_LINE), 1);
    this.#partial.set(stream, all.subarray(start));
  }

  /** Nothing more will come. A last line without an end stays without. */
  close(): void {
    for (const rest of this.#partial.values()) this.#push(rest, 1);
    this.#closed = true;
    this.#announce();
  }

  /** Pieces of the log as they are to be sent. With `follow` until `close` or the signal. */
  async *read({ follow, timestamps, tailLines, since }: LogOptions, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const over = aborted(signal);
    let next = tailLines === undefined ? 0 : Math.max(0, this.#lines - tailLines);
    for (;;) {
      const changed = this.#changed.promise;
      for (let block = this.#blockFrom(next); block !== undefined; block = this.#blockFrom(next)) {
        const { first, time, count, data } = block;
        const skip = Math.max(0, next - first, since === undefined ? 0 : Number(since - time));
        next = first + count;
        if (skip >= count) continue;
        const wanted = data.subarray(startOfLine(data, skip));
        yield timestamps ? stamped(wanted, time + BigInt(skip)) : wanted;
        if (signal.aborted) return;
      }
      if (!follow || this.#closed || signal.aborted) return;
      await Promise.race([changed, over]);
    }
  }

  #push(data: Uint8Array, count: number): void {
    if (data.length === 0) return;
    const now = BigInt(Date.now()) * 1_000_000n;
    const time = now > this.#lastTime ? now : this.#lastTime + 1n;
    this.#lastTime = time + BigInt(count - 1);
    this.#blocks.push({ first: this.#lines, time, count, data });
    this.#lines += count;
    this.#bytes += data.length;
    while (this.#bytes > this.#limitBytes && this.#blocks.length > 1)
      this.#bytes -= this.#blocks.shift()?.data.length ?? 0;
    this.#announce();
  }

  /** The block that holds this line, or the oldest one when it is gone; undefined when it is still to come. */
  #blockFrom(line: number): Block | undefined {
    if (line >= this.#lines) return undefined;
    let low = 0;
    let high = this.#blocks.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((this.#blocks[middle]?.first ?? 0) <= line) low = middle;
      else high = middle - 1;
    }
    return this.#blocks[low];
  }

  #announce(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}

function countLines(data: Uint8Array): number {
  let count = 0;
  for (let at = data.indexOf(LINE_END); at >= 0; at = data.indexOf(LINE_END, at + 1)) count++;
  return count;
}

/** Where line `skip` begins, counted from 0. */
function startOfLine(data: Uint8Array, skip: number): number {
  let at = 0;
  for (let line = 0; line < skip; line++) at = data.indexOf(LINE_END, at) + 1;
  return at;
}

/** RFC 3339 with nine decimals before every line, as the kubelet prints it. `time` is that of the first. */
function stamped(data: Uint8Array, time: bigint): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let start = 0, index = 0n; start < data.length; index++) {
    const at = time + index;
    const seconds = new Date(Number(at / 1_000_000n)).toISOString().slice(0, 19);
    const found = data.indexOf(LINE_END, start);
    const end = found < 0 ? data.length : found + 1;
    parts.push(Buffer.from(`${seconds}.${String(at % 1_000_000_000n).padStart(9, "0")}Z `), data.subarray(start, end));
    start = end;
  }
  return Buffer.concat(parts);
}

/** Resolves when the signal aborts. */
function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
