import { huffmanDecoded } from "./huffman.ts";

/*
 * Header fields as they travel in HTTP/2: HPACK, RFC 7541.
 */

/** One header field. Names and values are octets, each a character. */
export interface Field {
  readonly name: string;
  readonly value: string;
  /** Whether it may stand in a request at all (RFC 9113 section 8.2.1). */
  readonly isValid: boolean;
}

// biome-ignore format: a table
/** Appendix A: name and value, from index 1 on. */
const STATIC: readonly (readonly [name: string, value: string])[] = [
  [":authority", ""], [":method", "GET"], [":method", "POST"], [":path", "/"], [":path", "/index.html"],
  [":scheme", "http"], [":scheme", "https"], [":status", "200"], [":status", "204"], [":status", "206"],
  [":status", "304"], [":status", "400"], [":status", "404"], [":status", "500"], ["accept-charset", ""],
  ["accept-encoding", "gzip, deflate"], ["accept-language", ""], ["accept-ranges", ""], ["accept", ""],
  ["access-control-allow-origin", ""], ["age", ""], ["allow", ""], ["authorization", ""], ["cache-control", ""],
  ["content-disposition", ""], ["content-encoding", ""], ["content-language", ""], ["content-length", ""],
  ["content-location", ""], ["content-range", ""], ["content-type", ""], ["cookie", ""], ["date", ""], ["etag", ""],
  ["expect", ""], ["expires", ""], ["from", ""], ["host", ""], ["if-match", ""], ["if-modified-since", ""],
  ["if-none-match", ""], ["if-range", ""], ["if-unmodified-since", ""], ["last-modified", ""], ["link", ""],
  ["location", ""], ["max-forwards", ""], ["proxy-authenticate", ""], ["proxy-authorization", ""], ["range", ""],
  ["referer", ""], ["refresh", ""], ["retry-after", ""], ["server", ""], ["set-cookie", ""],
  ["strict-transport-security", ""], ["transfer-encoding", ""], ["user-agent", ""], ["vary", ""], ["via", ""],
  ["www-authenticate", ""],
];

/** Octets of the dynamic table at most, as both sides have it that do not say otherwise. */
const TABLE_BYTES = 4096;
/** What a field counts in the table beside its name and value. */
const ENTRY_BYTES = 32;
/** A request has no more fields, which here count as in the table: as clients are told by SETTINGS_MAX_HEADER_LIST_SIZE. */
const MAX_FIELDS = 128;
export const MAX_LIST_BYTES = 64 * 1024;
/** No number of ours is as large; a longer one is not read to its end. */
const MOST = 2 ** 28;

const EMPTY = Buffer.alloc(0);

/** A header block that cannot be read: nor can any after it (RFC 9113 section 4.3). */
export class CompressionError extends Error {
  override readonly name = "CompressionError";
}

const fieldOf = (name: string, value: string): Field => ({
  name,
  value,
  isValid: /^:?[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(name) && !/[\0\r\n]|^[ \t]|[ \t]$/.test(value),
});

const STATIC_FIELDS: readonly Field[] = STATIC.map(([name, value]) => ({ name, value, isValid: true }));

/** Reads the header blocks of one connection, all of them and in their order. */
export class HeaderDecoder {
  /** The newest last. */
  readonly #table: Field[] = [];
  #tableBytes = 0;
  #mostBytes = TABLE_BYTES;
  #block: Buffer = EMPTY;
  #at = 0;

  /**
   * The fields of a whole block, in their order; undefined for more of them, or larger ones, than a request may have: a few
   * bytes can stand for many. Throws CompressionError.
   */
  decode(block: Buffer): Field[] | undefined {
    this.#block = block;
    this.#at = 0;
    const fields: Field[] = [];
    let count = 0;
    let bytes = 0;
    while (this.#at < block.length) {
      const first = block[this.#at] ?? 0;
      if ((first & 0xe0) === 0x20) {
        if (count > 0) throw new CompressionError("the size of the table changes behind a field");
        this.#resize(this.#integer(5));
        continue;
      }
      count += 1;
      const isIndexed = (first & 0x80) !== 0;
      const isKept = !isIndexed && (first & 0x40) !== 0;
      // What comes after too much has to be read for the sake of the table alone.
      const isTooMuch = count > MAX_FIELDS || bytes > MAX_LIST_BYTES;
      if (isTooMuch && !isIndexed && !isKept) {
        this.#skipLiteral();
        continue;
      }
      const field = isIndexed ? this.#indexed(this.#integer(7)) : this.#literal(isKept ? 6 : 4);
      if (isKept) this.#keep(field);
      bytes += sizeOf(field);
      if (!isTooMuch) fields.push(field);
    }
    this.#block = EMPTY;
    return count > MAX_FIELDS || bytes > MAX_LIST_BYTES ? undefined : fields;
  }

  #skipLiteral(): void {
    if (this.#integer(4) === 0) this.#skipString();
    this.#skipString();
  }

  #skipString(): void {
    const length = this.#integer(7);
    this.#at += length;
    if (this.#at > this.#block.length) throw new CompressionError("the block ends within a string");
  }

  #literal(prefixBits: number): Field {
    const index = this.#integer(prefixBits);
    const name = index === 0 ? this.#string() : this.#indexed(index).name;
    return fieldOf(name, this.#string());
  }

  #indexed(index: number): Field {
    const field =
      index <= STATIC_FIELDS.length
        ? STATIC_FIELDS[index - 1]
        : this.#table[this.#table.length + STATIC_FIELDS.length - index];
    if (field === undefined) throw new CompressionError(`no field has the index ${index}`);
    return field;
  }

  #keep(field: Field): void {
    this.#table.push(field);
    this.#tableBytes += sizeOf(field);
    this.#evict();
  }

  #resize(bytes: number): void {
    if (bytes > TABLE_BYTES) throw new CompressionError(`a table of ${bytes} octets is more than was granted`);
    this.#mostBytes = bytes;
    this.#evict();
  }

  #evict(): void {
    while (this.#tableBytes > this.#mostBytes) {
      const oldest = this.#table.shift();
      if (oldest === undefined) return;
      this.#tableBytes -= sizeOf(oldest);
    }
  }

  #byte(): number {
    const byte = this.#block[this.#at];
    if (byte === undefined) throw new CompressionError("the block ends within a field");
    this.#at += 1;
    return byte;
  }

  /** Section 5.1. */
  #integer(prefixBits: number): number {
    const most = 2 ** prefixBits - 1;
    let value = this.#byte() & most;
    if (value < most) return value;
    for (let shift = 1; ; shift *= 128) {
      const byte = this.#byte();
      value += (byte & 0x7f) * shift;
      if (value > MOST || shift > MOST) throw new CompressionError("a number is too large");
      if ((byte & 0x80) === 0) return value;
    }
  }

  /** Section 5.2. */
  #string(): string {
    const isHuffman = ((this.#block[this.#at] ?? 0) & 0x80) !== 0;
    const length = this.#integer(7);
    const end = this.#at + length;
    if (end > this.#block.length) throw new CompressionError("the block ends within a string");
    const begin = this.#at;
    this.#at = end;
    if (!isHuffman) return this.#block.toString("latin1", begin, end);
    const text = huffmanDecoded(this.#block.subarray(begin, end));
    if (text === undefined) throw new CompressionError("a string has no code");
    return text;
  }
}

const sizeOf = ({ name, value }: Field): number => name.length + value.length + ENTRY_BYTES;

/** Index of the first static field with a name, and of those with a value as well. */
const INDEX = new Map<string, number>();
STATIC.forEach(([name, value], index) => {
  if (!INDEX.has(name)) INDEX.set(name, index + 1);
  if (value !== "") INDEX.set(`${name}: ${value}`, index + 1);
});

/**
 * A whole block with these fields, in their order; names in lower case. It neither fills nor needs the table of whoever
 * reads it, so that it can be kept and sent again, on any connection.
 */
export function encodeHeaders(fields: Iterable<readonly [name: string, value: string]>): Buffer {
  const octets: number[] = [];
  const integer = (value: number, prefixBits: number, flags: number): void => {
    const most = 2 ** prefixBits - 1;
    octets.push(flags | Math.min(value, most));
    if (value < most) return;
    let rest = value - most;
    for (; rest >= 128; rest = Math.floor(rest / 128)) octets.push((rest % 128) | 0x80);
    octets.push(rest);
  };
  const string = (text: string): void => {
    const bytes = Buffer.from(text, "latin1");
    integer(bytes.length, 7, 0);
    for (const byte of bytes) octets.push(byte);
  };
  for (const [name, value] of fields) {
    const whole = INDEX.get(`${name}: ${value}`);
    if (whole !== undefined) {
      integer(whole, 7, 0x80);
      continue;
    }
    const index = INDEX.get(name);
    integer(index ?? 0, 4, 0);
    if (index === undefined) string(name);
    string(value);
  }
  return Buffer.from(octets);
}
