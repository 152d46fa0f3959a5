/** More than any answer of an API server has, in bytes: of its header fields, and of what may follow a body in chunks. */
const MAX_HEAD_BYTES = 64 * 1024;
/** The line before a chunk: its length, and extensions that say nothing to us. In bytes. */
const MAX_SIZE_LINE_BYTES = 256;
/** Of the length of a chunk: 2^52 bytes are exact, and more than any body. */
const MAX_SIZE_DIGITS = 13;

const [CR, LF, SEMICOLON, SPACE, TAB] = [13, 10, 59, 32, 9];
const HEAD_END = Buffer.from("\r\n\r\n");
const EMPTY = Buffer.alloc(0);

/** Names in lower case; the values of one name are joined by a comma. */
export type HeaderFields = Readonly<Record<string, string>>;

/** Who is told of an answer, in its order. */
export interface ResponseHandler {
  head(status: number, fields: HeaderFields): void;
  /** Content: the bytes of `chunk` from `from` to `to`, which are given to it until it returns. */
  data(chunk: Buffer, from: number, to: number): void;
}

/** What no answer of HTTP/1.1 may be. */
export class ResponseError extends Error {}

/** What comes next: a head, content of a length that is known, one of the parts of content in chunks, content without an end. */
type Part =
  | "head"
  | "content"
  | "endless"
  | "size"
  | "sizeBlank"
  | "extension"
  | "sizeEnd"
  | "chunk"
  | "chunkReturn"
  | "chunkFeed"
  | "trailers"
  | "none";

/**
 * Takes the answer to one GET from a connection of HTTP/1.1 in any pieces (RFC 9112), and tells of it. Throws ResponseError for
 * what is none; then it must not be given any more. An answer whose end only that of its connection would tell never ends.
 */
export class ResponseReader {
  readonly #handler: ResponseHandler;
  #part: Part = "head";
  /** Of a head, or of trailers, that are not complete: the first `#linesBytes` of it. */
  #lines: Buffer = EMPTY;
  #linesBytes = 0;
  /** Bytes of the content, or of a chunk, that are still to come. */
  #left = 0;
  #digits = 0;
  #lineBytes = 0;
  #isKept = false;

  constructor(handler: ResponseHandler) {
    this.#handler = handler;
  }

  /** Whether only the end of the connection ends the content. */
  get isEndless(): boolean {
    return this.#part === "endless";
  }

  /** Whether the answer is complete. */
  get isOver(): boolean {
    return this.#part === "none";
  }

  /** Whether the connection of a complete answer can be used for another request. */
  get isKept(): boolean {
    return this.#isKept;
  }

  read(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && !this.isOver) at = this.#step(chunk, at);
    if (at < chunk.length) this.#isKept = false; // nobody has asked for what comes there
  }

  /** Takes one thing, or as much of it as is there; returns where the next begins. */
  #step(chunk: Buffer, at: number): number {
    switch (this.#part) {
      case "head":
      case "trailers":
        return this.#takeLines(chunk, at);
      case "content":
      case "chunk":
        return this.#takeContent(chunk, at);
      case "endless":
        this.#handler.data(chunk, at, chunk.length);
        return chunk.length;
      default:
        this.#takeFraming(chunk[at] ?? 0);
        return at + 1;
    }
  }

  #takeContent(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#left);
    this.#left -= end - at;
    this.#handler.data(chunk, at, end);
    if (this.#left > 0) return end;
    this.#part = this.#part === "content" ? "none" : "chunkReturn";
    return end;
  }

  /** One byte of what stands around the chunks of a body (section 7.1). */
  #takeFraming(byte: number): void {
    switch (this.#part) {
      case "chunkReturn":
      case "chunkFeed":
        if (byte !== (this.#part === "chunkReturn" ? CR : LF))
          throw new ResponseError("a chunk of another length than its own");
        if (byte === CR) this.#part = "chunkFeed";
        else this.#beginSize();
        return;
      case "sizeEnd":
        if (byte !== LF) throw new ResponseError("the length of a chunk is no line");
        this.#beginChunk();
        return;
      default:
        this.#takeSize(byte);
    }
  }

  #beginSize(): void {
    this.#part = "size";
    this.#left = 0;
    this.#digits = 0;
    this.#lineBytes = 0;
  }

  #takeSize(byte: number): void {
    if (++this.#lineBytes > MAX_SIZE_LINE_BYTES) throw new ResponseError("the line before a chunk is too long");
    const digit = this.#part === "size" ? digitOf(byte) : -1;
    if (digit >= 0) {
      if (++this.#digits > MAX_SIZE_DIGITS) throw new ResponseError("a chunk is too long");
      this.#left = this.#left * 16 + digit;
    } else if (this.#digits === 0) throw new ResponseError("a chunk without its length");
    else if (byte === CR) this.#part = "sizeEnd";
    else if (byte === SEMICOLON || (this.#part === "extension" && byte !== LF)) this.#part = "extension";
    else if (isBlank(byte)) this.#part = "sizeBlank";
    else throw new ResponseError("the length of a chunk is no number");
  }

  #beginChunk(): void {
    this.#part = this.#left > 0 ? "chunk" : "trailers";
    // As if the head had ended just before: trailers may be none.
    if (this.#left === 0) this.#join(Buffer.from("\r\n"), 0);
  }

  /** Lines up to an empty one. */
  #takeLines(chunk: Buffer, at: number): number {
    const before = this.#linesBytes;
    const lines = before === 0 ? chunk.subarray(at) : this.#join(chunk, at);
    const end = lines.indexOf(HEAD_END, Math.max(0, before - HEAD_END.length + 1));
    if ((end < 0 ? lines.length - HEAD_END.length + 1 : end) > MAX_HEAD_BYTES)
      throw new ResponseError("header fields without an end");
    if (end < 0) {
      if (before === 0) this.#join(chunk, at);
      return chunk.length;
    }
    this.#lines = EMPTY;
    this.#linesBytes = 0;
    if (this.#part === "trailers") this.#part = "none";
    else this.#takeHead(lines.toString("latin1", 0, end));
    return at + end + HEAD_END.length - before;
  }

  /** Adds to what is there, in a room that doubles: a head that comes byte by byte is not copied with each. */
  #join(chunk: Buffer, at: number): Buffer {
    const bytes = this.#linesBytes + chunk.length - at;
    if (bytes > this.#lines.length) {
      const room = Buffer.allocUnsafeSlow(2 * bytes);
      this.#lines.copy(room, 0, 0, this.#linesBytes);
      this.#lines = room;
    }
    chunk.copy(this.#lines, this.#linesBytes, at);
    this.#linesBytes = bytes;
    return this.#lines.subarray(0, bytes);
  }

  #takeHead(text: string): void {
    const [first = "", ...lines] = text.split("\r\n");
    const [, version, digits] = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: .*)?$/.exec(first) ?? [];
    if (digits === undefined) throw new ResponseError("no answer of HTTP/1.1");
    const status = Number(digits);
    if (status === 101) throw new ResponseError("another protocol, which was not asked for");
    if (status < 200) return; // an answer follows (RFC 9110 section 15.2)
    const fields = fieldsOf(lines);
    if (version === "0" && "transfer-encoding" in fields) throw new ResponseError("chunks in HTTP/1.0");
    this.#isKept = version === "1" && !listOf(fields.connection).includes("close");
    this.#begin(status, fields);
    this.#handler.head(status, fields);
  }

  /** How the content ends (section 6.3). */
  #begin(status: number, { "transfer-encoding": encoding, "content-length": length }: HeaderFields): void {
    if (status === 204 || status === 304) this.#part = "none";
    else if (encoding !== undefined) {
      if (length !== undefined || encoding.toLowerCase() !== "chunked")
        throw new ResponseError("content whose end cannot be told");
      this.#beginSize();
    } else if (length !== undefined) {
      if (!/^\d{1,15}$/.test(length)) throw new ResponseError("a length that is no number");
      this.#left = Number(length);
      this.#part = this.#left > 0 ? "content" : "none";
    } else this.#part = "endless";
  }
}

/** Of a hexadecimal digit; -1 of anything else. */
function digitOf(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const letter = byte | 0x20;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}

/** RFC 9110 sections 5.1 and 5.5. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[\t -~\x80-\xff]*$/;

function fieldsOf(lines: readonly string[]): HeaderFields {
  const fields: Record<string, string> = Object.create(null);
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(0, colon)).toLowerCase();
    if (!TOKEN.test(name) || !VALUE.test(line)) throw new ResponseError("a line that is no header field");
    const value = trimmed(line, colon + 1);
    const known = fields[name];
    fields[name] = known === undefined ? value : `${known}, ${value}`;
  }
  return fields;
}

/** Without the spaces and tabs around it: no other ones are to be left out. */
function trimmed(line: string, begin: number): string {
  let [from, to] = [begin, line.length];
  while (from < to && isBlank(line.charCodeAt(from))) from++;
  while (to > from && isBlank(line.charCodeAt(to - 1))) to--;
  return line.slice(from, to);
}

const isBlank = (code: number): boolean => code === SPACE || code === TAB;

const listOf = (value = ""): string[] => value.split(",").map((each) => each.trim().toLowerCase());
