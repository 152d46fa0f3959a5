import { expect, test } from "bun:test";
import { Memory, release } from "../src/memory.ts";

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

test("memory is released where the bytes are all of it, but for one before them", () => {
  const lengthAfter = (from: number, to: number) => {
    const buffer = new ArrayBuffer(100);
    release(new Uint8Array(buffer).subarray(from, to));
    return buffer.byteLength;
  };
  expect([lengthAfter(0, 100), lengthAfter(1, 100)]).toEqual([0, 0]);
  expect([lengthAfter(2, 100), lengthAfter(0, 99), lengthAfter(100, 100)]).toEqual([100, 100, 100]);
});
