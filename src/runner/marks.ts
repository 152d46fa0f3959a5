import { WORD } from "./wrapper.ts";

/** What a wrapper says to the runner between the command's output (wrapper.ts). */
export type Word = "ready" | "go" | "no-stty" | "not-run" | { readonly exit: number } | { readonly arrived: number };

/** One stretch of a stream: output of the command, or a word of the wrapper. */
export type Piece = { readonly data: Buffer } | { readonly word: Word };

const FIRST = WORD.charCodeAt(0);
const NEWLINE = 0x0a;
/** The longest word with its line's end: `arrived:4294967296\r\n`. */
const LONGEST_WORD = 20;

/**
 * Tells a wrapper's words from one stream's output. Only bytes that may be the beginning of a word are held back, until
 * the next ones decide it.
 */
export class Marks {
  readonly #prefix: Buffer;
  #held: Buffer = Buffer.alloc(0);

  constructor(executionId: string) {
    this.#prefix = Buffer.from(`${WORD}${executionId}:`);
  }

  /** Whether all of it is output, as most is: then nothing need be done with it. */
  isClear(data: Buffer): boolean {
    return this.#held.length === 0 && !data.includes(FIRST);
  }

  *pieces(data: Buffer): Generator<Piece> {
    let rest = this.#held.length === 0 ? data : Buffer.concat([this.#held, data]);
    this.#held = Buffer.alloc(0);
    for (let at = rest.indexOf(FIRST); at >= 0; at = rest.indexOf(FIRST, at)) {
      const found = this.#wordAt(rest, at);
      if (found === undefined) {
        at += 1;
        continue;
      }
      if (at > 0) yield { data: rest.subarray(0, at) };
      if (found === "unfinished") {
        this.#held = Buffer.from(rest.subarray(at));
        return;
      }
      yield { word: found.word };
      rest = rest.subarray(at + found.length);
      at = 0;
    }
    if (rest.length > 0) yield { data: rest };
  }

  /** At the end of the stream: what was held back was output. */
  *end(): Generator<Piece> {
    if (this.#held.length > 0) yield { data: this.#held };
    this.#held = Buffer.alloc(0);
  }

  #wordAt(bytes: Buffer, at: number): { word: Word; length: number } | "unfinished" | undefined {
    const head = bytes.subarray(at, at + this.#prefix.length);
    if (!this.#prefix.subarray(0, head.length).equals(head)) return undefined;
    const from = at + this.#prefix.length;
    const end = bytes.subarray(from, from + LONGEST_WORD).indexOf(NEWLINE);
    if (end < 0) return bytes.length < from + LONGEST_WORD ? "unfinished" : undefined;
    const word = wordOf(bytes.toString("latin1", from, from + end).replace(/\r$/, ""));
    return word && { word, length: this.#prefix.length + end + 1 };
  }
}

function wordOf(text: string): Word | undefined {
  if (text === "ready" || text === "go" || text === "no-stty" || text === "not-run") return text;
  const [, name, number] = /^(exit|arrived):(\d+)$/.exec(text) ?? [];
  if (name === "exit") return { exit: Number(number) };
  return name === "arrived" ? { arrived: Number(number) } : undefined;
}
