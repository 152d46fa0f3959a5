import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { PutArchiveRequestSchema, RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import {
  bidiTransports,
  envelope,
  http2Session,
  LIMIT,
  rawHttp2,
  SERVICE,
  startTestServer,
  statusOf,
  stdin,
  transports,
} from "./harness.ts";

const EXHAUSTED = String(Code.ResourceExhausted);

describe.each(Object.entries(transports))("over %s", (_name, transportFor) => {
  test("a message above the limit is RESOURCE_EXHAUSTED, one below is not, and the client can go on", async () => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const put = (bytes: number) => client.putArchive({ tarPayload: new Uint8Array(bytes) });
    await put(Math.floor(LIMIT * 0.7)); // JSON takes a third more
    const error = await put(LIMIT + 1).catch(ConnectError.from);
    expect(error).toMatchObject({ code: Code.ResourceExhausted });
    expect((await client.ready({})).status).toBe("ok");
  });
});

describe.each(bidiTransports)("over %s", (_name, transportFor) => {
  test("a later message of a stream above the limit ends the stream, after the answers to those before", async () => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const echoed = Promise.withResolvers<void>();
    async function* requests() {
      yield stdin("hello");
      await echoed.promise;
      yield stdin("x".repeat(4 * LIMIT));
      await new Promise(() => {}); // this caller never closes its side
    }
    const answers = client.exec(requests())[Symbol.asyncIterator]();
    expect((await answers.next()).done).toBe(false);
    echoed.resolve();
    const error = await answers.next().then(() => undefined, ConnectError.from);
    expect(error).toMatchObject({ code: Code.ResourceExhausted });
    expect((await client.ready({})).status).toBe("ok");
  });
});

describe("on the wire", () => {
  const put = { ":path": `/${SERVICE}/PutArchive`, "content-type": "application/grpc", te: "trailers" };
  const messageOf = (bytes: number): Uint8Array => {
    const overhead = toBinary(
      PutArchiveRequestSchema,
      create(PutArchiveRequestSchema, { tarPayload: new Uint8Array(LIMIT) }),
    );
    const tarPayload = new Uint8Array(bytes - (overhead.length - LIMIT));
    return toBinary(PutArchiveRequestSchema, create(PutArchiveRequestSchema, { tarPayload }));
  };

  test("the limit itself is the largest message", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    for (const [bytes, status] of [
      [LIMIT, "0"],
      [LIMIT + 1, EXHAUSTED],
    ] as const) {
      const message = messageOf(bytes);
      expect(message).toHaveLength(bytes);
      const answer = await rawHttp2(session, put, envelope(message));
      expect(statusOf(answer)).toMatchObject({ "grpc-status": status });
    }
    expect(server.usage.refused().messageBytes).toBe(1);
  });

  test("counts what a compressed message becomes", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const zipped = envelope(gzipSync(messageOf(100 * LIMIT)), 1);
    expect(zipped.length).toBeLessThan(LIMIT);
    const answer = await rawHttp2(session, { ...put, "grpc-encoding": "gzip" }, zipped);
    expect(statusOf(answer)).toMatchObject({ "grpc-status": EXHAUSTED });
    expect(server.usage.refused().messageBytes).toBe(1);
  });

  test("a refused request is still taken in, so that its client does not wait for room", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const stream = session.request({ ":method": "POST", ...put });
    stream.resume();
    // More than the window of a stream, less than what is thrown away for a client.
    const sent = new Promise<void>((resolve) => stream.end(envelope(messageOf(3 * LIMIT)), () => resolve()));
    const [head] = await once(stream, "response");
    expect(head).toMatchObject({ "grpc-status": EXHAUSTED });
    await sent;
  });

  test("a client that goes on sending after its refusal is told to stop", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const stream = session.request({ ":method": "POST", ...put });
    stream.resume();
    stream.on("error", () => {}); // its writes fail once it is told
    stream.write(envelope(messageOf(100 * LIMIT)));
    const [head] = await once(stream, "response");
    expect(head).toMatchObject({ "grpc-status": EXHAUSTED });
    await once(stream, "close");
    expect(stream.rstCode).toBe(0);
  });
});
