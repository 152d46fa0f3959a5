import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ConnectionError, ErrorCode, Flag, FRAME_BYTES, FrameType } from "../../src/http2/frame.ts";
import { type FrameHandler, FrameReader } from "../../src/http2/reader.ts";
import { frame, PREFACE } from "../abuse/wire.ts";

/* The sections named here are those of RFC 9113. */

/** What a handler is told; bytes as hex. Of DATA, `counted` and the bytes of all pieces of a frame. */
type Event =
  | readonly [what: "announced", type: number, flags: number, stream: number, length: number]
  | readonly [what: "data", stream: number, flags: number, bytes: string, counted: number]
  | readonly [what: "headers", stream: number, flags: number, block: string]
  | readonly [what: "frame", type: number, flags: number, stream: number, payload: string];

class Recorder implements FrameHandler {
  readonly events: Event[] = [];
  /** The DATA of a frame that is not complete. */
  bytes = "";
  counted = 0;

  announced(type: number, flags: number, stream: number, length: number): void {
    this.events.push(["announced", type, flags, stream, length]);
  }

  data(stream: number, flags: number, bytes: Buffer, counted: number, isLast: boolean): void {
    this.bytes += bytes.toString("hex");
    this.counted += counted;
    if (!isLast) return;
    this.events.push(["data", stream, flags, this.bytes, this.counted]);
    this.bytes = "";
    this.counted = 0;
  }

  headers(stream: number, flags: number, block: Buffer): void {
    this.events.push(["headers", stream, flags, block.toString("hex")]);
  }

  frame(type: number, flags: number, stream: number, payload: Buffer): void {
    this.events.push(["frame", type, flags, stream, payload.toString("hex")]);
  }
}

/** A reader and what it has told of. Each chunk is gone once it is read: what is kept of it has to be a copy. */
function open(...chunks: Uint8Array[]) {
  const recorder = new Recorder();
  const reader = new FrameReader(recorder);
  const read = (chunk: Uint8Array): void => {
    const bytes = Buffer.from(chunk);
    reader.read(bytes);
    bytes.fill(0xee);
  };
  for (const chunk of chunks) read(chunk);
  return { recorder, read };
}

/** What is told of these bytes after a preface. */
const told = (...chunks: Uint8Array[]): Event[] => open(PREFACE, ...chunks).recorder.events;

/** The code by which a connection ends that sends this; undefined: it goes on. */
function codeOf(...chunks: Uint8Array[]): number | undefined {
  try {
    open(...chunks);
    return undefined;
  } catch (error) {
    if (error instanceof ConnectionError) return error.code;
    throw error;
  }
}

/** Whether it comes at once or octet by octet, it ends the connection by this code. */
function expectCode(code: number | undefined, ...parts: Uint8Array[]): void {
  const bytes = Buffer.concat([PREFACE, ...parts]);
  expect(codeOf(bytes)).toBe(code);
  expect(codeOf(...octetsOf(bytes))).toBe(code);
}

const octetsOf = (bytes: Buffer) => Array.from(bytes, (octet) => Buffer.from([octet]));
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

interface Example {
  readonly bytes: Buffer;
  readonly events: readonly Event[];
}

const EMPTY = Buffer.alloc(0);

/** A payload that is filled up with so many octets; undefined: that is not even said. */
const padded = (content: Uint8Array, padding: number | undefined): Buffer =>
  padding === undefined
    ? Buffer.from(content)
    : Buffer.concat([Buffer.from([padding]), content, Buffer.alloc(padding, 0xaa)]);

function dataExample(stream: number, ends: boolean, content: Uint8Array, padding: number | undefined): Example {
  const flags = (ends ? Flag.END_STREAM : 0) | (padding === undefined ? 0 : Flag.PADDED);
  const payload = padded(content, padding);
  return {
    bytes: frame(FrameType.DATA, flags, stream, payload),
    events: [
      ["announced", FrameType.DATA, flags, stream, payload.length],
      ["data", stream, flags, hexOf(content), payload.length],
    ],
  };
}

/** HEADERS with the first part of a block, and CONTINUATION with each other. */
function headersExample(
  stream: number,
  ends: boolean,
  [first = EMPTY, ...others]: readonly Uint8Array[],
  { padding, priority = EMPTY }: { padding?: number | undefined; priority?: Uint8Array | undefined },
): Example {
  const flags =
    (ends ? Flag.END_STREAM : 0) |
    (others.length === 0 ? Flag.END_HEADERS : 0) |
    (padding === undefined ? 0 : Flag.PADDED) |
    (priority.length === 0 ? 0 : Flag.PRIORITY);
  const payload = padded(Buffer.concat([priority, first]), padding);
  const last = others.length - 1;
  const flagsOf = (index: number) => (index === last ? Flag.END_HEADERS : 0);
  return {
    bytes: Buffer.concat([
      frame(FrameType.HEADERS, flags, stream, payload),
      ...others.map((part, index) => frame(FrameType.CONTINUATION, flagsOf(index), stream, part)),
    ]),
    events: [
      ["announced", FrameType.HEADERS, flags, stream, payload.length],
      ...others.map(
        (part, index) => ["announced", FrameType.CONTINUATION, flagsOf(index), stream, part.length] as const,
      ),
      ["headers", stream, flags, hexOf(Buffer.concat([first, ...others]))],
    ],
  };
}

const otherExample = (type: number, flags: number, stream: number, payload: Uint8Array): Example => ({
  bytes: frame(type, flags, stream, payload),
  events: [
    ["announced", type, flags, stream, payload.length],
    ["frame", type, flags, stream, hexOf(payload)],
  ],
});

const streams = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const contents = fc.uint8Array({ maxLength: 40 });
const paddings = fc.option(fc.nat(20), { nil: undefined });
const priorities = fc.option(fc.uint8Array({ minLength: 5, maxLength: 5 }), { nil: undefined });
const parts = fc.array(contents, { minLength: 1, maxLength: 4 });
const taken: readonly number[] = [FrameType.DATA, FrameType.HEADERS, FrameType.CONTINUATION];
const others = fc.nat(255).filter((type) => !taken.includes(type));
const examples = fc.oneof(
  fc.tuple(streams, fc.boolean(), contents, paddings).map((of) => dataExample(...of)),
  fc
    .tuple(streams, fc.boolean(), parts, fc.record({ padding: paddings, priority: priorities }))
    .map((of) => headersExample(...of)),
  fc.tuple(others, fc.nat(255), streams, contents).map((of) => otherExample(...of)),
);

test("the same is told of the same bytes, wherever they are cut", () => {
  const cut = fc.record({ frames: fc.array(examples, { maxLength: 8 }), cuts: fc.array(fc.nat(), { maxLength: 12 }) });
  fc.assert(
    fc.property(cut, ({ frames, cuts }) => {
      const bytes = Buffer.concat([PREFACE, ...frames.map((each) => each.bytes)]);
      const events = frames.flatMap((each) => each.events);
      const ends = cuts.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b);
      const chunks = [...ends, bytes.length].map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
      expect(open(...chunks).recorder.events).toEqual(events);
      expect(open(...octetsOf(bytes)).recorder.events).toEqual(events);
    }),
  );
});

describe("a preface", () => {
  test.each([
    ["another protocol", Buffer.from("GET / HTTP/1.1\r\nHost: here\r\n\r\n")],
    ["its first octet wrong", Buffer.from("p")],
    ["its last octet wrong", Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r")],
    ["none, but a frame", frame(FrameType.SETTINGS, 0, 0)],
  ])("is refused: %s", (_, bytes) => {
    expect(codeOf(bytes)).toBe(ErrorCode.PROTOCOL_ERROR);
    expect(codeOf(...octetsOf(bytes))).toBe(ErrorCode.PROTOCOL_ERROR);
  });

  test("is refused with its first wrong octet, not waited for", () => {
    expect(codeOf(PREFACE.subarray(0, 10))).toBeUndefined();
    expect(codeOf(PREFACE.subarray(0, 10), Buffer.from("x"))).toBe(ErrorCode.PROTOCOL_ERROR);
  });

  test("comes but once", () => {
    expect(codeOf(PREFACE, PREFACE)).toBe(ErrorCode.FRAME_SIZE_ERROR); // "PRI" is a length
  });
});

describe("DATA", () => {
  const content = Buffer.from("0123456789");

  test("is told in pieces, as they come", () => {
    const { recorder, read } = open(PREFACE);
    const whole = frame(FrameType.DATA, Flag.END_STREAM, 1, content);
    const announced: Event = ["announced", FrameType.DATA, Flag.END_STREAM, 1, content.length];
    read(whole.subarray(0, 9));
    expect(recorder.events).toEqual([announced]);
    read(whole.subarray(9, 13));
    expect([recorder.bytes, recorder.counted]).toEqual([hexOf(content.subarray(0, 4)), 4]);
    read(EMPTY);
    read(whole.subarray(13, 18));
    expect([recorder.bytes, recorder.counted]).toEqual([hexOf(content.subarray(0, 9)), 9]);
    expect(recorder.events).toEqual([announced]);
    read(whole.subarray(18));
    expect(recorder.events).toEqual([announced, ["data", 1, Flag.END_STREAM, hexOf(content), content.length]]);
  });

  test("that is filled up is told without that, which is counted", () => {
    const payload = Buffer.concat([Buffer.from([3]), content, Buffer.alloc(3)]);
    expect(told(frame(FrameType.DATA, Flag.PADDED, 1, payload)).at(-1)).toEqual([
      "data",
      1,
      Flag.PADDED,
      hexOf(content),
      14,
    ]);
    const nothing = Buffer.from([2, 0, 0]);
    expect(told(frame(FrameType.DATA, Flag.PADDED, 1, nothing)).at(-1)).toEqual(["data", 1, Flag.PADDED, "", 3]);
    expect(told(frame(FrameType.DATA, Flag.PADDED, 1, Buffer.from([0]))).at(-1)).toEqual([
      "data",
      1,
      Flag.PADDED,
      "",
      1,
    ]);
  });
});

test("a frame without a payload is told with its header", () => {
  const headers = Flag.END_HEADERS | Flag.END_STREAM;
  const frames: Example[] = [
    dataExample(1, false, EMPTY, undefined),
    dataExample(1, true, EMPTY, undefined),
    headersExample(3, true, [EMPTY], {}),
    headersExample(5, false, [EMPTY, EMPTY, EMPTY], {}),
    otherExample(FrameType.SETTINGS, Flag.ACK, 0, EMPTY),
  ];
  const { recorder, read } = open(PREFACE);
  for (const { bytes, events } of frames) {
    recorder.events.length = 0;
    read(bytes);
    expect(recorder.events).toEqual([...events]);
  }
  expect(told(frame(FrameType.HEADERS, headers, 3)).at(-1)).toEqual(["headers", 3, headers, ""]);
});

test("all frames but DATA are told when they are whole", () => {
  const flags = Flag.END_HEADERS;
  for (const type of [FrameType.HEADERS, FrameType.PING, FrameType.SETTINGS, 200]) {
    const { recorder, read } = open(PREFACE);
    const whole = frame(type, flags, 1, Buffer.from("123456"));
    read(whole.subarray(0, 8));
    expect(recorder.events).toEqual([]);
    read(whole.subarray(8, -1));
    expect(recorder.events).toEqual([["announced", type, flags, 1, 6]]);
    read(whole.subarray(-1));
    expect(recorder.events).toHaveLength(2);
  }
});

test("the bit before the id of a stream says nothing", () => {
  expect(told(frame(FrameType.DATA, 0, 2 ** 31 + 5)).at(-1)).toEqual(["data", 5, 0, "", 0]);
  // For CONTINUATION neither.
  expect(
    told(frame(FrameType.HEADERS, 0, 5), frame(FrameType.CONTINUATION, Flag.END_HEADERS, 2 ** 31 + 5)).at(-1),
  ).toEqual(["headers", 5, 0, ""]);
});

describe("header fields", () => {
  test("may have their priority before them and be filled up", () => {
    const flags = Flag.END_HEADERS | Flag.PADDED | Flag.PRIORITY;
    const payload = Buffer.from("02 8000000310 8286 0000".replaceAll(" ", ""), "hex");
    expect(told(frame(FrameType.HEADERS, flags, 1, payload)).at(-1)).toEqual(["headers", 1, flags, "8286"]);
    const prior = Flag.END_HEADERS | Flag.PRIORITY;
    expect(told(frame(FrameType.HEADERS, prior, 1, payload.subarray(1, 6))).at(-1)).toEqual(["headers", 1, prior, ""]);
  });

  test("are told once, when the last of them has come, with the flags of the first", () => {
    const events = told(
      frame(FrameType.HEADERS, Flag.END_STREAM, 1, Buffer.from("82", "hex")),
      frame(FrameType.CONTINUATION, Flag.PADDED, 1, Buffer.from("86", "hex")), // it knows no such flag
      frame(FrameType.CONTINUATION, Flag.END_HEADERS | Flag.END_STREAM, 1, Buffer.from("84", "hex")),
      frame(FrameType.HEADERS, Flag.END_HEADERS, 3, Buffer.from("83", "hex")),
    );
    expect(events.filter(([what]) => what === "headers")).toEqual([
      ["headers", 1, Flag.END_STREAM, "828684"],
      ["headers", 3, Flag.END_HEADERS, "83"],
    ]);
  });

  const begun = frame(FrameType.HEADERS, 0, 1, Buffer.from("82", "hex"));
  const whole = frame(FrameType.HEADERS, Flag.END_HEADERS, 1, Buffer.from("82", "hex"));
  const more = (stream: number, flags = 0) => frame(FrameType.CONTINUATION, flags, stream);

  test.each([
    ["CONTINUATION of nothing", [more(1)]],
    ["CONTINUATION of stream 0, and of nothing", [more(0)]],
    ["CONTINUATION of what is complete", [whole, more(1)]],
    ["CONTINUATION of what another has completed", [begun, more(1, Flag.END_HEADERS), more(1)]],
    ["CONTINUATION of another stream", [begun, more(3)]],
    ["other header fields", [begun, whole]],
    ["those of another stream", [begun, frame(FrameType.HEADERS, Flag.END_HEADERS, 3)]],
    ["DATA", [begun, frame(FrameType.DATA, 0, 1)]],
    ["PING", [begun, more(1), frame(FrameType.PING, 0, 0, Buffer.alloc(8))]],
    ["PRIORITY", [begun, frame(FrameType.PRIORITY, 0, 1, Buffer.alloc(5))]],
    ["a frame of an unknown type", [begun, frame(200, 0, 1)]],
  ])("are not followed by %s (6.10)", (_, frames) => {
    expectCode(ErrorCode.PROTOCOL_ERROR, ...frames);
    expectCode(undefined, ...frames.slice(0, -1));
  });

  test("a frame that may not follow them is not announced", () => {
    const { recorder, read } = open(PREFACE, begun);
    expect(() => read(more(3))).toThrow(ConnectionError);
    expect(recorder.events).toEqual([["announced", FrameType.HEADERS, 0, 1, 1]]);
  });
});

describe("a frame is refused", () => {
  test.each([
    ["filled up, and without how much", Flag.PADDED, "", ErrorCode.FRAME_SIZE_ERROR],
    ["filled up with as much as it is long", Flag.PADDED, "0200", ErrorCode.PROTOCOL_ERROR],
    ["filled up with more", Flag.PADDED, "ff0000", ErrorCode.PROTOCOL_ERROR],
    ["filled up with one octet that is not there", Flag.PADDED, "01", ErrorCode.PROTOCOL_ERROR],
  ])("that is %s (6.1, 6.2)", (_, flags, payload, code) => {
    expectCode(code, frame(FrameType.DATA, flags, 1, Buffer.from(payload, "hex")));
    expectCode(code, frame(FrameType.HEADERS, flags | Flag.END_HEADERS, 1, Buffer.from(payload, "hex")));
    // Only these two are ever filled up.
    expectCode(undefined, frame(FrameType.PING, flags, 1, Buffer.from(payload, "hex")));
  });

  test("that has a priority and is shorter than that", () => {
    const flags = Flag.PRIORITY | Flag.END_HEADERS;
    for (const length of [0, 1, 4])
      expectCode(ErrorCode.FRAME_SIZE_ERROR, frame(FrameType.HEADERS, flags, 1, Buffer.alloc(length)));
    expectCode(undefined, frame(FrameType.HEADERS, flags, 1, Buffer.alloc(5)));
  });

  test.each(Object.entries(FrameType))("%s that is too large, with its header (4.2)", (name, type) => {
    const begin = name === "CONTINUATION" ? [frame(FrameType.HEADERS, 0, 1)] : [];
    const { recorder, read } = open(PREFACE, ...begin);
    const before = recorder.events.length;
    const header = frame(type, 0, 1, Buffer.alloc(FRAME_BYTES + 1)).subarray(0, 9);
    expect(codeOf(PREFACE, ...begin, header)).toBe(ErrorCode.FRAME_SIZE_ERROR);
    expect(() => read(header)).toThrow(ConnectionError);
    expect(recorder.events).toHaveLength(before);
    expect(codeOf(PREFACE, ...begin, frame(type, 0, 1, Buffer.alloc(FRAME_BYTES)))).toBeUndefined();
  });
});

test("what is kept is a copy, of header fields that are not complete as well", () => {
  const chunk = Buffer.concat([
    PREFACE,
    frame(FrameType.HEADERS, 0, 1, Buffer.from("begin")),
    frame(FrameType.CONTINUATION, Flag.END_HEADERS, 1, Buffer.from("end")).subarray(0, 10),
  ]);
  const recorder = new Recorder();
  const reader = new FrameReader(recorder);
  reader.read(chunk);
  chunk.fill(0);
  reader.read(Buffer.from("nd"));
  expect(recorder.events.at(-1)).toEqual(["headers", 1, 0, hexOf(Buffer.from("beginend"))]);
});

test("what a handler throws is thrown to who reads, and nothing is told behind it", () => {
  const failure = new Error("of the handler");
  for (const what of ["announced", "data", "headers", "frame"] as const) {
    const recorder = new Recorder();
    recorder[what] = () => {
      throw failure;
    };
    const bytes = Buffer.concat([
      PREFACE,
      frame(FrameType.DATA, 0, 1),
      frame(FrameType.HEADERS, Flag.END_HEADERS, 1),
      frame(FrameType.PING, 0, 0),
    ]);
    expect(() => new FrameReader(recorder).read(bytes)).toThrow(failure);
    expect(recorder.events).toHaveLength({ announced: 0, data: 1, headers: 3, frame: 5 }[what]);
  }
});
