/*
 * The code of strings in HPACK (RFC 7541 section 5.2 and appendix B). It is canonical: symbols of one length follow each other
 * by their value, so the lengths say all.
 */

// biome-ignore format: a table
/** Bits of the code of each octet; the last is that of the end of the string, with which none is filled up but in part. */
const LENGTHS = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
  28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6,
  12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15,
  5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20,
  22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
  23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
  21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26,
  27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const END = 256;
const LONGEST = Math.max(...LENGTHS);
/** What is left of the last octet is filled up with fewer bits than make one, all of them 1. */
const PADDING_BITS = 7;

/** By length: the first code, how many there are, and where their symbols begin in SYMBOLS. */
const FIRST = new Int32Array(LONGEST + 1);
const COUNT = new Int32Array(LONGEST + 1);
const START = new Int32Array(LONGEST + 1);
const SYMBOLS: number[] = [];
for (let length = 1, code = 0; length <= LONGEST; length++, code *= 2) {
  FIRST[length] = code;
  START[length] = SYMBOLS.length;
  LENGTHS.forEach((each, symbol) => {
    if (each === length) SYMBOLS.push(symbol);
  });
  COUNT[length] = SYMBOLS.length - (START[length] ?? 0);
  code += COUNT[length] ?? 0;
}

/** The octets of a string, each as a character; undefined when it is none of this code. */
export function huffmanDecoded(bytes: Uint8Array): string | undefined {
  const octets: number[] = [];
  let code = 0;
  let length = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      code = (code << 1) | ((byte >> bit) & 1);
      length += 1;
      const index = code - (FIRST[length] ?? 0);
      if (index >= (COUNT[length] ?? 0)) {
        if (length === LONGEST) return undefined;
        continue;
      }
      const symbol = SYMBOLS[(START[length] ?? 0) + index] ?? END;
      if (symbol === END) return undefined;
      octets.push(symbol);
      code = 0;
      length = 0;
    }
  }
  if (length > PADDING_BITS || code !== 2 ** length - 1) return undefined;
  return Buffer.from(octets).toString("latin1");
}
