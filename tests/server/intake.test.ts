import { expect, spyOn, test } from "bun:test";
import fc from "fast-check";
import { Intake } from "../../src/grpc/intake.ts";
import { release } from "../../src/memory.ts";

const BLOCK_BYTES = 64 * 1024;
/** What is shorter gets no block. */
const SHORT_BYTES = 4 * 1024;

/** Bytes that are like no others near them. */
const bytesOf = (length: number, first = 0): Buffer =>
  Buffer.from(Array.from({ length }, (_, index) => first + index + (index >> 8)));

/** Adds a part of what was read from a socket, whose memory is given back at once. */
function add(intake: Intake, bytes: Uint8Array): void {
  const read = Buffer.from(new ArrayBuffer(bytes.length));
  read.set(bytes);
  intake.add(read);
  release(read);
}

function filled(...parts: Uint8Array[]): Intake {
  const intake = new Intake();
  for (const part of parts) add(intake, part);
  return intake;
}

/** Takes all; returns the memory in which each part of it stood. */
function partsOf(intake: Intake): ArrayBufferLike[] {
  const parts: ArrayBufferLike[] = [];
  const copy = Buffer.prototype.copy;
  using spied = spyOn(Buffer.prototype, "copy");
  spied.mockImplementation(function (this: Buffer, ...where: Parameters<Buffer["copy"]>) {
    parts.push(this.buffer);
    return copy.apply(this, where);
  });
  intake.take(intake.bytes);
  return parts;
}

const memoryIn = (parts: ArrayBufferLike[]): number =>
  [...new Set(parts)].reduce((sum, { byteLength }) => sum + byteLength, 0);

test("bytes are the same in the same order, however they come and are taken, and are their taker's alone", () => {
  const lengths = fc.oneof(
    fc.nat(3),
    fc.nat(300),
    fc.integer({ min: SHORT_BYTES - 2, max: SHORT_BYTES + 2 }),
    fc.nat(3 * SHORT_BYTES),
    fc.integer({ min: BLOCK_BYTES - 2, max: BLOCK_BYTES + SHORT_BYTES }),
    fc.nat(3 * BLOCK_BYTES),
  );
  const does = fc.constantFrom("add", "add", "add", "take", "take", "at", "clear", "spoil", "release");
  const step = fc.record({ does, which: fc.nat(1), length: lengths });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const calls = [0, 1].map(() => ({ intake: new Intake(), expected: Buffer.alloc(0) }));
      const taken: { bytes: Buffer<ArrayBuffer>; expected: Buffer }[] = [];
      let next = 0;
      for (const { does, which, length } of steps) {
        const call = calls[which];
        if (call === undefined) throw new Error("no such call");
        const count = Math.min(length, call.expected.length);
        if (does === "add") {
          const bytes = bytesOf(length, next++);
          add(call.intake, bytes);
          call.expected = Buffer.concat([call.expected, bytes]);
        } else if (does === "take") {
          const bytes = call.intake.take(count);
          taken.push({ bytes, expected: Buffer.from(call.expected.subarray(0, count)) });
          call.expected = call.expected.subarray(count);
        } else if (does === "at") expect(call.intake.at(length)).toBe(call.expected[length]);
        else if (does === "clear") {
          call.intake.clear();
          call.expected = Buffer.alloc(0);
        } else
          for (const each of taken.splice(-1))
            if (does === "spoil") each.bytes.fill(0xff);
            else release(each.bytes);
        expect(call.intake.bytes).toBe(call.expected.length);
      }
      for (const { intake, expected } of calls) expect(intake.take(expected.length).equals(expected)).toBe(true);
      for (const { bytes, expected } of taken) expect(bytes.equals(expected)).toBe(true);
      expect(new Set(taken.map(({ bytes }) => bytes.buffer)).size).toBe(taken.length);
    }),
  );
});

test("a flood of single bytes costs little more than it holds, and is few parts", () => {
  const parts = partsOf(filled(...Array<Uint8Array>(20_000).fill(Buffer.of(7))));
  expect(parts.map(({ byteLength }) => byteLength)).toEqual([4096, 4096, 4096, 4096, 3616]);
  expect(memoryIn(parts)).toBe(20_000);
});

test("a few bytes that wait get no block", () => {
  expect(memoryIn(partsOf(filled(bytesOf(5))))).toBe(5);
  expect(memoryIn(partsOf(filled(bytesOf(SHORT_BYTES - 1))))).toBe(SHORT_BYTES - 1);
  expect(memoryIn(partsOf(filled(bytesOf(SHORT_BYTES))))).toBe(BLOCK_BYTES);
  const behindBlock = partsOf(filled(bytesOf(BLOCK_BYTES + 1)));
  expect(memoryIn(behindBlock)).toBe(BLOCK_BYTES + 1);
});

test("what comes behind others goes into their block while there is room", () => {
  const intake = filled(bytesOf(SHORT_BYTES), Buffer.of(1), bytesOf(BLOCK_BYTES - SHORT_BYTES - 1));
  expect(new Set(partsOf(intake)).size).toBe(1);
});

test("of short bytes, what was taken is not kept", () => {
  const intake = filled(bytesOf(1_000));
  intake.take(990);
  add(intake, bytesOf(10));
  expect(memoryIn(partsOf(intake))).toBe(20);
});

test("blocks are used again once all in them was taken, or dropped", () => {
  const spread = [bytesOf(SHORT_BYTES), bytesOf(2 * BLOCK_BYTES - SHORT_BYTES)];
  const first = new Set(partsOf(filled(bytesOf(2 * BLOCK_BYTES))));
  expect(first.size).toBe(2);
  filled(...spread).clear();
  for (const bytes of [[bytesOf(2 * BLOCK_BYTES)], spread]) {
    const known = partsOf(filled(...bytes)).map((part) => first.has(part));
    expect(known).toEqual([true, true]);
  }
});

test("a block is not used again while there is something in it", () => {
  const intake = filled(bytesOf(2 * SHORT_BYTES));
  intake.take(SHORT_BYTES);
  const others = Array.from({ length: 20 }, () => filled(bytesOf(BLOCK_BYTES, 100)));
  expect(intake.take(SHORT_BYTES).equals(bytesOf(2 * SHORT_BYTES).subarray(-SHORT_BYTES))).toBe(true);
  for (const other of others) expect(other.take(BLOCK_BYTES).equals(bytesOf(BLOCK_BYTES, 100))).toBe(true);
});

test("a few bytes that are left keep no block", () => {
  for (const [left, memory] of [
    [SHORT_BYTES, BLOCK_BYTES],
    [SHORT_BYTES - 1, SHORT_BYTES - 1],
  ] as const) {
    const bytes = bytesOf(3 * SHORT_BYTES);
    const [first, second] = [filled(bytes), filled(bytes)];
    for (const intake of [first, second]) intake.take(bytes.length - left);
    expect(memoryIn(partsOf(first))).toBe(memory);
    expect(second.take(left).equals(bytes.subarray(-left))).toBe(true);
  }
});

test("short bytes behind a block that is full are not put into it, however little is left of that", () => {
  const intake = filled(bytesOf(BLOCK_BYTES));
  intake.take(BLOCK_BYTES - SHORT_BYTES);
  const [few, many] = [bytesOf(10, 50), bytesOf(2 * SHORT_BYTES, 100)];
  for (const bytes of [few, many]) add(intake, bytes);
  const expected = Buffer.concat([bytesOf(BLOCK_BYTES).subarray(-SHORT_BYTES), few, many]);
  expect(intake.take(expected.length).equals(expected)).toBe(true);
});

test("more than there is cannot be taken", () => {
  expect(() => new Intake().take(1)).toThrow("1 bytes too few");
  for (const length of [3, BLOCK_BYTES]) expect(() => filled(bytesOf(length)).take(length + 2)).toThrow("2 bytes");
  expect(new Intake().take(0)).toHaveLength(0);
});

test("there is no byte behind the last, nor before the first", () => {
  const intake = filled(Buffer.of(1), bytesOf(BLOCK_BYTES, 2));
  expect([0, 1, 2, BLOCK_BYTES, BLOCK_BYTES + 1].map((place) => intake.at(place))).toEqual([
    1,
    2,
    3,
    bytesOf(BLOCK_BYTES, 2).at(-1),
    undefined,
  ]);
  intake.take(2);
  add(intake, Buffer.of(9, 10));
  expect([0, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1].map((place) => intake.at(place))).toEqual([
    3,
    9,
    10,
    undefined,
  ]);
});
