import { expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
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
  ["beside others", ExecResponseSchema, { event: { case: "exit", value: { stdoutTail: LARGE, stderrTail: LARGE } } }],
  ["and nothing else", StreamWorkloadLogsResponseSchema, { event: { case: "chunk", value: { data: LARGE } } }],
] as const)("a large field %s is written as it is, and the message is the same", (_name, desc, init) => {
  const message = create(desc as typeof ExecResponseSchema, init as never); // one of several types, each with its own init
  const before = toBinary(desc as typeof ExecResponseSchema, message);
  const parts = split(desc, message) ?? expect.unreachable();
  expect(parts.data).toBe(LARGE);
  const whole = Buffer.concat([parts.head, parts.data]);
  expect(fromBinary(desc as typeof ExecResponseSchema, whole)).toEqual(message);
  expect(whole).toHaveLength(before.length);
  expect(toBinary(desc as typeof ExecResponseSchema, message)).toEqual(before); // it is left as it was
});

test("a message without a large field is left to the library", () => {
  const message = create(ExecResponseSchema, { event: { case: "stdout", value: { data: SMALL } } });
  expect(split(ExecResponseSchema, message)).toBeUndefined();
  expect(split(ExecResponseSchema, create(ExecResponseSchema))).toBeUndefined();
});
