import { expect, test } from "bun:test";
import fc from "fast-check";
import { Tail, tailLimit } from "../../src/runner/tail.ts";

test("a tail is the last bytes of what was pushed, whatever the pieces", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.array(fc.uint8Array({ maxLength: 60 })), (limit, pieces) => {
      const tail = new Tail(limit);
      for (const piece of pieces) tail.push(piece);
      expect(Buffer.from(tail.bytes())).toEqual(Buffer.concat(pieces).subarray(-limit));
    }),
  );
});

test("a tail holds copies: the pushed buffer may be reused", () => {
  const tail = new Tail(8);
  const buffer = new Uint8Array([1, 2, 3]);
  tail.push(buffer);
  buffer.fill(9);
  expect([...tail.bytes()]).toEqual([1, 2, 3]);
});

test("the limit is 64 KiB by default and 256 KiB at most", () => {
  expect([0n, 1n, 262_144n, 262_145n, 2n ** 64n - 1n].map(tailLimit)).toEqual([65_536, 1, 262_144, 262_144, 262_144]);
});
