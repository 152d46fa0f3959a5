import { expect, test } from "bun:test";
import fc from "fast-check";
import { Tail, tailLimit } from "../../src/runner/tail.ts";

test("a tail is the last bytes of what was pushed, whatever the pieces", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.array(fc.uint8Array({ maxLength: 60 })), (limit, pieces) => {
      const tail = new Tail(limit);
      for (const piece of pieces) tail.push(Buffer.from(piece));
      expect(Buffer.from(tail.bytes())).toEqual(Buffer.concat(pieces).subarray(-limit));
    }),
  );
});

test("it is so of pieces of any length, each in memory of its own", () => {
  const lengths = fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 30 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 70_000 }), lengths, (limit, sizes) => {
      const tail = new Tail(limit);
      const pieces = sizes.map((size, index) => Buffer.alloc(size, index));
      for (const piece of pieces) tail.push(Buffer.from(Uint8Array.from(piece).buffer));
      expect(Buffer.from(tail.bytes()).equals(Buffer.concat(pieces).subarray(-limit))).toBe(true);
    }),
  );
});

test("memory is given back when it is not of the tail any more, and no sooner than with the next piece", () => {
  const tail = new Tail(10_000);
  const pieces = [1, 2, 3, 4].map((value) => Buffer.alloc(9_000, value));
  const [first, second, third, last] = pieces;
  const left = () => pieces.map(({ length }) => length);
  tail.push(first ?? expect.unreachable());
  tail.push(second ?? expect.unreachable());
  expect(left()).toEqual([9_000, 9_000, 9_000, 9_000]);
  tail.push(third ?? expect.unreachable());
  expect(left()).toEqual([9_000, 9_000, 9_000, 9_000]); // who took the second may still be at it
  tail.push(last ?? expect.unreachable());
  expect(left()).toEqual([0, 9_000, 9_000, 9_000]);
  expect(tail.bytes()[0]).toBe(3);
});

test("the limit is 64 KiB by default and 256 KiB at most", () => {
  expect([0n, 1n, 262_144n, 262_145n, 2n ** 64n - 1n].map(tailLimit)).toEqual([65_536, 1, 262_144, 262_144, 262_144]);
});
