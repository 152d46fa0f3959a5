import { expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { PutArchiveRequestSchema, ReadyRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { envelope, http2Session, LIMIT, rawHttp2, SERVICE, startTestServer, statusOf } from "./harness.ts";

/** What gRPC's own mistakes are answered with, by code and message: docs/errors.md, "The protocol". */

const READY = toBinary(ReadyRequestSchema, create(ReadyRequestSchema));
const LARGE = toBinary(PutArchiveRequestSchema, create(PutArchiveRequestSchema, { tarPayload: new Uint8Array(LIMIT) }));

test.each([
  ["no message", {}, new Uint8Array(), Code.Unimplemented, "protocol error: missing input message for unary method"],
  [
    "two messages",
    {},
    Buffer.concat([envelope(READY), envelope(READY)]),
    Code.Unimplemented,
    "protocol error: received extra input message for unary method",
  ],
  ["half a message", {}, Buffer.of(0, 0, 0, 0, 9, 1), Code.InvalidArgument, "protocol error: incomplete envelope"],
  [
    "a message that is compressed without saying how",
    {},
    envelope(READY, 1),
    Code.Internal,
    "received compressed envelope, but do not know how to decompress",
  ],
  ["no protobuf", {}, envelope(Buffer.of(0xff)), Code.Internal, /^parse binary: ./],
  [
    "no JSON",
    { "content-type": "application/grpc+json" },
    envelope(Buffer.from("{")),
    Code.InvalidArgument,
    /^parse JSON: ./,
  ],
  [
    "a message above the limit",
    { ":path": `/${SERVICE}/PutArchive` },
    envelope(LARGE),
    Code.ResourceExhausted,
    `message size ${LARGE.length} is larger than configured readMaxBytes ${LIMIT}`,
  ],
  ["no time", { "grpc-timeout": "0m" }, envelope(READY), Code.DeadlineExceeded, "the operation timed out"],
] as const)("%s", async (_what, headers, body, code, message) => {
  await using server = await startTestServer();
  using session = await http2Session(server.baseUrl);
  const request = { ":path": `/${SERVICE}/Ready`, "content-type": "application/grpc", te: "trailers", ...headers };
  const status = statusOf(await rawHttp2(session, request, body));
  expect(status["grpc-status"]).toBe(String(code));
  const told = decodeURIComponent(status["grpc-message"] ?? "");
  if (typeof message === "string") expect(told).toBe(message);
  else expect(told).toMatch(message);
});
