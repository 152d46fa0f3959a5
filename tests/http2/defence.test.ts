import { describe, expect, spyOn, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { Chunks } from "../../src/chunks.ts";
import { ExecRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { ErrorCode } from "../../src/http2/frame.ts";
import { type HttpHandler, Listener } from "../../src/listener.ts";
import { createLog } from "../../src/log.ts";
import {
  callHead,
  END_HEADERS,
  END_STREAM,
  envelope,
  frame,
  headerBlock,
  INITIAL_WINDOW,
  integer,
  Type,
} from "../abuse/wire.ts";
import { readAll, SERVICE, startTestServer, stdin, tcp } from "../server/harness.ts";
import { until } from "../support/wait.ts";
import {
  call,
  DEFAULT_WINDOW,
  data,
  head,
  heads,
  last,
  MAX_FRAME,
  MAX_WINDOW,
  Peer,
  post,
  room,
  STREAM_WINDOW,
  serve,
} from "./client.ts";

/* What clients do that is slow, odd or hostile, and must harm neither the server nor each other. */

const SOON = 40;
/** Longer than any test may take: who waits that long does not wait for this. */
const FOREVER_MS = 3_600_000;
const OK = { "grpc-status": "0" };

/** A client with as much room for answers as there can be. */
async function roomy(server: { port: number }): Promise<Peer> {
  const peer = await Peer.to(server, [[INITIAL_WINDOW, MAX_WINDOW]]);
  await peer.send(room(0, MAX_WINDOW - DEFAULT_WINDOW));
  await peer.settle();
  return peer;
}

/** Text for the stdin of an Exec. */
const said = (stream: number, text: string) =>
  frame(Type.DATA, 0, stream, envelope(toBinary(ExecRequestSchema, create(ExecRequestSchema, stdin(text)))));

/** That an Exec of the test server echoes what it is told. */
async function expectEcho(peer: Peer, stream: number, text: string): Promise<void> {
  await peer.send(said(stream, text));
  await peer.until(`"${text}" is echoed`, () => peer.content(stream).includes(text));
}

/** A frame that ends its connection. */
const mistake = frame(Type.PING, 0, 1, Buffer.alloc(8));
const ping = frame(Type.PING, 0, 0, Buffer.alloc(8));
/** The beginning of a message that is announced as larger than any may be. */
const tooLarge = (stream: number) => data(stream, envelope(Buffer.alloc(0), { length: 2 ** 30 }));

describe("a client that reads late", () => {
  test("has the whole of a large answer from a server that closes", async () => {
    const text = "x".repeat(3 * 1024 * 1024);
    const found = Promise.withResolvers<void>();
    await using server = await serve({
      findWorkloadsByLabels() {
        found.resolve();
        return { targetIds: [text] };
      },
      async *exec(requests) {
        for await (const _ of requests) yield {};
      },
    });
    using slow = await roomy(server);
    using other = await Peer.to(server);
    slow.socket.pause();
    await slow.send(call(1, "FindWorkloadsByLabels"));
    await found.promise;
    await other.send(head(1, "Exec"));
    await other.settle();
    const closed = server.server.close(FOREVER_MS);
    // Who is sent away has little time to read that: when it is over for one that is sent away now, it were for all before.
    other.socket.pause();
    await other.send(mistake);
    await until("the other is dropped", () => server.usage.current().connections < 2 || undefined);
    await slow.send(room(0, 1)); // as clients do that read: nobody may find that it comes too late
    slow.socket.resume();
    expect(await slow.answer(1)).toMatchObject(OK);
    expect(slow.content(1).includes(text)).toBe(true);
    expect(slow.goaway).toEqual({ lastStream: 1, code: ErrorCode.NO_ERROR });
    await Promise.all([closed, slow.closed]);
  });

  test("of long and short answers is not ended for them, though it asks on", async () => {
    const asked = Promise.withResolvers<void>();
    await using server = await serve({
      findWorkloadsByLabels: () => ({ targetIds: ["x".repeat(8 * 1024 * 1024)] }),
      ready() {
        asked.resolve();
        return { status: "ok" };
      },
    });
    using peer = await roomy(server);
    peer.socket.pause();
    await peer.send(call(1, "FindWorkloadsByLabels"));
    await peer.send(...Array<Buffer>(100).fill(ping), call(3, "Ready"));
    await asked.promise;
    await peer.send(...Array<Buffer>(100).fill(ping));
    peer.socket.resume();
    expect(await peer.answer(1)).toMatchObject(OK);
    expect(await peer.answer(3)).toMatchObject(OK);
    expect(peer.bytes(1)).toBeGreaterThan(8 * 1024 * 1024);
    expect([peer.goaway, server.usage.refused().frames]).toEqual([undefined, 0]);
  });

  test("of very many short answers is not ended for them", async () => {
    let asked = 0;
    await using server = await serve({
      findWorkloadsByLabels: () => ({ targetIds: ["x".repeat(200 * 1024)] }),
      ready() {
        asked += 1;
        return { status: "x".repeat(1_900) };
      },
    });
    using peer = await roomy(server);
    peer.socket.pause();
    const long = Array.from({ length: 40 }, (_, index) => 2 * index + 1); // more than systems keep for who does not read
    const short = Array.from({ length: 1_500 }, (_, index) => 2 * (long.length + index) + 1);
    await peer.send(...long.map((stream) => call(stream, "FindWorkloadsByLabels")));
    await peer.send(...short.map((stream) => call(stream, "Ready")), ping);
    await until("all have been asked for", () => asked === short.length || peer.goaway !== undefined || undefined);
    await peer.send(ping);
    peer.socket.resume();
    await peer.settle();
    for (const stream of [...long, ...short]) expect(await peer.answer(stream)).toMatchObject(OK);
    expect([peer.goaway, server.usage.refused().frames]).toEqual([undefined, 0]);
  });
});

test("a client that asks for the round trip time with each of very many answers is not ended for it", async () => {
  await using server = await startTestServer();
  using peer = await Peer.to(server);
  const now = performance.now();
  const clock = spyOn(performance, "now").mockImplementation(() => now); // as if all came at once
  try {
    for (let stream = 1; stream < 5_000; stream += 2) {
      await peer.send(call(stream, "Ready"));
      expect(await peer.answer(stream)).toMatchObject(OK);
      await peer.send(ping);
    }
    await peer.settle();
  } finally {
    clock.mockRestore();
  }
  expect([peer.goaway, server.usage.refused().frames]).toEqual([undefined, 0]);
});

describe("a client that does not read", () => {
  /** More than its system and that of the server keep for it. */
  const unread = Array.from({ length: 100 }, (_, index) => call(2 * index + 1, "FindWorkloadsByLabels"));

  async function deaf(server: Awaited<ReturnType<typeof startTestServer>>): Promise<Peer> {
    const peer = await roomy(server);
    peer.socket.pause();
    await peer.send(...unread);
    await until("all is asked for", () => server.calls.length === unread.length || undefined);
    return peer;
  }

  test.each([
    ["with answers to come", unread],
    ["with an answer that is on its way", unread.slice(0, 1)],
  ])("does not hold up a server that has to end now: one %s", async (_name, calls) => {
    await using server = await startTestServer();
    using peer = await roomy(server);
    peer.socket.pause();
    await peer.send(...calls);
    await until("all is asked for", () => server.calls.length === calls.length || undefined);
    const closed = server.server.close(FOREVER_MS);
    await server.server.close(0);
    await closed;
    expect(server.usage.current()).toMatchObject({ connections: 0, streams: 0 });
  });

  test("is dropped soon when it is sent away", async () => {
    await using server = await startTestServer();
    using peer = await deaf(server);
    await peer.send(mistake);
    await until("it is dropped", () => server.usage.current().connections === 0 || undefined);
    expect(server.usage.current().streams).toBe(0);
  });

  test("is ended when it makes the server answer its frames without end", async () => {
    await using server = await startTestServer({ limits: { streamsPerConnection: unread.length } });
    using peer = await deaf(server);
    const { usage } = server;
    // Each is told in 13 bytes that it is refused. Not faster than calls may come at all.
    for (let opened = unread.length; usage.refused().frames === 0; opened += 1_000) {
      const more = Array.from({ length: 1_000 }, (_, index) => head(2 * (opened + index) + 1, "Exec"));
      await peer.send(...more);
      const most = opened + more.length - 2 * unread.length; // some of the answers may have left
      await until("they are refused", () => {
        const { frames, streamsPerConnection } = usage.refused();
        return frames > 0 || streamsPerConnection >= most || undefined;
      });
      expect(opened).toBeLessThan(40_000);
    }
    expect(server.log.some((line) => JSON.parse(line).frames === "unread")).toBe(true);
    expect(usage.refused().streamsPerConnection * 13).toBeGreaterThan(255 * 1024);
    await until("it is dropped", () => usage.current().connections === 0 || undefined);
  });
});

test("calls that are answered and whose requests never end are given up, and they alone", async () => {
  await using server = await startTestServer({ limits: { requestMs: SOON, responseMs: SOON } });
  using peer = await Peer.to(server);
  await peer.send(head(1, "Exec"));
  await expectEcho(peer, 1, "first");
  const [late, large, web] = [[3, 5, 7], [9, 11], [13]];
  await peer.send(...late.map((stream) => head(stream, "Ready")));
  await peer.send(...large.flatMap((stream) => [head(stream, "Exec"), tooLarge(stream)]));
  await peer.send(...web.map((stream) => post(stream, "Ready", "application/proto")));
  for (const stream of late) expect(await peer.answer(stream)).toMatchObject({ "grpc-status": "4" });
  for (const stream of large) expect(await peer.answer(stream)).toMatchObject({ "grpc-status": "8" });
  for (const stream of web) expect(await peer.answer(stream)).toMatchObject({ ":status": "504" });
  const all = [...late, ...large, ...web];
  await peer.until("all are given up", () => peer.resets.length === all.length);
  expect(peer.resets.sort(([a], [b]) => a - b)).toEqual(all.map((stream) => [stream, ErrorCode.NO_ERROR]));
  expect(server.usage.refused()).toMatchObject({ responseMs: all.length, requestMs: late.length + web.length });
  expect(server.usage.current().streams).toBe(1);
  await expectEcho(peer, 1, "second");
});

test("a small block that stands for a large one is refused, and it alone; what it keeps in the table is known", async () => {
  const seen: (number | string | undefined)[] = [];
  await using server = await serve({
    ready(_, { requestHeader }) {
      seen.push(requestHeader.get("x-much")?.length, requestHeader.get("x-more") ?? undefined);
      return { status: "ok" };
    },
    async *exec(requests) {
      for await (const _ of requests) yield {};
    },
  });
  using peer = await Peer.to(server);
  const text = (value: string) => Buffer.concat([integer(value.length, 7, 0), Buffer.from(value)]);
  const kept = (name: string, value: string) => Buffer.concat([Buffer.of(0x40), text(name), text(value)]);
  const indexed = (index: number) => Buffer.of(0x80 | index);
  const ready = callHead(`/${SERVICE}/Ready`);
  const open = (stream: number, ...parts: Uint8Array[]) =>
    frame(Type.HEADERS, END_HEADERS, stream, Buffer.concat([ready, ...parts]));
  const [newest, older] = [indexed(62), indexed(63)];
  await peer.send(head(1, "Exec"), open(3, kept("x-much", "v".repeat(4_000))), last(3));
  expect(await peer.answer(3)).toMatchObject(OK);
  // Some 400 KB of fields, and fewer of them than a request may have.
  await peer.send(open(5, ...Array<Buffer>(100).fill(newest), kept("x-more", "1")), last(5));
  await peer.send(open(7, older, newest), last(7));
  expect(await peer.answer(7)).toMatchObject(OK);
  expect(seen).toEqual([4_000, undefined, 4_000, "1"]);
  expect(peer.resets).toEqual([[5, ErrorCode.ENHANCE_YOUR_CALM]]);
  await peer.send(last(1));
  expect(await peer.answer(1)).toMatchObject(OK);
  expect(peer.goaway).toBeUndefined();
});

describe("DATA that comes too late to be of use costs its client nothing:", () => {
  test.each(["streams", "streamsPerConnection"] as const)("of calls that are refused (%s)", async (limit) => {
    await using server = await startTestServer({ limits: { [limit]: 1 } });
    using peer = await Peer.to(server);
    await peer.send(head(1, "Exec"));
    await expectEcho(peer, 1, "first");
    const count = 4_000;
    expect(await peer.flood(count, (index) => call(2 * index + 3, "Ready"))).toBe(count);
    await expectEcho(peer, 1, "last");
    const refused = Array.from({ length: count }, (_, index) => [2 * index + 3, ErrorCode.REFUSED_STREAM]);
    expect<unknown>(peer.resets).toEqual(refused);
    expect(server.usage.refused()).toMatchObject({ [limit]: count, frames: 0 });
    expect(peer.goaway).toBeUndefined();
  });

  test.each([
    ["for its client's fault", async (peer: Peer) => peer.send(head(3, "Exec"), room(3, 0)), ErrorCode.PROTOCOL_ERROR],
    [
      "as its answer is there and its request does not end",
      async (peer: Peer) => {
        await peer.send(head(3, "Exec"), tooLarge(3));
        while (peer.resets.length === 0) {
          await peer.send(data(3, Buffer.alloc(4 * MAX_FRAME)));
          await peer.settle();
        }
      },
      ErrorCode.NO_ERROR,
    ],
  ])("of a stream that was reset %s", async (_name, provoke, code) => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(head(1, "Exec"));
    await provoke(peer);
    const before = peer.room(0);
    const part = frame(Type.DATA, 0, 3, Buffer.alloc(200));
    const end = frame(Type.DATA, END_STREAM, 3);
    await peer.flood(4_000, () => part);
    await peer.flood(4_000, () => end);
    await expectEcho(peer, 1, "last");
    expect(peer.resets).toEqual([[3, code]]);
    expect(peer.room(0)).toBeGreaterThan(before); // it counts for the connection, which gets its room again
    expect([peer.goaway, server.usage.refused().frames]).toEqual([undefined, 0]);
  });

  test("of calls that come after GOAWAY", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(head(1, "Exec"));
    await expectEcho(peer, 1, "first");
    const closed = server.server.close(FOREVER_MS);
    const count = 4_000;
    expect(await peer.flood(count, (index) => call(2 * index + 3, "Ready"))).toBe(count);
    const stream = 2 * count + 3;
    const trailers = frame(Type.HEADERS, END_HEADERS | END_STREAM, stream, headerBlock([["x", "y"]]));
    await peer.send(head(stream, "Ready"), data(stream, envelope(Buffer.alloc(0))), trailers, room(stream, 1));
    await expectEcho(peer, 1, "last");
    expect([peer.resets, server.calls, server.usage.refused().frames]).toEqual([[], ["Exec"], 0]);
    await peer.send(frame(Type.DATA, END_STREAM, 1));
    expect(await peer.answer(1)).toMatchObject(OK);
    await Promise.all([closed, peer.closed]);
    expect(peer.goaway).toEqual({ lastStream: 1, code: ErrorCode.NO_ERROR });
  });
});

test("a server that closes does not say later that it has served more than it said first", async () => {
  await using server = await startTestServer();
  using peer = await Peer.to(server);
  await peer.send(head(5, "Exec"));
  await peer.settle();
  const closed = server.server.close(FOREVER_MS);
  await peer.send(call(9, "Ready"), mistake);
  await Promise.all([closed, peer.closed]);
  const goaways = peer.frames.filter(({ type }) => type === Type.GOAWAY).map(({ payload }) => payload);
  expect(goaways.map((payload) => [payload.readUInt32BE(), payload.readUInt32BE(4)])).toEqual([
    [5, ErrorCode.NO_ERROR],
    [5, ErrorCode.PROTOCOL_ERROR],
  ]);
  expect(server.calls).toEqual(["Exec"]);
});

describe("messages of nothing", () => {
  const BYTES = 5;
  const nothing = Buffer.alloc(STREAM_WINDOW);

  test.each(heads)(
    "that a handler of %s does not take get the window of their stream and no more",
    async (_n, open) => {
      const listen = Promise.withResolvers<void>();
      const taken = Promise.withResolvers<number>();
      await using server = await serve({
        async *exec(requests) {
          await listen.promise;
          let count = 0;
          for await (const _ of requests) count += 1;
          taken.resolve(count);
          yield {};
        },
      });
      using peer = await Peer.to(server);
      await peer.send(open(1, "Exec"), data(1, nothing));
      await peer.settle();
      expect([peer.room(1), peer.resets]).toEqual([0, []]);
      listen.resolve();
      await peer.until("there is room again", () => peer.room(1) > 0);
      const rest = Buffer.alloc(BYTES - (nothing.length % BYTES));
      await peer.send(frame(Type.DATA, END_STREAM, 1, rest));
      expect(await taken.promise).toBe((nothing.length + rest.length) / BYTES);
      expect((await peer.answer(1))[":status"]).toBe("200");
    },
  );

  test.each(heads)("get no more either while a handler of %s waits for its answer to be read", async (_n, open) => {
    await using server = await startTestServer();
    using peer = await Peer.to(server, [[INITIAL_WINDOW, 0]]);
    const first = said(1, "first");
    await peer.send(open(1, "Exec"), first);
    await peer.settle();
    const sent = first.length - 9;
    await peer.send(data(1, nothing.subarray(sent)));
    await peer.settle();
    expect([peer.room(1), peer.resets]).toEqual([0, []]);
    await peer.send(room(1, DEFAULT_WINDOW));
    await peer.until("there is room again", () => peer.room(1) > 0);
    await peer.send(data(1, Buffer.alloc(BYTES - ((nothing.length - sent) % BYTES))));
    await expectEcho(peer, 1, "second");
  });
});

test.each([
  ["gRPC", "application/grpc"],
  ["gRPC-Web", "application/grpc-web+proto"],
  ["Connect", "application/proto"],
])("a call of %s that names its host by a field is served", async (_name, type) => {
  const urls: string[] = [];
  await using server = await serve({
    ready(_, { url }) {
      urls.push(url);
      return { status: "ok" };
    },
  });
  using peer = await Peer.to(server);
  const fields = [
    [":method", "POST"],
    [":scheme", "http"],
    [":path", `/${SERVICE}/Ready`],
    ["host", "here:8080"],
    ["content-type", type],
  ] as const;
  await peer.send(frame(Type.HEADERS, END_HEADERS, 1, headerBlock(fields)));
  await peer.send(type === "application/proto" ? frame(Type.DATA, END_STREAM, 1) : last(1));
  expect((await peer.answer(1))[":status"]).toBe("200");
  expect(peer.content(1).includes("ok")).toBe(true);
  expect(urls).toEqual([`http://here:8080/${SERVICE}/Ready`]);
});

describe("an answer that has begun when another is given is cut", () => {
  /** A server that begins an answer, gives another, and goes on with the first. */
  async function listen() {
    const ended = Promise.withResolvers<unknown>();
    const handle: HttpHandler = (exchange) => {
      async function* body() {
        yield Buffer.from("begun");
        exchange.answer({ status: 500, headers: { "content-type": "text/plain" }, body: "the other" });
        yield Buffer.from("more");
      }
      exchange.respond({ status: 200, body: body() }).then(ended.resolve, ended.reject);
    };
    const listener = new Listener({ handle, log: createLog({ level: "silent" }) });
    const { port } = await listener.listen("127.0.0.1:0");
    const close = async () => {
      listener.destroy();
      await listener.closed;
    };
    return { port, ended: ended.promise, [Symbol.asyncDispose]: close };
  }

  test("over HTTP/2", async () => {
    await using server = await listen();
    using peer = await Peer.to(server);
    const fields = [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":authority", "here"],
    ] as const;
    await peer.send(frame(Type.HEADERS, END_HEADERS | END_STREAM, 1, headerBlock(fields)));
    await expect(server.ended).rejects.toThrow("the caller has gone");
    expect(await peer.answer(1)).toMatchObject({ ":status": "200" });
    expect(peer.on(1).map(({ type }) => type)).toEqual([Type.HEADERS, Type.DATA, Type.RST_STREAM]);
    expect(peer.content(1).toString()).toBe("begun");
    expect(peer.resets).toEqual([[1, ErrorCode.INTERNAL_ERROR]]);
  });

  test("over HTTP/1.1", async () => {
    await using server = await listen();
    using socket = await tcp(server.port);
    socket.write("GET / HTTP/1.1\r\nhost: here\r\n\r\n");
    const [text] = await Promise.all([readAll(socket), expect(server.ended).rejects.toThrow()]);
    expect(text).not.toContain("0\r\n\r\n"); // what ends it
    expect(text).not.toContain("other");
    expect(text).not.toContain("more");
  });
});

describe("chunks that wait to be taken", () => {
  /** A view of a large chunk, as a frame is one of what a socket has read. */
  const viewOf = (bytes: Uint8Array, size = 64 * 1024) => {
    const chunk = Buffer.from(new ArrayBuffer(size));
    chunk.set(bytes, 100);
    return chunk.subarray(100, 100 + bytes.length);
  };
  /** Of how many pieces they are, and all the memory that those stand in. */
  const costOf = (chunks: Chunks) => {
    const memory = new Set<ArrayBufferLike>();
    let pieces = 0;
    for (; chunks.bytes > 0; pieces++) memory.add(chunks.take(chunks.first(1).length).buffer);
    return { pieces, bytes: [...memory].reduce((sum, { byteLength }) => sum + byteLength, 0) };
  };
  const filled = (parts: Iterable<Uint8Array>) => {
    const chunks = new Chunks();
    for (const part of parts) chunks.add(Buffer.from(part));
    return chunks;
  };

  test("keep little memory when each is a byte of a large one", () => {
    const chunks = new Chunks();
    for (let count = 0; count < 5_000; count++) chunks.add(viewOf(Buffer.of(count)));
    expect(chunks.bytes).toBe(5_000);
    const { pieces, bytes } = costOf(chunks);
    expect(pieces).toBeLessThanOrEqual(2);
    expect(bytes).toBeLessThan(64 * 1024);
  });

  test("are copied where they are a small part of their memory, and not where they are most of it", () => {
    for (const [bytes, size, isCopied] of [
      [1, 64 * 1024, true],
      [1_000, 64 * 1024, true],
      [1_000, 8 * 1024, false],
      [1_000, 8 * 1024 + 1, true],
      [5_000, 128 * 1024, true],
      [16 * 1024, 17 * 1024, false],
      [64 * 1024 - 100, 64 * 1024, false],
    ] as const) {
      const view = viewOf(Buffer.alloc(bytes, 7), size);
      const chunks = new Chunks();
      chunks.add(view);
      expect([bytes, chunks.first(bytes).buffer !== view.buffer]).toEqual([bytes, isCopied]);
      expect(chunks.take(bytes).equals(Buffer.alloc(bytes, 7))).toBe(true);
    }
  });

  test("are joined while they are small", () => {
    const chunks = filled([Buffer.from("a"), Buffer.from("b"), Buffer.alloc(4 * 1024, "c"), Buffer.from("d")]);
    expect(chunks.first(1).toString()).toBe("ab");
    expect(chunks.first(3).subarray(0, 4).toString()).toBe("abcc");
    expect(chunks.bytes).toBe(4 * 1024 + 3);
    expect(chunks.take(4 * 1024 + 2).toString()).toBe(`ab${"c".repeat(4 * 1024)}`);
    expect(chunks.take(1).toString()).toBe("d");
  });

  test("are nothing once they are cleared, and can begin again", () => {
    const chunks = filled([Buffer.from("abc"), Buffer.alloc(10_000)]);
    chunks.clear();
    expect([chunks.bytes, chunks.take(0).length]).toEqual([0, 0]);
    chunks.add(Buffer.from("de"));
    expect([chunks.bytes, chunks.take(2).toString(), chunks.bytes]).toEqual([2, "de", 0]);
  });

  test("are the same bytes in the same order, however they come and are taken", () => {
    const lengths = fc.oneof(fc.nat(3), fc.nat(300), fc.nat(9_000));
    const step = fc.oneof(
      fc.record({ does: fc.constant("add" as const), length: lengths, isView: fc.boolean() }),
      fc.record({ does: fc.constantFrom("take" as const, "first" as const), length: lengths }),
      fc.record({ does: fc.constant("clear" as const), length: fc.constant(0) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const chunks = new Chunks();
        let expected = Buffer.alloc(0);
        let next = 0;
        for (const { does, length, ...how } of steps) {
          const count = Math.min(length, expected.length);
          if (does === "add") {
            const bytes = Buffer.from(Array.from({ length }, () => next++));
            chunks.add("isView" in how && how.isView ? viewOf(bytes) : bytes);
            expected = Buffer.concat([expected, bytes]);
          } else if (does === "take") {
            expect(chunks.take(count).equals(expected.subarray(0, count))).toBe(true);
            expected = expected.subarray(count);
          } else if (does === "clear") {
            chunks.clear();
            expected = Buffer.alloc(0);
          } else if (count > 0) {
            const first = chunks.first(count);
            expect(first.length).toBeGreaterThanOrEqual(count);
            expect(first.equals(expected.subarray(0, first.length))).toBe(true);
          }
          expect(chunks.bytes).toBe(expected.length);
        }
        expect(chunks.take(expected.length).equals(expected)).toBe(true);
      }),
    );
  });
});
