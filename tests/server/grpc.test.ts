import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createClient,
  decodeBinaryHeader,
  encodeBinaryHeader,
  type ServiceImpl,
} from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  ExecRequestSchema,
  LogChunkSchema,
  RunnerService,
  StreamWorkloadLogsRequestSchema,
  type StreamWorkloadLogsResponseSchema,
} from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { createLog } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import { envelope, http2Session, rawHttp2, SERVICE, statusOf } from "./harness.ts";

/** gRPC over HTTP/2 with handlers of the test's own. */
async function serving(implementation: Partial<ServiceImpl<typeof RunnerService>>) {
  const server = await startServer({
    address: "127.0.0.1:0",
    maxMessageBytes: 4 * 1024 * 1024,
    log: createLog({ level: "silent" }),
    routes: (router) => router.service(RunnerService, implementation),
  });
  const baseUrl = `http://127.0.0.1:${server.address.port}`;
  const client = createClient(RunnerService, createGrpcTransport({ baseUrl }));
  return { server, baseUrl, client, [Symbol.asyncDispose]: () => server.close(0) };
}

const head = (rpc: string) => ({ ":path": `/${SERVICE}/${rpc}`, "content-type": "application/grpc", te: "trailers" });
const post = (session: ClientHttp2Session, rpc: string): ClientHttp2Stream =>
  session.request({ ":method": "POST", ...head(rpc) });
const empty = envelope(new Uint8Array());
const chunk = (data: Uint8Array): MessageInitShape<typeof StreamWorkloadLogsResponseSchema> => ({
  event: { case: "chunk", value: { data } },
});
const turns = async (count: number) => {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
};

describe("an error", () => {
  test("is told by the head of the answer alone, unless metadata has to go before", async () => {
    await using runner = await serving({
      ready: () => {
        throw new ConnectError("no", Code.Aborted, { "x-why": "because" });
      },
      inspectWorkload: (_, { responseHeader }) => {
        responseHeader.set("x-first", "1");
        throw new ConnectError("no", Code.Aborted);
      },
    });
    using session = await http2Session(runner.baseUrl);
    const alone = await rawHttp2(session, head("Ready"), empty);
    expect(alone.headersOnly).toBe(true);
    expect(alone.headers).toMatchObject({ "grpc-status": "10", "grpc-message": "no", "x-why": "because" });
    const after = await rawHttp2(session, head("InspectWorkload"), empty);
    expect(after.headersOnly).toBe(false);
    expect(after.headers).toMatchObject({ "x-first": "1", "content-type": "application/grpc+proto" });
    expect(after.trailers).toMatchObject({ "grpc-status": "10", "grpc-message": "no" });
  });

  test("keeps its details, and a message that is no text is made one", async () => {
    await using runner = await serving({
      ready: () => {
        const detail = { desc: LogChunkSchema, value: { data: Buffer.from("detail") } };
        throw new ConnectError("half a character: \ud800 – 100%", Code.DataLoss, undefined, [detail]);
      },
    });
    const error = await runner.client.ready({}).then(() => expect.unreachable(), ConnectError.from);
    expect(error).toMatchObject({ code: Code.DataLoss, rawMessage: "half a character: \ufffd – 100%" });
    expect(error.findDetails(LogChunkSchema).map(({ data }) => Buffer.from(data).toString())).toEqual(["detail"]);
  });

  test("that no handler meant to show is INTERNAL without its text", async () => {
    await using runner = await serving({
      ready: () => {
        throw new Error("secret");
      },
    });
    const error = await runner.client.ready({}).then(() => expect.unreachable(), ConnectError.from);
    expect(error).toMatchObject({ code: Code.Internal, rawMessage: "internal error" });
  });

  test("comes after the messages before it", async () => {
    await using runner = await serving({
      async *streamWorkloadLogs() {
        yield chunk(Buffer.from("one"));
        throw new ConnectError("then this", Code.Unavailable);
      },
    });
    const logs = runner.client.streamWorkloadLogs({})[Symbol.asyncIterator]();
    expect((await logs.next()).done).toBe(false);
    const error = await logs.next().then(() => expect.unreachable(), ConnectError.from);
    expect(error).toMatchObject({ code: Code.Unavailable, rawMessage: "then this" });
  });
});

test("metadata goes both ways, several values and bytes included", async () => {
  const bytes = Buffer.from([0, 255, 10]);
  await using runner = await serving({
    ready: (_, { requestHeader, responseHeader, responseTrailer }) => {
      expect(requestHeader.get("x-list")).toBe("a, b");
      expect(decodeBinaryHeader(requestHeader.get("x-some-bin") ?? "")).toEqual(new Uint8Array(bytes));
      responseHeader.append("x-list", "c");
      responseHeader.append("x-list", "d");
      responseTrailer.set("x-some-bin", encodeBinaryHeader(bytes));
      return { status: "ok" };
    },
  });
  const headers = new Headers({ "x-list": "a, b", "x-some-bin": encodeBinaryHeader(bytes) });
  const got: Record<string, Headers> = {};
  await runner.client.ready(
    {},
    {
      headers,
      onHeader: (each) => Object.assign(got, { header: each }),
      onTrailer: (each) => Object.assign(got, { trailer: each }),
    },
  );
  expect(got.header?.get("x-list")).toBe("c, d");
  expect(got.trailer?.get("x-some-bin")).toBe(encodeBinaryHeader(bytes));
});

describe("a request", () => {
  test.each([
    ["without a message", new Uint8Array(), Code.Unimplemented, "missing input message"],
    ["of two messages", Buffer.concat([empty, empty]), Code.Unimplemented, "received extra input message"],
    ["that ends inside of a message", Buffer.from([0, 0, 0, 0, 9, 1]), Code.InvalidArgument, "incomplete envelope"],
    ["with a message that is none", envelope(Buffer.from([255])), Code.Internal, "parse binary"],
    ["compressed without a word", envelope(Buffer.from([1]), 1), Code.Internal, "compressed envelope"],
  ])("%s is refused, unary or answered by a stream", async (_name, body, code, text) => {
    let calls = 0;
    await using runner = await serving({
      ready: () => {
        calls += 1;
        return {};
      },
      async *streamWorkloadLogs() {
        calls += 1;
        yield chunk(Buffer.from("one"));
      },
    });
    using session = await http2Session(runner.baseUrl);
    for (const rpc of ["Ready", "StreamWorkloadLogs"]) {
      const status = statusOf(await rawHttp2(session, head(rpc), body));
      expect(status).toMatchObject({ "grpc-status": String(code) });
      expect(decodeURIComponent(status["grpc-message"] ?? "")).toContain(text);
    }
    expect(calls).toBe(0);
  });

  test("whose message comes byte by byte, among others, is read whole", async () => {
    await using runner = await serving({
      async *exec(requests) {
        for await (const { msg } of requests)
          if (msg.case === "stdin") yield { event: { case: "stdout", value: { data: msg.value.data } } };
      },
    });
    using session = await http2Session(runner.baseUrl);
    const message = (text: string) =>
      envelope(
        toBinary(
          ExecRequestSchema,
          create(ExecRequestSchema, { msg: { case: "stdin", value: { data: Buffer.from(text) } } }),
        ),
      );
    const stream = post(session, "Exec");
    const answer: Buffer[] = [];
    stream.on("data", (data: Buffer) => answer.push(data));
    for (const byte of Buffer.concat([message("one"), message("two")])) {
      await new Promise<void>((resolve) => stream.write(Buffer.of(byte), () => resolve()));
    }
    stream.end(Buffer.concat([message("three"), message("four")]));
    await once(stream, "end");
    expect(
      Buffer.concat(answer)
        .toString()
        .match(/[a-z]+/g),
    ).toEqual(["one", "two", "three", "four"]);
  });

  test("that is not taken holds its sender back", async () => {
    const begun = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    let taken = 0;
    await using runner = await serving({
      // biome-ignore lint/correctness/useYield: it has nothing to answer
      async *exec(requests) {
        begun.resolve();
        await goOn.promise;
        for await (const { msg } of requests) if (msg.case === "stdin") taken += msg.value.data.length;
      },
    });
    let made = 0;
    async function* input() {
      for (; made < 512; made++)
        yield { msg: { case: "stdin" as const, value: { data: new Uint8Array(32 * 1024), eof: false } } };
    }
    const call = (async () => {
      for await (const _ of runner.client.exec(input()));
    })();
    await begun.promise;
    await turns(500);
    expect(made).toBeLessThan(256); // of 512, most of which are in the client's own hands
    goOn.resolve();
    await call;
    expect(taken).toBe(512 * 32 * 1024);
  });
});

describe("a deadline", () => {
  test("that is over already ends the call before its handler", async () => {
    let calls = 0;
    const ready = () => {
      calls += 1;
      return {};
    };
    await using runner = await serving({ ready });
    using session = await http2Session(runner.baseUrl);
    const late = await rawHttp2(session, { ...head("Ready"), "grpc-timeout": "0n" }, empty);
    expect(statusOf(late)).toMatchObject({ "grpc-status": String(Code.DeadlineExceeded) });
    const odd = await rawHttp2(session, { ...head("Ready"), "grpc-timeout": "soon" }, empty);
    expect(statusOf(odd)).toMatchObject({ "grpc-status": String(Code.InvalidArgument) });
    expect(calls).toBe(0);
  });

  test("that is far away is kept as well", async () => {
    await using runner = await serving({ ready: () => ({}) });
    using session = await http2Session(runner.baseUrl);
    const since = performance.now();
    const stream = session.request({ ":method": "POST", ...head("Ready"), "grpc-timeout": "2500m" });
    stream.write(empty);
    const [headers] = await once(stream, "response");
    expect(headers).toMatchObject({ "grpc-status": String(Code.DeadlineExceeded) });
    expect(performance.now() - since).toBeGreaterThan(2400);
  });

  test("ends a call whose request does not end", async () => {
    await using runner = await serving({ ready: () => ({}) });
    using session = await http2Session(runner.baseUrl);
    const stream = session.request({ ":method": "POST", ...head("Ready"), "grpc-timeout": "20m" });
    stream.write(empty);
    const [headers] = await once(stream, "response");
    expect(headers).toMatchObject({ "grpc-status": String(Code.DeadlineExceeded) });
  });
});

describe("a caller that does not read", () => {
  /** Logs without end, of messages of `bytes`; tells how many were made, and when the generator was left. */
  async function endless(bytes: number) {
    const state = { made: 0, left: Promise.withResolvers<void>(), reason: undefined as unknown };
    const runner = await serving({
      async *streamWorkloadLogs(_, { signal }) {
        signal.addEventListener("abort", () => Object.assign(state, { reason: signal.reason }));
        try {
          for (;;) {
            state.made += 1;
            yield chunk(new Uint8Array(bytes));
          }
        } finally {
          state.left.resolve();
        }
      },
    });
    return Object.assign(runner, { state });
  }

  test.each([100, 32 * 1024])("of messages of %d bytes stops the handler after little", async (bytes) => {
    await using runner = await endless(bytes);
    using session = await http2Session(runner.baseUrl);
    const stream = post(session, "StreamWorkloadLogs");
    stream.end(empty);
    await once(stream, "response");
    await turns(200);
    const { made } = runner.state;
    expect(made * bytes).toBeLessThan(512 * 1024); // the windows of client and server, and what is on the way
    await turns(200);
    expect(runner.state.made).toBe(made);
    stream.close(8);
  });

  test.each([100, 32 * 1024])(
    "and goes, with messages of %d bytes, leaves the handler by its finally",
    async (bytes) => {
      await using runner = await endless(bytes);
      using session = await http2Session(runner.baseUrl);
      const stream = post(session, "StreamWorkloadLogs");
      stream.on("error", () => {}); // of our own cancellation
      stream.end(empty);
      await once(stream, "response");
      await turns(200);
      stream.close(8);
      await runner.state.left.promise;
      expect(runner.state.reason).toMatchObject({ code: Code.Canceled });
    },
  );

  test("and goes while the handler waits for something else, leaves it at its next message", async () => {
    const goOn = Promise.withResolvers<void>();
    const aborted = Promise.withResolvers<void>();
    const left = Promise.withResolvers<void>();
    await using runner = await serving({
      async *streamWorkloadLogs(_, { signal }) {
        signal.addEventListener("abort", () => aborted.resolve());
        try {
          yield chunk(Buffer.from("one"));
          await goOn.promise; // and not of its signal
          yield chunk(Buffer.from("two"));
          expect.unreachable();
        } finally {
          left.resolve();
        }
      },
    });
    using session = await http2Session(runner.baseUrl);
    const stream = post(session, "StreamWorkloadLogs");
    stream.on("error", () => {}); // of our own cancellation
    stream.end(empty);
    await once(stream, "response");
    stream.close(8);
    await aborted.promise;
    goOn.resolve();
    await left.promise;
  });

  test("is told of the server's end once it reads", async () => {
    await using runner = await endless(32 * 1024);
    using session = await http2Session(runner.baseUrl);
    const stream = post(session, "StreamWorkloadLogs");
    stream.end(empty);
    await once(stream, "response");
    await turns(200);
    const closed = runner.server.close(0);
    await runner.state.left.promise;
    stream.resume();
    const [trailers] = await once(stream, "trailers");
    expect(trailers).toMatchObject({ "grpc-status": String(Code.Unavailable) });
    await closed;
  });

  test("keeps what others write meanwhile out of its messages", async () => {
    const [MESSAGES, BYTES] = [100, 20_000];
    const letters = { slow: 0x73, other: 0x6f };
    await using runner = await serving({
      async *streamWorkloadLogs({ workloadId }) {
        const letter = workloadId === "slow" ? letters.slow : letters.other;
        for (let count = 0; count < MESSAGES; count++) yield chunk(new Uint8Array(BYTES).fill(letter));
      },
    });
    using session = await http2Session(runner.baseUrl);
    const logs = async (workloadId: string) => {
      const stream = post(session, "StreamWorkloadLogs");
      const request = create(StreamWorkloadLogsRequestSchema, { workloadId });
      stream.end(envelope(toBinary(StreamWorkloadLogsRequestSchema, request)));
      await once(stream, "response");
      return stream;
    };
    const stream = await logs("slow");
    await turns(200); // its window is full, and messages wait
    for await (const _ of await logs("other"));
    const all = Buffer.concat(await Array.fromAsync<Buffer>(stream));
    const count = (letter: number) => all.reduce((sum, byte) => (byte === letter ? sum + 1 : sum), 0);
    expect(count(letters.slow)).toBeGreaterThanOrEqual(MESSAGES * BYTES);
    expect(count(letters.other)).toBeLessThan(BYTES); // a few may be part of what stands around
  });
});
