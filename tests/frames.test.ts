import { expect, test } from "bun:test";
import fc from "fast-check";
import { FrameCounter } from "../src/frames.ts";
import { ACK, callHead, END_HEADERS, END_STREAM, frame, PREFACE, settings, Type } from "./abuse/wire.ts";

const ping = frame(Type.PING, 0, 0, Buffer.alloc(8));
const reset = (stream: number) => frame(Type.RST_STREAM, 0, stream, Buffer.alloc(4));
const head = (stream: number, flags = END_HEADERS | END_STREAM) =>
  frame(Type.HEADERS, flags, stream, callHead("/a.B/C"));

/** How many of these it takes, one at a time and at one moment, until they are too many. */
function endure(part: (index: number) => Uint8Array, limit = 1_000_000) {
  const counter = new FrameCounter(0);
  counter.read(PREFACE, 0);
  for (let index = 0; index < limit; index++) {
    const violation = counter.read(part(index), 0);
    if (violation !== undefined) return { after: index, violation };
  }
  return undefined;
}

test("each kind has its budget", () => {
  expect(endure(() => ping)).toEqual({ after: 1_000, violation: "pings" });
  expect(endure(() => settings())).toEqual({ after: 100, violation: "settings" });
  expect(endure(() => reset(1))).toEqual({ after: 1_500, violation: "resets" });
  expect(endure((index) => head(2 * index + 1))).toEqual({ after: 10_000, violation: "streams" });
  expect(endure(() => frame(Type.DATA, 0, 1))).toEqual({ after: 1_000, violation: "empty" });
  expect(endure(() => frame(Type.DATA, 0, 1, Buffer.alloc(6)))).toEqual({ after: 25_000, violation: "small" });
  expect(endure(() => frame(Type.WINDOW_UPDATE, 0, 0, Buffer.alloc(4)))).toEqual({ after: 25_000, violation: "small" });
  for (const other of [
    frame(Type.PING, ACK, 0),
    frame(Type.SETTINGS, ACK, 0),
    frame(Type.PRIORITY, 0, 1),
    frame(77, 0, 0),
  ])
    expect(endure(() => other)).toEqual({ after: 1_000, violation: "others" });
});

test("budgets are refilled over time, up to their size", () => {
  const counter = new FrameCounter(0);
  counter.read(PREFACE, 0);
  const take = (count: number, now: number) => counter.read(Buffer.concat(Array(count).fill(reset(1))), now);
  expect(take(1_500, 0)).toBeUndefined();
  expect(take(500, 1_000)).toBeUndefined();
  expect(take(1_500, 60_000)).toBeUndefined();
  expect(take(1, 60_001)).toBe("resets");
});

test("whole DATA frames and the ends of streams cost nothing", () => {
  const data = frame(Type.DATA, 0, 1, Buffer.alloc(16_384));
  expect(endure(() => data, 60_000)).toBeUndefined();
});

test("trailers, which no call here has, and heads of streams that are over are not for free", () => {
  expect(endure((index) => frame(Type.HEADERS, END_HEADERS | END_STREAM, index === 0 ? 7 : 3))).toEqual({
    after: 1_001,
    violation: "others",
  });
});

test("a header block is bounded in bytes and in pieces", () => {
  const part = (type: number, bytes: number) => frame(type, 0, 1, Buffer.alloc(bytes));
  const first = (index: number, bytes: number) => part(index === 0 ? Type.HEADERS : Type.CONTINUATION, bytes);
  expect(endure((index) => first(index, 0))).toEqual({ after: 17, violation: "headerBlock" });
  expect(endure((index) => first(index, 16_384))).toEqual({ after: 4, violation: "headerBlock" });
});

test("many large header blocks are too much, however many connections they look like", () => {
  expect(endure((index) => frame(Type.HEADERS, END_HEADERS, 2 * index + 1, Buffer.alloc(16_384)))).toEqual({
    after: 512,
    violation: "headerBytes",
  });
});

test("a block that is not complete is known since its first frame", () => {
  const counter = new FrameCounter(0);
  counter.read(PREFACE, 0);
  expect(counter.blockSince).toBeUndefined();
  counter.read(head(1, 0), 5);
  counter.read(frame(Type.CONTINUATION, 0, 1), 7);
  expect(counter.blockSince).toBe(5);
  counter.read(frame(Type.CONTINUATION, END_HEADERS, 1), 8);
  expect(counter.blockSince).toBeUndefined();
  expect(counter.streams).toBe(1);
});

test("frames are told apart wherever the bytes are cut", () => {
  const talk = Buffer.concat([
    PREFACE,
    settings([[4, 65_535]]),
    head(1, END_HEADERS),
    frame(Type.DATA, 0, 1, ping), // looks like a frame, and is the payload of one
    head(3, 0),
    frame(Type.CONTINUATION, END_HEADERS, 3, Buffer.alloc(20)),
    frame(Type.DATA, END_STREAM, 3),
    ...Array<Buffer>(1_500).fill(reset(3)),
  ]);
  const cut = (at: readonly number[]) => {
    const counter = new FrameCounter(0);
    let from = 0;
    for (const to of [...at, talk.length]) {
      expect(counter.read(talk.subarray(from, to), 0)).toBeUndefined();
      from = to;
    }
    expect(counter.streams).toBe(2);
    expect(counter.read(reset(5).subarray(0, 8), 0)).toBeUndefined();
    expect(counter.read(reset(5).subarray(8), 0)).toBe("resets");
  };
  const interesting = talk.length - 1_400 * reset(3).length;
  for (let at = 0; at <= interesting; at++) cut([at]);
  cut(Array.from({ length: talk.length - 1 }, (_, index) => index + 1)); // each byte alone
});

test("what is no HTTP/2 is read to its end, the same in pieces as in one", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4_000 }), fc.integer({ min: 1, max: 50 }), (bytes, size) => {
      const whole = new FrameCounter(0);
      const pieces = new FrameCounter(0);
      const verdict = whole.read(bytes, 0);
      let other: ReturnType<FrameCounter["read"]>;
      for (let at = 0; at < bytes.length && other === undefined; at += size)
        other = pieces.read(bytes.subarray(at, at + size), 0);
      expect(other).toBe(verdict);
      expect(pieces.streams).toBe(whole.streams);
    }),
  );
});
