import { afterEach, describe, expect, mock, spyOn, test } from "bun:test";
import fc from "fast-check";
import { type HeaderFields, ResponseError, ResponseReader } from "../../src/kube/response.ts";

const KIBIBYTE = 1024;
const MAX_HEAD_BYTES = 64 * KIBIBYTE;
const MAX_SIZE_LINE_BYTES = 256;

/** What was told of an answer, and what the reader says after its last byte. */
interface Told {
  readonly heads: { status: number; fields: HeaderFields }[];
  readonly body: string;
  readonly isOver: boolean;
  readonly isKept: boolean;
}

/** A reader that remembers; each piece is a copy that is spoiled once it was read. */
function remembering() {
  const heads: { status: number; fields: HeaderFields }[] = [];
  const body: string[] = [];
  const reader = new ResponseReader({
    head: (status, fields) => heads.push({ status, fields: { ...fields } }),
    data: (chunk, from, to) => {
      expect(to).toBeGreaterThan(from);
      expect(heads).toHaveLength(1);
      body.push(chunk.toString("latin1", from, to));
    },
  });
  return {
    read: (bytes: Buffer) => {
      const piece = Buffer.from(bytes);
      reader.read(piece);
      piece.fill(0x21);
    },
    told: (): Told => ({ heads, body: body.join(""), isOver: reader.isOver, isKept: reader.isKept }),
  };
}

/** What is told of bytes that come in these pieces. */
function read(pieces: readonly Buffer[]): Told {
  const reader = remembering();
  for (const piece of pieces) reader.read(piece);
  return reader.told();
}

const bytesOf = (text: string): Buffer => Buffer.from(text, "latin1");

/** The bytes, cut at each of `places`. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const edges = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge));
}

const singly = (bytes: Buffer): Buffer[] => [...bytes].map((byte) => Buffer.from([byte]));

/** Every way to cut the bytes that has at most two pieces, and the one with a piece for each byte. */
const cutsOf = (bytes: Buffer): Buffer[][] => [
  singly(bytes),
  ...Array.from({ length: bytes.length }, (_, place) => cut(bytes, [place])),
];

interface Answer {
  readonly text: string;
  readonly status?: number;
  readonly fields: Record<string, string>;
  readonly body?: string;
  /** Without it: it is over at its last byte, and not before. */
  readonly isOver?: false;
  readonly isKept?: false;
}

const chunked = { "transfer-encoding": "chunked" };
const inChunks = (rest: string) => `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${rest}`;

const answers: Record<string, Answer> = {
  "of a length": {
    text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    fields: { "content-length": "5" },
    body: "hello",
  },
  "of a length with zeros before it, and a content that looks like a head": {
    text: "HTTP/1.1 200 OK\r\ncontent-length:\t00019 \r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    fields: { "content-length": "00019" },
    body: "HTTP/1.1 200 OK\r\n\r\n",
  },
  "of no content": { text: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", fields: { "content-length": "0" } },
  "of an error": {
    text: "HTTP/1.1 599 \r\ncontent-length: 2\r\n\r\n{}",
    status: 599,
    fields: { "content-length": "2" },
    body: "{}",
  },
  "of a status without a phrase, and fields without and with odd values": {
    text: 'HTTP/1.1 404\r\nA:\r\nB: \t \r\nC:x : y\t"z"\xff\x80\r\n!#$%&\'*+-.^_`|~9: 1\r\ncontent-length: 0\r\n\r\n',
    status: 404,
    fields: { a: "", b: "", c: 'x : y\t"z"\xff\x80', "!#$%&'*+-.^_`|~9": "1", "content-length": "0" },
  },
  "with fields that come again, and a name that objects have": {
    text: "HTTP/1.1 200 OK\r\nA: 1\r\n__proto__: p\r\na: 2\r\nContent-Length: 1\r\nA: 3\r\n\r\nx",
    fields: { a: "1, 2, 3", ["__proto__"]: "p", "content-length": "1" },
    body: "x",
  },
  "in chunks": { text: inChunks("5\r\nhello\r\n1\r\n \r\n0\r\n\r\n"), fields: chunked, body: "hello " },
  "in no chunks": { text: inChunks("0\r\n\r\n"), fields: chunked },
  "in chunks, in capitals": {
    text: "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    fields: { "transfer-encoding": "CHUNKED" },
    body: "x",
  },
  "in chunks whose lengths have letters": {
    text: inChunks(
      `a\r\n0123456789\r\nB\r\n0123456789a\r\n1f\r\n${"x".repeat(31)}\r\n1C\r\n${"y".repeat(28)}\r\n0\r\n\r\n`,
    ),
    fields: chunked,
    body: `01234567890123456789a${"x".repeat(31)}${"y".repeat(28)}`,
  },
  "in chunks with zeros before their lengths": {
    text: inChunks("0000000000002\r\nab\r\n0000000000000\r\n\r\n"),
    fields: chunked,
    body: "ab",
  },
  "in chunks that hold line ends, lengths and an end": {
    text: inChunks("9\r\n\r\n0\r\n\r\n\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n"),
    fields: chunked,
    body: "\r\n0\r\n\r\n\r\n\r\n\r\n",
  },
  "in chunks with extensions": {
    text: inChunks('2;a\r\nab\r\n1 ; b="c; 9"\r\nc\r\n1\t\r\nd\r\n0;end\r\n\r\n'),
    fields: chunked,
    body: "abcd",
  },
  "in chunks with trailers": {
    text: inChunks("2\r\nab\r\n0\r\nA: 1\r\nContent-Length: 7\r\n\r\n"),
    fields: chunked,
    body: "ab",
  },
  "204": { text: "HTTP/1.1 204 No Content\r\na: b\r\n\r\n", status: 204, fields: { a: "b" } },
  "304, with the length of another": {
    text: "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    status: 304,
    fields: { "content-length": "9" },
  },
  "204, with content that it cannot have": {
    text: "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
    status: 204,
    fields: { "content-length": "9" },
  },
  "304, with chunks that it cannot have": {
    text: "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
    status: 304,
    fields: { "transfer-encoding": "chunked" },
  },
  "304": { text: "HTTP/1.1 304 Not Modified\r\n\r\n", status: 304, fields: {} },
  "after others that are none yet": {
    text: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\ncontent-length: 3\r\nconnection: close\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
    fields: { "content-length": "1" },
    body: "x",
  },
  "of HTTP/1.0": {
    text: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nab",
    fields: { "content-length": "2", connection: "keep-alive" },
    body: "ab",
    isKept: false,
  },
  "that closes": {
    text: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab",
    fields: { connection: "close", "content-length": "2" },
    body: "ab",
    isKept: false,
  },
  "that closes, told among others": {
    text: `HTTP/1.1 200 OK\r\nConnection: upgrade ,\tClose\r\nConnection: x\r\n${inChunks("0\r\n\r\n").slice(17)}`,
    fields: { connection: "upgrade ,\tClose, x", ...chunked },
    isKept: false,
  },
  "that only speaks of closing": {
    text: "HTTP/1.1 200 OK\r\nConnection: closed, x-close\r\nContent-Length: 0\r\n\r\n",
    fields: { connection: "closed, x-close", "content-length": "0" },
  },
  "without an end": { text: "HTTP/1.1 200 OK\r\n\r\nany\r\n\r\n", fields: {}, body: "any\r\n\r\n", isOver: false },
};

const told = ({ status = 200, fields, body = "", isOver, isKept }: Answer): Told => ({
  heads: [{ status, fields }],
  body,
  isOver: isOver ?? true,
  isKept: isKept ?? true,
});

describe("an answer is told the same from any cut of its bytes", () => {
  test.each(Object.entries(answers))("%s", (_, answer) => {
    const bytes = bytesOf(answer.text);
    for (const pieces of cutsOf(bytes)) expect(read(pieces)).toEqual(told(answer));
  });

  test("any of them, cut at random, with pieces of nothing", () => {
    const cuts = fc.array(fc.nat(1_000), { maxLength: 12 });
    fc.assert(
      fc.property(fc.constantFrom(...Object.values(answers)), cuts, (answer, places) => {
        expect(read(cut(bytesOf(answer.text), places))).toEqual(told(answer));
      }),
    );
  });

  test("any content in chunks of any length", () => {
    const chunks = fc.record({
      text: fc.string({ minLength: 1, maxLength: 300 }).map((text) => Buffer.from(text).toString("latin1")),
      zeros: fc.nat(5),
      isUpper: fc.boolean(),
      extension: fc.constantFrom("", ";a=b", ' ;"\\""'),
    });
    const trailers = fc.array(fc.constantFrom("a: b\r\n", "content-length: 1\r\n"), { maxLength: 3 });
    const cuts = fc.array(fc.nat(), { maxLength: 12 });
    fc.assert(
      fc.property(fc.array(chunks, { maxLength: 8 }), trailers, cuts, (all, after, places) => {
        const rest = all.map(({ text, zeros, isUpper, extension }) => {
          const digits = text.length.toString(16);
          return `${"0".repeat(zeros)}${isUpper ? digits.toUpperCase() : digits}${extension}\r\n${text}\r\n`;
        });
        const bytes = bytesOf(inChunks(`${rest.join("")}0\r\n${after.join("")}\r\n`));
        const body = all.map(({ text }) => text).join("");
        expect(read(cut(bytes, places))).toEqual(told({ text: "", fields: chunked, body }));
      }),
    );
  });
});

test("an answer is over at its last byte, and not at any before", () => {
  for (const { text, isOver = true } of Object.values(answers)) {
    const bytes = bytesOf(text);
    for (let length = 0; length < bytes.length; length++) {
      expect(read([bytes.subarray(0, length)]).isOver).toBe(false);
    }
    expect(read([bytes]).isOver).toBe(isOver);
  }
});

test("bytes after the end are not told of, and the connection is not kept", () => {
  for (const answer of Object.values(answers).filter(({ isOver }) => isOver === undefined)) {
    for (const more of ["x", "\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\ny"]) {
      const bytes = bytesOf(answer.text + more);
      for (const pieces of [...cutsOf(bytes), [bytesOf(answer.text), bytesOf(more)]]) {
        expect(read(pieces)).toEqual({ ...told(answer), isKept: false });
      }
    }
  }
});

const head = (...lines: string[]) => ["HTTP/1.1 200 OK", ...lines, "", ""].join("\r\n");
/** A head with one more line, which would be fine without it. */
const line = (text: string) => head("content-length: 0", text, "a: b");

const refused: Record<string, string[]> = {
  "a first line that is none of HTTP/1.1": [
    "HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.2 200 OK\r\n\r\n",
    "HTTP/1.1  200 OK\r\n\r\n",
    "HTTP/1.1\t200 OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1 +20 OK\r\n\r\n",
    "HTTP/1.1 099 OK\r\n\r\n",
    "HTTP/1.1 600 OK\r\n\r\n",
    "HTTP/1.1 200OK\r\n\r\n",
    "http/1.1 200 OK\r\n\r\n",
    " HTTP/1.1 200 OK\r\n\r\n",
    "XHTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.10 200 OK\r\n\r\n",
    "HTTP/1.1 200 O\nK: v\r\n\r\n",
    "HTTP/1.1 200 O\rK\r\n\r\n",
    "HTTP/1.1 200\n\r\n\r\n",
    "\r\nHTTP/1.1 200 OK\r\n\r\n",
    "\r\n\r\n",
    "SSH-2.0-OpenSSH_9.9\r\n\r\n",
  ],
  "another protocol": ["HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"],
  "two ends": [
    head("content-length: 5", "transfer-encoding: chunked"),
    head("transfer-encoding: chunked", "content-length: 0"),
    head("content-length:", "transfer-encoding: chunked"),
  ],
  "two lengths": [
    head("content-length: 5", "content-length: 6"),
    head("content-length: 5, 6"),
    head("content-length: 5", "Content-Length: 5"),
  ],
  "a length that is no number": ["", "-5", "+5", "5.0", "0x5", "5 5", "5e1", "five", "1".repeat(16), "\xb2"].map(
    (length) => head(`content-length: ${length}`),
  ),
  "a length or a coding between spaces that are none": [
    head("content-length: \xa05"),
    head("content-length: 5\xa0"),
    head("transfer-encoding: \xa0chunked"),
  ],
  "chunks in HTTP/1.0": [head("transfer-encoding: chunked").replace("1.1", "1.0")],
  "another coding": [
    "gzip",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, chunked",
    "identity",
    "",
    "xchunked",
    "chunked;a",
  ].map((coding) => head(`transfer-encoding: ${coding}`)),
  "two codings": [head("transfer-encoding: chunked", "transfer-encoding: chunked")],
  "a chunk whose length is no number": [
    "+5",
    "-5",
    " 5",
    "\t5",
    "0x5",
    "5 5",
    "5\t,",
    "x",
    "g",
    "G",
    "5g",
    "5.",
    "5,",
    ";a",
    "",
    "@",
    "/",
    ":",
    "`",
  ].map((size) => inChunks(`${size}\r\nhello\r\n`)),
  "a chunk of too many digits": [inChunks(`${"0".repeat(14)}\r\n`), inChunks("10000000000000\r\n")],
  "a length of a chunk without its line end": [
    inChunks("5\nhello\r\n"),
    inChunks("5\rhello\r\n"),
    inChunks("5\r\rhello\r\n"),
    inChunks("5;a\nhello\r\n"),
    inChunks("5;a\rb\r\n"),
    inChunks("0\n\r\n"),
  ],
  "a chunk longer than its length": [
    inChunks("5\r\nhello!\r\n"),
    inChunks("5\r\nhello\n"),
    inChunks("5\r\nhello\rX"),
    inChunks("5\r\nhello0\r\n\r\n"),
    inChunks("5\r\nhello\r\n\r\n"),
  ],
  "a line feed alone": [
    line("c: d\ne: f"),
    line("c: d\n"),
    line("c\n: d"),
    "HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n",
  ],
  "a folded line": [line(" folded"), line("\tfolded"), line(" c: d")],
  "a name that is no token": ["", " ", "c ", "c\t", "c d", "c(", "c/", '"c"', "c@", "\xe9", "c\0", "{c}"].map((name) =>
    line(`${name}: d`),
  ),
  "a line without a name": [line("c"), line("=")],
  "a value with what no header holds": ["\0", "\x01", "\x08", "\x0b", "\x0c", "\r", "\x1b", "\x7f"].flatMap(
    (control) => [line(`c: ${control}`), line(`c: d${control}e`)],
  ),
};

test.each(Object.entries(refused))("%s is refused, from any cut of the bytes", (_, texts) => {
  for (const text of texts) {
    for (const pieces of cutsOf(bytesOf(text))) {
      const reader = remembering();
      expect(() => {
        for (const piece of pieces) reader.read(piece);
      }, text).toThrow(ResponseError);
      expect(reader.told().isOver).toBe(false);
      expect(reader.told().heads).toHaveLength(text.startsWith(inChunks("")) ? 1 : 0);
    }
  }
});

test("the first of two answers is the answer, and a wrong one before it is refused", () => {
  expect(() => read([bytesOf(`HTTP/1.1 100 \r\nc d: e\r\n\r\n${head()}`)])).not.toThrow();
  expect(() => read([bytesOf(`nothing\r\n\r\n${head()}`)])).toThrow(ResponseError);
});

/** A head of so many bytes before the empty line that ends it. */
function headOf(length: number): Buffer {
  const text = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: ";
  return bytesOf(`${text}${"y".repeat(length - text.length)}\r\n\r\n`);
}

test("a head is of 64 KiB at most", () => {
  expect(read([headOf(MAX_HEAD_BYTES)])).toMatchObject({ isOver: true, isKept: true });
  expect(read(cut(headOf(MAX_HEAD_BYTES), [7]))).toMatchObject({ isOver: true, isKept: true });
  expect(() => read([headOf(MAX_HEAD_BYTES + 1)])).toThrow(ResponseError);
  expect(() => read(cut(headOf(MAX_HEAD_BYTES + 1), [7]))).toThrow(ResponseError);
  // One without an end is refused once it cannot be as short any more.
  const reader = remembering();
  const piece = Buffer.alloc(KIBIBYTE, "a");
  for (let bytes = 0; bytes < MAX_HEAD_BYTES; bytes += piece.length) reader.read(piece);
  expect(() => reader.read(piece.subarray(0, 4))).toThrow(ResponseError);
});

test("a head of 64 KiB is one from any cut of its end", () => {
  const bytes = headOf(MAX_HEAD_BYTES);
  for (const back of [1, 2, 3, 4]) {
    expect(read(cut(bytes, [bytes.length - back]))).toMatchObject({ isOver: true, isKept: true });
  }
});

test("content does not count to its head", () => {
  const content = "z".repeat(2 * MAX_HEAD_BYTES);
  const text = `HTTP/1.1 200 OK\r\ncontent-length: ${content.length}\r\n\r\n${content}`;
  for (const pieces of [[bytesOf(text)], cut(bytesOf(text), [20])]) expect(read(pieces).body).toBe(content);
});

test("trailers are of 64 KiB at most", () => {
  const trailers = (length: number) => bytesOf(inChunks(`0\r\na: ${"b".repeat(length)}\r\n\r\n`));
  const [most, over] = [trailers(MAX_HEAD_BYTES - 10), trailers(MAX_HEAD_BYTES)];
  for (const places of [[], [70], [60, 1_000]]) {
    expect(read(cut(most, places))).toMatchObject({ isOver: true, isKept: true });
    expect(() => read(cut(over, places))).toThrow(ResponseError);
  }
  const reader = remembering();
  reader.read(bytesOf(inChunks("0\r\n")));
  const endless = () => {
    for (let bytes = 0; bytes <= MAX_HEAD_BYTES; bytes += KIBIBYTE) reader.read(Buffer.alloc(KIBIBYTE, "a: b\r\n"));
  };
  expect(endless).toThrow(ResponseError);
});

test("the line before a chunk is of 256 bytes at most, and each is counted anew", () => {
  const size = (length: number) => `1;${"e".repeat(length - 3)}\r\nx\r\n`;
  const most = bytesOf(inChunks(`${size(MAX_SIZE_LINE_BYTES).repeat(3)}0\r\n\r\n`));
  const over = bytesOf(inChunks(size(MAX_SIZE_LINE_BYTES + 1)));
  for (const split of [singly, (bytes: Buffer) => [bytes]]) {
    expect(read(split(most))).toMatchObject({ body: "xxx", isOver: true });
    expect(() => read(split(over))).toThrow(ResponseError);
  }
});

test("the longest chunk that can be told is as long as it says", () => {
  const reader = remembering();
  reader.read(bytesOf(inChunks("fffffffffffff\r\n")));
  for (let count = 0; count < 64; count++) reader.read(Buffer.alloc(KIBIBYTE, "x"));
  expect(reader.told()).toMatchObject({ isOver: false, body: "x".repeat(MAX_HEAD_BYTES) });
});

describe("a hostile head costs work for its bytes, not for their square", () => {
  afterEach(() => {
    mock.restore();
  });

  /** Counts the bytes that are copied, and those that are looked through, while `work` runs. */
  function bytesHandled(work: () => void): number {
    let handled = 0;
    const { concat, from } = Buffer;
    const { indexOf, copy, set } = Buffer.prototype;
    spyOn(Buffer, "concat").mockImplementation((list, ...rest) => {
      for (const each of list) handled += each.length;
      return concat(list, ...rest);
    });
    // `from` has many shapes; a view of memory copies nothing.
    spyOn(Buffer, "from").mockImplementation(((value: Uint8Array | string, ...rest: []) => {
      if (typeof value === "string" || ArrayBuffer.isView(value)) handled += value.length;
      return from(value as Uint8Array, ...rest);
    }) as typeof Buffer.from);
    type Rest = [number?, number?];
    spyOn(Buffer.prototype, "indexOf").mockImplementation(function (this: Buffer, value: Buffer, start = 0) {
      handled += this.length - start;
      return indexOf.call(this, value, start);
    } as typeof indexOf);
    spyOn(Buffer.prototype, "copy").mockImplementation(function (this: Buffer, target: Uint8Array, ...rest: Rest) {
      const count = copy.call(this, target, ...rest);
      handled += count;
      return count;
    } as typeof copy);
    spyOn(Buffer.prototype, "set").mockImplementation(function (this: Buffer, array: ArrayLike<number>, at?: number) {
      handled += array.length;
      set.call(this, array, at);
    });
    try {
      work();
    } finally {
      mock.restore();
    }
    return handled;
  }

  const filled = (text: string): string => text.repeat(Math.floor((MAX_HEAD_BYTES - 100) / text.length));
  const heads: Record<string, string> = {
    spaces: head("content-length: 0", `a:${filled(" ")}`),
    "spaces around a value": head("content-length: 0", `a:${filled(" ")}x\t`),
    "spaces in a value": head("content-length: 0", `a: x${filled(" ")}x`),
    colons: head("content-length: 0", `a:${filled(":")}`),
    commas: head("content-length: 0", `connection:${filled(",")}`),
    "one name again and again": head("content-length: 0", filled("a:\r\n").trimEnd()),
    "many names": head("content-length: 0", ...Array.from({ length: 8_000 }, (_, index) => `a${index.toString(36)}:`)),
    "a long phrase": `HTTP/1.1 200 ${filled("OK ")}\r\ncontent-length: 0\r\n\r\n`,
    "line ends that are almost an end": head("content-length: 0", filled("a:\r\n").trimEnd()),
  };

  test.each(Object.entries(heads))("%s", (_, text) => {
    const bytes = bytesOf(text);
    expect(bytes.length).toBeLessThan(MAX_HEAD_BYTES);
    const { heads: seen, isOver } = read([bytes]);
    expect({ seen: seen.map(({ status }) => status), isOver }).toEqual({ seen: [200], isOver: true });
    const pieces = cut(bytes, [bytes.length / 2]);
    const reader = new ResponseReader({ head: () => undefined, data: () => undefined });
    const handled = bytesHandled(() => {
      for (const piece of pieces) reader.read(piece);
    });
    expect(reader.isOver).toBe(true);
    expect(handled).toBeLessThan(8 * bytes.length);
  });

  test("byte by byte", () => {
    const bytes = headOf(16 * KIBIBYTE);
    const pieces = singly(bytes);
    const reader = new ResponseReader({ head: () => undefined, data: () => undefined });
    const handled = bytesHandled(() => {
      for (const piece of pieces) reader.read(piece);
    });
    expect(reader.isOver).toBe(true);
    expect(handled).toBeLessThan(16 * bytes.length);
  });

  test("chunks of one byte, whole and byte by byte", () => {
    const bytes = bytesOf(inChunks(`${"1;e\r\nx\r\n".repeat(8 * KIBIBYTE)}0\r\n\r\n`));
    for (const pieces of [[bytes], singly(bytes)]) {
      const reader = new ResponseReader({ head: () => undefined, data: () => undefined });
      const handled = bytesHandled(() => {
        for (const piece of pieces) reader.read(piece);
      });
      expect(reader.isOver).toBe(true);
      expect(handled).toBeLessThan(2 * bytes.length);
    }
  });
});
