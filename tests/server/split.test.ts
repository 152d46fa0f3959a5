import { expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import {
  ExecResponseSchema,
  PutArchiveRequestSchema,
  StreamWorkloadLogsResponseSchema,
} from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { split } from "../../src/grpc/split.ts";

const LARGE = new Uint8Array(100_000).fill(7);
const SMALL = new Uint8Array(10).fill(7);

test.each([
  ["in the message itself", PutArchiveRequestSchema, { workloadId: "x", path: "/tmp", tarPayload: LARGE }],
  [
    "in one of its messages",
    ExecResponseSchema,
    { event: { case: "stdout", value: { seq: 9n, data: LARGE, ts: { seconds: 5n, nanos: 6 } } } },
  ],
  ["beside others", ExecResponseSchema, { event: { case: "exit", value: { stdoutTail: LARGE, stderrTail: SMALL } } }],
  ["and nothing else", StreamWorkloadLogsResponseSchema, { event: { case: "chunk", value: { data: LARGE } } }],
] as const)("a large field %s is written as it is, and the message is the same", (_name, desc, init) => {
  const message = create(desc as typeof ExecResponseSchema, init as never); // one of several types, each with its own init
  const before = toBinary(desc as typeof ExecResponseSchema, message);
  const parts = split(desc, message) ?? expect.unreachable();
  expect(parts.data).toBe(LARGE);
  const whole = Buffer.from([...parts.head, ...parts.data]);
  expect(fromBinary(desc as typeof ExecResponseSchema, whole)).toEqual(message);
  expect(whole).toHaveLength(before.length);
  expect(toBinary(desc as typeof ExecResponseSchema, message)).toEqual(before); // it is left as it was
});

test("a message with much beside its large field is left to the library, as it was", () => {
  const value = { stdoutTail: LARGE, stderrTail: LARGE };
  const message = create(ExecResponseSchema, { event: { case: "exit", value } });
  const before = toBinary(ExecResponseSchema, message);
  expect(split(ExecResponseSchema, message)).toBeUndefined();
  expect(toBinary(ExecResponseSchema, message)).toEqual(before);
});

test("what the library refuses to write is refused", () => {
  const ts = create(TimestampSchema);
  ts.nanos = 2 ** 31;
  const message = create(ExecResponseSchema, { event: { case: "stdout", value: { data: LARGE, ts } } });
  expect(() => split(ExecResponseSchema, message)).toThrow();
});

test("a message without a large field is left to the library", () => {
  const message = create(ExecResponseSchema, { event: { case: "stdout", value: { data: SMALL } } });
  expect(split(ExecResponseSchema, message)).toBeUndefined();
  expect(split(ExecResponseSchema, create(ExecResponseSchema))).toBeUndefined();
});

test("what stands beside output means the same as where the library writes it, and is as long, whatever its values", () => {
  const seq = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  const near = fc.constantFrom(0n, 1n, 127n, 128n, 2n ** 31n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 64n - 1n);
  const seconds = fc.oneof(fc.constantFrom(0n, -1n, 2n ** 53n), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
  const nanos = fc.oneof(fc.constantFrom(0, -1), fc.nat(999_999_999));
  const ts = fc.option(fc.record({ seconds, nanos }), { nil: undefined });
  fc.assert(
    fc.property(fc.oneof(seq, near), ts, fc.boolean(), fc.boolean(), (seq, ts, hasUnknown, isInner) => {
      const message = create(ExecResponseSchema, { event: { case: "stdout", value: { seq, data: LARGE } } });
      if (message.event.case !== "stdout") return;
      const output = message.event.value;
      if (ts !== undefined) output.ts = create(TimestampSchema, ts);
      const unknown = [{ no: 9, wireType: 0, data: Uint8Array.of(1) }];
      if (hasUnknown && isInner && output.ts !== undefined) output.ts.$unknown = unknown;
      else if (hasUnknown) output.$unknown = unknown;
      const { head, data } = split(ExecResponseSchema, message) ?? expect.unreachable();
      const whole = Buffer.from([...head, ...data]);
      expect(fromBinary(ExecResponseSchema, whole)).toEqual(message);
      expect(whole).toHaveLength(toBinary(ExecResponseSchema, message).length);
    }),
  );
});
