import { describe, expect, spyOn, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { createClient, type HandlerContext } from "@connectrpc/connect";
import {
  type ConnectTransportOptions,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import {
  ExecRequestSchema,
  PutArchiveRequestSchema,
  RunnerService,
} from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { release } from "../../src/memory.ts";
import {
  ACK,
  callHead,
  END_HEADERS,
  END_STREAM,
  envelope,
  frame,
  INITIAL_WINDOW,
  settings,
  Type,
} from "../abuse/wire.ts";
import { bidiTransports, echoed, SERVICE, startTestServer, stdin, transports } from "../server/harness.ts";
import { certificates } from "../support/certificates.ts";
import { until } from "../support/wait.ts";
import { data, head, last, MAX_FRAME, Peer, post, room, serve } from "./client.ts";

/* What is read from a socket at once and is large is given back at once: whatever is kept of it has to be a copy. */

const KIND_OF_NONE = 0x20;
/** A frame that says nothing: with it, a read is large. */
const filler = frame(KIND_OF_NONE, 0, 0, Buffer.alloc(MAX_FRAME));

/** Bytes that are like no others of another seed. */
const bytesOf = (length: number, seed: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, index) => (index * 7 + (index >> 8) + seed * 31) & 0xff));

const archive = (seed: number, length: number): Uint8Array =>
  toBinary(PutArchiveRequestSchema, create(PutArchiveRequestSchema, archiveOf(seed, length)));
const archiveOf = (seed: number, length: number): MessageInitShape<typeof PutArchiveRequestSchema> => ({
  workloadId: String(seed),
  path: "/",
  tarPayload: bytesOf(length, seed),
});
const input = (bytes: Uint8Array): Uint8Array => {
  const message = create(ExecRequestSchema, { msg: { case: "stdin", value: { data: bytes } } });
  return toBinary(ExecRequestSchema, message);
};

let pings = 0;
/** Sends all of it at once, and waits until the server has read it; it may end within a frame. */
async function together(peer: Peer, ...parts: Uint8Array[]): Promise<void> {
  const text = Buffer.from(String(pings++).padStart(8, "p"));
  await peer.send(frame(Type.PING, 0, 0, text), ...parts);
  await peer.until("a ping in a large read is answered as it is", () =>
    peer.frames.some(({ type, flags, payload }) => type === Type.PING && flags === ACK && payload.equals(text)),
  );
}

/** A client whose next words are not the first that the server reads. */
async function peerOf(server: { port: number }): Promise<Peer> {
  const peer = await Peer.to(server, [[INITIAL_WINDOW, 1024 * 1024]]);
  await peer.settle();
  return peer;
}

/** A server that keeps what it is sent, and looks at it when `kept` is asked. */
async function keeping() {
  const archives = new Map<string, Uint8Array>();
  const messages: Uint8Array[] = [];
  const contexts: HandlerContext[] = [];
  const gate = Promise.withResolvers<void>();
  const server = await serve({
    ready: (_, context) => {
      contexts.push(context);
      return { status: "ok" };
    },
    putArchive: ({ workloadId, tarPayload }) => {
      archives.set(workloadId, tarPayload);
      return {};
    },
    async *exec(requests) {
      await gate.promise;
      for await (const { msg } of requests) if (msg.case === "stdin") messages.push(msg.value.data);
      yield { event: { case: "stdout", value: { data: Buffer.from("all") } } };
    },
  });
  /** The archives that are not what was sent. */
  const spoiled = () =>
    [...archives].filter(([id, bytes]) => !bytesOf(bytes.length || 1, Number(id)).equals(bytes)).map(([id]) => id);
  return { ...server, archives, messages, contexts, spoiled, read: () => gate.resolve() };
}

describe("the message of a call with one", () => {
  test("is whole when many came in one read, and stays so", async () => {
    await using server = await keeping();
    using peer = await peerOf(server);
    const lengths = [5, 16_000, 300, 40_000, 1, 9_000, 12_000, 4_096, 70_000, 10_000, 20];
    for (let round = 0; round < 4; round++) {
      const ids = lengths.map((_, index) => 2 * (round * lengths.length + index) + 1);
      const calls = lengths.map((length, index) => {
        const id = ids[index] ?? 0;
        const body = envelope(archive(id, length));
        return Buffer.concat([head(id, "PutArchive"), data(id, body), frame(Type.DATA, END_STREAM, id)]);
      });
      await peer.send(...calls);
      for (const id of ids) expect(await peer.answer(id)).toMatchObject({ "grpc-status": "0" });
    }
    expect([...server.archives.values()].map(({ length }) => length)).toEqual(Array(4).fill(lengths).flat());
    expect(server.spoiled()).toEqual([]);
  });

  test("is whole when it came alone, in a read that it is most of", async () => {
    await using server = await keeping();
    using peer = await peerOf(server);
    for (const id of [1, 3, 5]) {
      await peer.send(head(id, "PutArchive"), last(id, archive(id, 16_300)));
      expect(await peer.answer(id)).toMatchObject({ "grpc-status": "0" });
    }
    expect([server.archives.size, server.spoiled()]).toEqual([3, []]);
  });

  test.each([100, 6_000, 16_000])(
    "is whole when its frame is cut after %d bytes, between two large reads",
    async (cut) => {
      await using server = await keeping();
      using peer = await peerOf(server);
      const bytes = envelope(archive(1, 40_000));
      const [first, second, third] = [0, MAX_FRAME, 2 * MAX_FRAME].map((at) => bytes.subarray(at, at + MAX_FRAME));
      if (first === undefined || second === undefined || third === undefined) throw new Error("three frames");
      const middle = frame(Type.DATA, 0, 1, second);
      await together(peer, filler, head(1, "PutArchive"), frame(Type.DATA, 0, 1, first), middle.subarray(0, 9 + cut));
      const another = Buffer.concat([head(3, "PutArchive"), last(3, archive(3, 16_000))]);
      await peer.send(middle.subarray(9 + cut), another, filler, frame(Type.DATA, END_STREAM, 1, third));
      for (const id of [1, 3]) expect(await peer.answer(id)).toMatchObject({ "grpc-status": "0" });
      expect([server.archives.size, server.spoiled()]).toEqual([2, []]);
    },
  );

  test("is whole when it is compressed, and taken apart after its read was given back", async () => {
    await using server = await keeping();
    using peer = await peerOf(server);
    const calls = [1, 3, 5].map((id) => {
      // Compressed, but not made smaller.
      const packed = gzipSync(archive(id, 15_000), { level: 0 });
      const fields = callHead(`/${SERVICE}/PutArchive`, [["grpc-encoding", "gzip"]]);
      return Buffer.concat([
        frame(Type.HEADERS, END_HEADERS, id, fields),
        frame(Type.DATA, END_STREAM, id, envelope(packed, { flags: 1 })),
      ]);
    });
    for (const [index, call] of calls.entries()) {
      await peer.send(filler, call);
      expect(await peer.answer(2 * index + 1)).toMatchObject({ "grpc-status": "0" });
    }
    expect([server.archives.size, server.spoiled()]).toEqual([3, []]);
  });

  test.each(Object.entries(transports))("is what was sent by %s", async (_, transportFor) => {
    await using server = await keeping();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const lengths = [100 * 1024, 3, 180 * 1024, 17 * 1024, 60 * 1024];
    await Promise.all(lengths.map((length, seed) => client.putArchive(archiveOf(seed, length))));
    const found = [...server.archives].map(([id, { length }]): [string, number] => [id, length]);
    expect(found.sort()).toEqual(lengths.map((length, seed): [string, number] => [String(seed), length]));
    expect(server.spoiled()).toEqual([]);
  });
});

describe("the messages of a call that streams", () => {
  const kinds = [
    ["gRPC", (id: number) => head(id, "Exec")],
    ["gRPC-Web", (id: number) => post(id, "Exec", "application/grpc-web+proto")],
    ["Connect", (id: number) => post(id, "Exec", "application/connect+proto")],
  ] as const;

  test.each(kinds)("wait whole for a handler that is slow to read them, by %s", async (_, headOf) => {
    await using server = await keeping();
    using peer = await peerOf(server);
    const expected = [16_000, 100, 50_000, 3, 16_000, 10_000, 8_000].map(bytesOf);
    const bytes = Buffer.concat(expected.map((each) => envelope(input(each))));
    await together(peer, headOf(1));
    // In large reads of which it is most, in one that it is a small part of, and cut within a frame.
    await together(peer, data(1, bytes.subarray(0, 20_000)));
    await together(peer, filler, data(1, bytes.subarray(20_000, 21_000)));
    await together(peer, filler, data(1, bytes.subarray(21_000, 21_010)));
    const rest = data(1, bytes.subarray(21_010));
    await together(peer, rest.subarray(0, 26_000));
    await peer.send(rest.subarray(26_000), filler);
    server.read();
    await peer.send(frame(Type.DATA, END_STREAM, 1));
    await peer.answer(1);
    expect(server.messages.map(({ length }) => length)).toEqual(expected.map(({ length }) => length));
    for (const [index, message] of server.messages.entries())
      expect(Buffer.from(message).equals(expected[index] ?? Buffer.alloc(0))).toBe(true);
  });

  test.each(kinds)("are whole when they are taken as they come, by %s", async (_, headOf) => {
    await using server = await keeping();
    server.read();
    using peer = await peerOf(server);
    await together(peer, headOf(1));
    const expected = Array.from({ length: 12 }, (_, index) => bytesOf(16_300, index));
    for (const each of expected) await together(peer, frame(Type.DATA, 0, 1, envelope(input(each))));
    await peer.send(frame(Type.DATA, END_STREAM, 1));
    await peer.answer(1);
    expect(server.messages.map((each, index) => expected[index]?.equals(each))).toEqual(Array(12).fill(true));
  });

  test.each(bidiTransports)(
    "stay what they are until the end, when others are given back: %s",
    async (_, transportFor) => {
      const isKept = (index: number) => index % 3 !== 1;
      const seen = { kept: 0, unchanged: 0 };
      await using server = await serve({
        async *exec(requests) {
          const kept: [Uint8Array, Buffer][] = [];
          let index = 0;
          for await (const { msg } of requests) {
            if (msg.case !== "stdin") continue;
            const { data } = msg.value;
            if (isKept(index++)) kept.push([data, Buffer.from(data)]);
            else release(data);
          }
          seen.kept += kept.length;
          seen.unchanged += kept.filter(([data, copy]) => copy.equals(data) && isOne(copy)).length;
          yield {};
        },
      });
      const lengths = [1, 30_000, 500, 16_000, 0, 100_000, 4_090, 4_096, 5_000, 180_000];
      const isOne = (bytes: Buffer) => bytes.equals(Buffer.alloc(bytes.length, bytes[0]));
      const client = createClient(RunnerService, transportFor(server.baseUrl));
      const run = async (first: number) => {
        const requests = async function* () {
          for (let index = 0; index < 30; index++)
            yield stdin(String.fromCharCode(first + index).repeat(lengths[index % lengths.length] ?? 0));
        };
        await Array.fromAsync(client.exec(requests()));
      };
      await Promise.all([run(33), run(70)]);
      expect(seen).toEqual({ kept: 40, unchanged: 40 });
    },
  );
});

test.each([
  ["gRPC", createGrpcTransport],
  ["gRPC-Web", (options: ConnectTransportOptions) => createGrpcWebTransport(options)],
  ["Connect", (options: ConnectTransportOptions) => createConnectTransport(options)],
] as const)("what was read over TLS is whole as well: %s", async (_, transportFor) => {
  const { servers, server } = certificates();
  await using at = await startTestServer({
    tls: { cert: server.certPem, key: server.keyPem, clientCa: undefined },
  });
  const client = createClient(
    RunnerService,
    transportFor({ baseUrl: at.baseUrl, httpVersion: "2", nodeOptions: { ca: servers.caPem } }),
  );
  const pieces = [100_000, 3, 16_300, 200_000, 16_384, 5_000].map((length, index) =>
    String.fromCharCode(65 + index).repeat(length),
  );
  expect((await echoed(client, ...pieces)).map((piece, index) => piece === pieces[index])).toEqual(
    pieces.map(() => true),
  );
});

describe("in a large read", () => {
  test("all memory is given back, and none of a small one", async () => {
    await using server = await keeping();
    using peer = await peerOf(server);
    const given: number[] = [];
    const transfer = ArrayBuffer.prototype.transfer;
    using spied = spyOn(ArrayBuffer.prototype, "transfer");
    spied.mockImplementation(function (this: ArrayBuffer, bytes) {
      given.push(this.byteLength);
      return transfer.call(this, bytes);
    });
    await together(peer, Buffer.alloc(0));
    expect(given).toEqual([]);
    await together(peer, ...Array<Buffer>(8).fill(filler));
    expect(Math.max(...given)).toBeGreaterThan(MAX_FRAME);
    expect(Math.min(...given)).toBeGreaterThanOrEqual(16 * 1024);
  });

  test("header fields are told whole, and stay so", async () => {
    await using server = await keeping();
    using peer = await peerOf(server);
    const text = (id: number) => String(id).repeat(3_000);
    const headWith = (id: number) => callHead(`/${SERVICE}/Ready`, [["x-text", text(id)]]);
    const ids = [1, 3, 5, 7, 9, 11, 13];
    await peer.send(...ids.flatMap((id) => [frame(Type.HEADERS, END_HEADERS, id, headWith(id)), last(id)]), filler);
    for (const id of ids) expect(await peer.answer(id)).toMatchObject({ "grpc-status": "0" });
    expect(server.contexts.map(({ requestHeader }) => requestHeader.get("x-text"))).toEqual(ids.map(text));
  });

  test.each(["a block", "a frame of it"])(
    "header fields are whole whose rest comes in the next one: %s",
    async (what) => {
      await using server = await keeping();
      using peer = await peerOf(server);
      const text = "abcdefgh".repeat(4_000);
      const block = callHead(`/${SERVICE}/Ready`, [["x-text", text]]);
      const parts = [0, MAX_FRAME, 2 * MAX_FRAME].map((at) => block.subarray(at, at + MAX_FRAME));
      const bytes = Buffer.concat(
        parts.map((part, index) =>
          frame(index === 0 ? Type.HEADERS : Type.CONTINUATION, index === parts.length - 1 ? END_HEADERS : 0, 1, part),
        ),
      );
      const cut = what === "a block" ? 9 + MAX_FRAME : 15_000;
      await together(peer, filler, bytes.subarray(0, cut));
      await peer.send(bytes.subarray(cut), last(1), filler);
      expect(await peer.answer(1)).toMatchObject({ "grpc-status": "0" });
      expect(server.contexts[0]?.requestHeader.get("x-text")).toBe(text);
    },
  );

  test("pings are answered with what they say, also when that comes in two of them", async () => {
    await using server = await keeping();
    using peer = await peerOf(server);
    const texts = Array.from({ length: 20 }, (_, index) => Buffer.from(`text ${100 + index}`));
    const [first = Buffer.alloc(0), ...others] = texts.map((text) => frame(Type.PING, 0, 0, text));
    peer.frames.length = 0;
    await together(peer, filler, first.subarray(0, 13));
    await peer.send(first.subarray(13), filler, ...others);
    const answers = () =>
      peer.frames
        .filter(({ type, flags }) => type === Type.PING && flags === ACK)
        .map(({ payload }) => String(payload));
    await until("all are answered", () => answers().length === 1 + texts.length || undefined);
    expect(answers().slice(1)).toEqual(texts.map(String));
  });

  test("settings count, and so does the room that is given", async () => {
    await using server = await serve({ findWorkloadsByLabels: () => ({ targetIds: ["x".repeat(100)] }) });
    using peer = await Peer.to(server, [[INITIAL_WINDOW, 0]]);
    await peer.settle();
    await peer.send(head(1, "FindWorkloadsByLabels"), last(1));
    await together(peer, filler, settings([[INITIAL_WINDOW, 10]]), filler);
    await peer.until("ten bytes have come", () => peer.bytes(1) === 10);
    await together(peer, filler, room(1, 1000), filler);
    await peer.answer(1);
    expect(peer.bytes(1)).toBe(107);
  });
});
