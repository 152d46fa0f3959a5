import { expect, test } from "bun:test";
import { create, type DescMessage, fromBinary, toBinary } from "@bufbuild/protobuf";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import {
  InspectWorkloadRequestSchema,
  RunnerService,
  StreamWorkloadLogsRequestSchema,
} from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { shortReader } from "../../src/grpc/short.ts";

const read = (desc: DescMessage, bytes: Uint8Array, before = 0) =>
  shortReader(desc)(Buffer.concat([Buffer.alloc(before, 9), bytes]), before);

const inspect = (workloadId: string) =>
  toBinary(InspectWorkloadRequestSchema, create(InspectWorkloadRequestSchema, { workloadId }));

test("an id of ASCII is read, wherever the message begins", () => {
  for (const id of ["6ed8f104-9c53-488d-a1ba-7ab4071485d0", "", "\0 ~\x7f", "x".repeat(127)])
    for (const before of [0, 5]) {
      const expected = create(InspectWorkloadRequestSchema, { workloadId: id });
      if (id === "") expect(read(InspectWorkloadRequestSchema, Uint8Array.of(0x0a, 0), before)).toEqual(expected);
      else expect(read(InspectWorkloadRequestSchema, inspect(id), before)).toEqual(expected);
    }
});

test("everything else is left to the library", () => {
  const left: [DescMessage, Uint8Array][] = [
    [InspectWorkloadRequestSchema, inspect("ä")],
    [InspectWorkloadRequestSchema, inspect("x".repeat(128))],
    [InspectWorkloadRequestSchema, new Uint8Array()],
    [InspectWorkloadRequestSchema, Uint8Array.of(0x0a)],
    [InspectWorkloadRequestSchema, Uint8Array.of(0x0a, 2, 0x61)],
    [InspectWorkloadRequestSchema, Uint8Array.of(0x0a, 1, 0x61, 0x62)],
    [InspectWorkloadRequestSchema, Uint8Array.of(0x0a, 1, 0xff)],
    [InspectWorkloadRequestSchema, Uint8Array.of(0x12, 1, 0x61)], // a field that is not known
    [InspectWorkloadRequestSchema, Uint8Array.of(0x08, 1)],
    [
      StreamWorkloadLogsRequestSchema,
      toBinary(
        StreamWorkloadLogsRequestSchema,
        create(StreamWorkloadLogsRequestSchema, { workloadId: "a", containerName: "b" }),
      ),
    ],
  ];
  for (const [desc, bytes] of left) expect(read(desc, bytes)).toBeUndefined();
});

test("what is read is what the library reads, of any bytes and every request", () => {
  const descs = [...RunnerService.methods.map(({ input }) => input), StringValueSchema];
  const random = (below: number) => Math.floor(Math.random() * below);
  let known = 0;
  for (let round = 0; round < 20_000; round++) {
    const desc = descs[random(descs.length)] ?? StringValueSchema;
    const length = random(6);
    const bytes = Uint8Array.of(
      (random(8) << 3) | (random(4) > 0 ? 2 : random(8)),
      random(8) > 0 ? length : random(256),
      ...Array.from({ length }, () => random(140)),
    );
    const message = read(desc, bytes);
    if (message === undefined) continue;
    known += 1;
    expect(message).toEqual(fromBinary(desc, bytes));
  }
  expect(known).toBeGreaterThan(100);
});
