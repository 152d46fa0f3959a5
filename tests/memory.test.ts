import { describe, expect, test } from "bun:test";
import { lasting, lend, Memory, release, releaseContent, releaseRead } from "../src/memory.ts";

test("memory that was given back is used again, as much of it as is kept", () => {
  const memory = new Memory(100, 1);
  const [first, second] = [memory.take(100), memory.take(7)];
  expect([first.length, second.length]).toEqual([100, 7]);
  expect(second.buffer).not.toBe(first.buffer);
  memory.give(first);
  memory.give(second); // one too many
  expect(memory.take(50).buffer).toBe(first.buffer);
  expect([first.buffer, second.buffer]).not.toContain(memory.take(50).buffer);
});

test("what is larger than a piece is made for it alone", () => {
  const memory = new Memory(100, 1);
  const large = memory.take(101);
  expect(large.length).toBe(101);
  memory.give(large);
  expect(memory.take(100).buffer).not.toBe(large.buffer);
});

test("memory is released where the bytes are all of it, but for a few before them", () => {
  const lengthAfter = (from: number, to: number) => {
    const buffer = new ArrayBuffer(100);
    release(new Uint8Array(buffer).subarray(from, to));
    return buffer.byteLength;
  };
  expect([lengthAfter(0, 100), lengthAfter(1, 100), lengthAfter(32, 100)]).toEqual([0, 0, 0]);
  expect([lengthAfter(33, 100), lengthAfter(0, 99), lengthAfter(100, 100)]).toEqual([100, 100, 100]);
  const shared = new SharedArrayBuffer(100);
  release(new Uint8Array(shared));
  expect(shared.byteLength).toBe(100);
});

describe("memory that is lent", () => {
  const [LEAST, MOST] = [16 * 1024, 128 * 1024];

  test("is lent again once it is given back, by any part of it", () => {
    for (const bytes of [LEAST, MOST - 1, MOST]) {
      const first = lend(bytes);
      expect([first.length, first.buffer.byteLength]).toEqual([bytes, MOST]);
      release(first.subarray(100, 200));
      expect(first.buffer.byteLength).toBe(MOST);
      expect(lend(LEAST).buffer).toBe(first.buffer);
    }
  });

  test("is lent to one at a time, however often it was given back", () => {
    const first = lend(MOST);
    release(first);
    release(first);
    const pieces = Array.from({ length: 40 }, () => lend(MOST).buffer);
    expect(new Set(pieces).size).toBe(40);
    expect(pieces).toContain(first.buffer);
  });

  test("is kept up to a number of pieces", () => {
    const pieces = Array.from({ length: 40 }, () => lend(MOST));
    const known = new Set(pieces.map(({ buffer }) => buffer));
    for (const piece of pieces) release(piece);
    const again = Array.from({ length: 40 }, () => lend(MOST).buffer);
    expect(again.filter((buffer) => known.has(buffer))).toHaveLength(16);
  });

  test("is its taker's own where it is little, or much", () => {
    for (const bytes of [0, 1, LEAST - 1, MOST + 1]) {
      const own = lend(bytes);
      expect([own.length, own.buffer.byteLength]).toEqual([bytes, bytes]);
      release(own);
      expect(own.buffer.byteLength).toBe(0);
    }
  });
});

test("a message is released by its content when that is large, the last of it and nearly all", () => {
  const LARGE = 64 * 1024;
  const lengthAfter = (before: number, content: number, after = 0) => {
    const buffer = new ArrayBuffer(before + content + after);
    releaseContent(new Uint8Array(buffer, before, content));
    return buffer.byteLength;
  };
  for (const before of [0, 100, 8 * 1024]) expect(lengthAfter(before, LARGE)).toBe(0);
  expect(lengthAfter(8 * 1024 + 1, LARGE)).toBe(8 * 1024 + 1 + LARGE);
  expect(lengthAfter(0, LARGE - 1)).toBe(LARGE - 1);
  expect(lengthAfter(0, LARGE, 1)).toBe(LARGE + 1);
});

describe("what was read from a socket", () => {
  const LARGE = 16 * 1024;
  const readOf = (bytes: number, before = 0) => Buffer.from(new ArrayBuffer(before + bytes), before).fill("x");

  test("is given back when it is large", () => {
    for (const [bytes, before, isLarge] of [
      [1, 0, false],
      [LARGE - 1, 0, false],
      [LARGE - 1, 1, false],
      [LARGE, 0, true],
      [LARGE, 1, true],
      [512 * 1024, 0, true],
    ] as const) {
      const read = readOf(bytes, before);
      releaseRead(read);
      expect([bytes, before, read.buffer.byteLength]).toEqual([bytes, before, isLarge ? 0 : before + bytes]);
    }
  });

  test("stays when it is not all of its memory", () => {
    const part = readOf(4 * LARGE).subarray(0, 2 * LARGE);
    releaseRead(part);
    expect(part.toString()).toBe("x".repeat(2 * LARGE));
  });

  test("is copied, in part or whole, where that would be gone, and nowhere else", () => {
    for (const bytes of [1, 100, LARGE - 1, LARGE, LARGE + 1, 512 * 1024])
      for (const [from, to] of [
        [0, bytes],
        [bytes - 1, bytes],
        [0, 1],
      ]) {
        const read = readOf(bytes);
        const part = read.subarray(from, to);
        const { length } = part;
        const kept = lasting(part);
        const isCopied = kept.buffer !== read.buffer;
        releaseRead(read);
        expect([bytes, isCopied]).toEqual([bytes, read.buffer.byteLength === 0]);
        expect(kept.toString()).toBe("x".repeat(length));
      }
  });
});
