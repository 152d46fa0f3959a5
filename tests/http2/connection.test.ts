import { describe, expect, spyOn, test } from "bun:test";
import { once } from "node:events";
import { Http2Connection } from "../../src/http2/connection.ts";
import { ErrorCode } from "../../src/http2/frame.ts";
import { encodeHeaders } from "../../src/http2/hpack.ts";
import { DEFAULT_LIMITS, Usage } from "../../src/limits.ts";
import { createLog } from "../../src/log.ts";
import {
  ACK,
  callHead,
  END_HEADERS,
  END_STREAM,
  envelope,
  frame,
  headerBlock,
  INITIAL_WINDOW,
  integer,
  PREFACE,
  settings,
  Type,
} from "../abuse/wire.ts";
import { http2Session, rawHttp2, SERVICE, startTestServer, statusOf } from "../server/harness.ts";
import { until } from "../support/wait.ts";
import {
  call,
  DEFAULT_WINDOW,
  data,
  head,
  last,
  MAX_FRAME,
  MAX_WINDOW,
  PADDED,
  Peer,
  reset,
  room,
  serve,
  tcpPair,
  uint32,
} from "./client.ts";

const SOON = 40;
/** Time for an honest client to connect, on any machine. */
const CONNECTED = 1_500;
/** Longer than any test may take: who waits that long does not wait for this. */
const FOREVER_MS = 3_600_000;
const request = { "content-type": "application/grpc", te: "trailers" };
const empty = envelope(new Uint8Array());

type Fields = readonly (readonly [name: string, value: string])[];
const fields: Fields = [
  [":method", "POST"],
  [":scheme", "http"],
  [":path", `/${SERVICE}/GetWorkloadLabels`],
  [":authority", "test"],
  ["content-type", "application/grpc"],
];
const headers = (stream: number, list: Fields, flags = 0) =>
  frame(Type.HEADERS, END_HEADERS | flags, stream, headerBlock(list));

describe("a client that breaks the protocol", () => {
  const uncompressible = Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
  const numbers = (...values: number[]) => Buffer.concat(values.map(uint32));
  const ready = callHead(`/${SERVICE}/Ready`);
  const window = (value: number) => settings([[INITIAL_WINDOW, value]]);

  const mistakes: readonly (readonly [name: string, code: keyof typeof ErrorCode, ...sent: Uint8Array[]])[] = [
    ["a frame that is too large", "FRAME_SIZE_ERROR", frame(Type.DATA, 0, 1, Buffer.alloc(MAX_FRAME + 1))],
    ["DATA of no stream", "PROTOCOL_ERROR", frame(Type.DATA, 0, 0, Buffer.alloc(1))],
    ["DATA of a stream that is not open", "PROTOCOL_ERROR", frame(Type.DATA, 0, 1, Buffer.alloc(1))],
    ["DATA of a stream of the server's", "PROTOCOL_ERROR", call(3, "Ready"), frame(Type.DATA, 0, 2, Buffer.alloc(1))],
    ["padding that is all of a frame", "PROTOCOL_ERROR", head(1, "Exec"), frame(Type.DATA, PADDED, 1, Buffer.of(1))],
    ["a padded frame that is empty", "FRAME_SIZE_ERROR", head(1, "Exec"), frame(Type.DATA, PADDED, 1)],
    ["HEADERS of no stream", "PROTOCOL_ERROR", frame(Type.HEADERS, END_HEADERS, 0, ready)],
    ["HEADERS of a stream of the server's", "PROTOCOL_ERROR", frame(Type.HEADERS, END_HEADERS, 2, ready)],
    ["HEADERS of a stream that was passed over", "PROTOCOL_ERROR", call(3, "Ready"), head(1, "Ready")],
    ["HEADERS without their priority", "FRAME_SIZE_ERROR", frame(Type.HEADERS, END_HEADERS | 0x20, 1, Buffer.alloc(4))],
    ["a header block of no code", "COMPRESSION_ERROR", frame(Type.HEADERS, END_HEADERS, 1, uncompressible)],
    ["a header block that is never complete", "PROTOCOL_ERROR", frame(Type.HEADERS, 0, 1, ready), call(3, "Ready")],
    [
      "CONTINUATION of another stream",
      "PROTOCOL_ERROR",
      frame(Type.HEADERS, 0, 1, ready),
      frame(Type.CONTINUATION, END_HEADERS, 3, ready),
    ],
    ["CONTINUATION of nothing", "PROTOCOL_ERROR", frame(Type.CONTINUATION, END_HEADERS, 1, ready)],
    [
      "PRIORITY that is cut, of a stream that is not open",
      "FRAME_SIZE_ERROR",
      frame(Type.PRIORITY, 0, 1, Buffer.alloc(4)),
    ],
    ["PRIORITY of no stream", "PROTOCOL_ERROR", frame(Type.PRIORITY, 0, 0, Buffer.alloc(5))],
    ["RST_STREAM of no stream", "PROTOCOL_ERROR", reset(0)],
    ["RST_STREAM of a stream that is not open", "PROTOCOL_ERROR", reset(1)],
    ["RST_STREAM without its code", "FRAME_SIZE_ERROR", head(1, "Exec"), frame(Type.RST_STREAM, 0, 1)],
    ["SETTINGS of a stream", "PROTOCOL_ERROR", frame(Type.SETTINGS, 0, 1)],
    ["SETTINGS that are cut", "FRAME_SIZE_ERROR", frame(Type.SETTINGS, 0, 0, Buffer.alloc(5))],
    ["an acknowledgement that says something", "FRAME_SIZE_ERROR", frame(Type.SETTINGS, ACK, 0, Buffer.alloc(6))],
    ["a push that is neither on nor off", "PROTOCOL_ERROR", settings([[2, 2]])],
    ["frames of less than what all take", "PROTOCOL_ERROR", settings([[5, MAX_FRAME - 1]])],
    ["an initial window that is too large", "FLOW_CONTROL_ERROR", window(MAX_WINDOW + 1)],
    [
      "an initial window that is too large for an open stream",
      "FLOW_CONTROL_ERROR",
      head(1, "Exec"),
      room(1, 1),
      window(MAX_WINDOW),
    ],
    ["a promise", "PROTOCOL_ERROR", frame(5, END_HEADERS, 1, numbers(2))],
    ["PING of a stream", "PROTOCOL_ERROR", frame(Type.PING, 0, 1, Buffer.alloc(8))],
    ["PING that is cut", "FRAME_SIZE_ERROR", frame(Type.PING, 0, 0, Buffer.alloc(7))],
    ["GOAWAY of a stream", "PROTOCOL_ERROR", frame(Type.GOAWAY, 0, 1, numbers(0, 0))],
    ["GOAWAY that is cut", "FRAME_SIZE_ERROR", frame(Type.GOAWAY, 0, 0, numbers(0))],
    ["no room for the connection", "PROTOCOL_ERROR", room(0, 0)],
    ["room for a stream that is not open", "PROTOCOL_ERROR", room(1, 1)],
    ["WINDOW_UPDATE that is cut", "FRAME_SIZE_ERROR", frame(Type.WINDOW_UPDATE, 0, 0, Buffer.alloc(3))],
    ["more room for the connection than there can be", "FLOW_CONTROL_ERROR", room(0, MAX_WINDOW)],
  ];

  test.each(mistakes)("loses its connection, and nobody else's: %s", async (_name, code, ...sent) => {
    await using server = await startTestServer();
    using other = await http2Session(server.baseUrl);
    const path = `/${SERVICE}/GetWorkloadLabels`;
    const held = server.held();
    const running = rawHttp2(other, { ...request, ":path": path }, empty);
    const { release } = await held;
    using peer = await Peer.to(server);
    await peer.send(...sent, frame(Type.PING, 0, 0, Buffer.alloc(8)));
    await peer.closed;
    expect(peer.goaway?.code).toBe(ErrorCode[code]);
    expect(peer.frames.filter(({ type, flags }) => type === Type.PING && flags === ACK)).toEqual([]);
    release();
    expect(statusOf(await running)).toMatchObject({ "grpc-status": "0" });
    await until("its place is given back", () => server.usage.current().connections === 1 || undefined);
    expect(server.usage.current().streams).toBe(0);
  });

  test.each([
    ["something else than the preface", [Buffer.from("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")]],
    ["no SETTINGS", [PREFACE, frame(Type.PING, 0, 0, Buffer.alloc(8))]],
    ["an acknowledgement in place of SETTINGS", [PREFACE, frame(Type.SETTINGS, ACK, 0)]],
  ])("loses its connection when it begins with %s", async (_name, sent) => {
    await using server = await startTestServer();
    using peer = await Peer.mute(server);
    await peer.send(...sent);
    await peer.closed;
    expect(peer.goaway?.code).toBe(ErrorCode.PROTOCOL_ERROR);
  });

  test("is told which call was the last, and its handlers that it has gone", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    const held = server.held();
    await peer.send(call(7, "GetWorkloadLabels"));
    const aborted = once((await held).signal, "abort");
    await peer.send(frame(Type.PING, 0, 7, Buffer.alloc(8)));
    await peer.closed;
    await aborted;
    expect(peer.goaway).toEqual({ lastStream: 7, code: ErrorCode.PROTOCOL_ERROR });
    expect(peer.fields(7)).toEqual({});
  });

  test.each([
    ["after a stream has ended", call(1, "Ready")],
    ["after it has reset a stream", Buffer.concat([head(1, "Exec"), reset(1)])],
  ])("loses its connection for HEADERS %s", async (_name, sent) => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(sent);
    await peer.settle();
    await peer.send(head(1, "Ready"));
    await peer.closed;
    expect(peer.goaway?.code).toBe(ErrorCode.STREAM_CLOSED);
  });

  test("is not who sends what has to be ignored", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(call(1, "Ready"), head(3, "Exec"), reset(3));
    await peer.answer(1);
    const priority = frame(Type.PRIORITY, 0, 9, Buffer.alloc(5));
    const goaway = frame(Type.GOAWAY, 0, 0, numbers(0, 0));
    const late = [room(1, 1), reset(1), room(3, 1), reset(3)];
    const unknown = [frame(0x77, 0xff, 1, Buffer.alloc(3)), settings([[0x77, 1]])];
    await peer.send(...late, ...unknown, priority, goaway, call(5, "Ready"));
    expect(await peer.answer(5)).toMatchObject({ "grpc-status": "0" });
    expect([peer.goaway, peer.resets]).toEqual([undefined, []]);
  });
});

describe("a stream that breaks the protocol is reset, and it alone", () => {
  const withLength = (bytes: number, flags = 0) => headers(1, [...fields, ["content-length", String(bytes)]], flags);
  const open = headers(1, fields);
  const done = Buffer.concat([open, last(1)]);
  const trailers = headers(1, [["x", "y"]], END_STREAM);

  const mistakes: readonly (readonly [name: string, code: keyof typeof ErrorCode, ...sent: Uint8Array[]])[] = [
    ["a name in upper case", "PROTOCOL_ERROR", headers(1, [...fields, ["X", "y"]])],
    [
      "no path",
      "PROTOCOL_ERROR",
      headers(
        1,
        fields.filter(([name]) => name !== ":path"),
      ),
    ],
    ["a field of connections", "PROTOCOL_ERROR", headers(1, [...fields, ["connection", "close"]])],
    ["a pseudo-field behind others", "PROTOCOL_ERROR", headers(1, [...fields, [":path", "/"]])],
    ["more fields than are taken", "ENHANCE_YOUR_CALM", headers(1, [...fields, ...Array(130).fill(["x", "y"])])],
    ["a length that is none", "PROTOCOL_ERROR", headers(1, [...fields, ["content-length", "-1"]])],
    ["more content than its length", "PROTOCOL_ERROR", withLength(4), data(1, empty)],
    ["less content than its length", "PROTOCOL_ERROR", withLength(6), last(1)],
    ["no content, and a length", "PROTOCOL_ERROR", withLength(1, END_STREAM)],
    ["less content than its length, before trailers", "PROTOCOL_ERROR", withLength(6), data(1, empty), trailers],
    ["room of nothing", "PROTOCOL_ERROR", open, room(1, 0)],
    ["more room than there can be", "FLOW_CONTROL_ERROR", open, room(1, MAX_WINDOW)],
    ["trailers that do not end it", "PROTOCOL_ERROR", open, data(1, empty), headers(1, [["x", "y"]])],
    ["trailers with a pseudo-field", "PROTOCOL_ERROR", open, headers(1, [[":path", "/"]], END_STREAM)],
    ["PRIORITY that is cut", "FRAME_SIZE_ERROR", open, frame(Type.PRIORITY, 0, 1, Buffer.alloc(4))],
    ["DATA after its end", "STREAM_CLOSED", done, data(1, empty)],
    ["HEADERS after its end", "STREAM_CLOSED", done, trailers],
  ];

  test.each(mistakes)("%s", async (_name, code, ...sent) => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(...sent);
    await peer.until("it is reset", () => peer.resets.length > 0);
    await peer.send(call(3, "Ready"));
    expect(await peer.answer(3)).toMatchObject({ "grpc-status": "0" });
    expect(peer.resets).toEqual([[1, ErrorCode[code]]]);
    expect(peer.fields(1)).toEqual({});
    expect(server.usage.current()).toMatchObject({ connections: 1, streams: 0 });
  });

  test("its handler is told", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(call(1, "GetWorkloadLabels"));
    const aborted = once((await server.held()).signal, "abort");
    await peer.send(room(1, 0));
    await aborted;
  });

  test("and what comes of it late is ignored, but for what its header fields tell of those to come", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    const path = Buffer.from(`/${SERVICE}/Ready`);
    const kept = Buffer.concat([Buffer.of(0x44), integer(path.length, 7, 0), path]); // `:path`, which is in the table then
    const [method, scheme, known] = [0x83, 0x86, 0x80 | 62];
    await peer.send(head(1, "Exec"), room(1, 0));
    await peer.until("it is reset", () => peer.resets.length > 0);
    await peer.send(data(1, empty), frame(Type.HEADERS, END_HEADERS | END_STREAM, 1, kept), room(1, 1), reset(1));
    const rest = headerBlock([
      [":authority", "test"],
      ["content-type", "application/grpc"],
    ]);
    await peer.send(frame(Type.HEADERS, END_HEADERS, 3, Buffer.concat([Buffer.of(method, scheme, known), rest])));
    await peer.send(last(3));
    expect(await peer.answer(3)).toMatchObject({ "grpc-status": "0" });
    expect(peer.resets).toEqual([[1, ErrorCode.PROTOCOL_ERROR]]);
  });

  test("and what comes of refused streams is ignored, however many they are", async () => {
    await using server = await startTestServer({ limits: { streams: 1 } });
    using peer = await Peer.to(server);
    await peer.send(call(1, "GetWorkloadLabels"));
    const held = await server.held();
    const count = 3_000; // twice as many as a client may have reset at once
    await peer.flood(count, (index) => call(2 * index + 3, "Ready"));
    await peer.settle();
    expect(peer.resets.length).toBe(count);
    expect(new Set(peer.resets.map(([, code]) => code))).toEqual(new Set([ErrorCode.REFUSED_STREAM]));
    held.release();
    expect(await peer.answer(1)).toMatchObject({ "grpc-status": "0" });
  });

  test("DATA that comes after its end is told so, and counts for the connection", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(call(1, "Ready"));
    await peer.answer(1);
    const before = peer.room(0);
    const count = (600 * 1024) / MAX_FRAME; // more than half of what the connection has room for
    await peer.send(data(1, Buffer.alloc(count * MAX_FRAME)));
    await peer.settle();
    expect(peer.resets).toEqual(Array(Math.ceil(count)).fill([1, ErrorCode.STREAM_CLOSED]));
    expect(peer.room(0)).toBeGreaterThan(before);
    await peer.send(call(3, "Ready"));
    expect(await peer.answer(3)).toMatchObject({ "grpc-status": "0" });
  });

  test("but trailers end its request, and do not reset it", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    const trailers = (stream: number) => headers(stream, [["x-checksum", "1"]], END_STREAM);
    await peer.send(head(1, "Ready"), data(1, empty), trailers(1));
    await peer.send(head(3, "Ready"), data(3, empty.subarray(1)), trailers(3));
    expect(await peer.answer(1)).toMatchObject({ "grpc-status": "0" });
    expect(await peer.answer(3)).toMatchObject({ "grpc-status": "3" }); // its message is cut
    expect(peer.resets).toEqual([]);
  });
});

describe("a client that has its streams reset without end loses its connection:", () => {
  const [open, announced] = [
    (stream: number) => headers(stream, fields),
    (stream: number) => headers(stream, [...fields, ["content-length", "0"]]),
  ];
  const attacks: readonly (readonly [name: string, part: (stream: number) => readonly Uint8Array[]])[] = [
    ["by heads that cannot be", (stream) => [headers(stream, [["x", "y"]])]],
    ["by room of nothing", (stream) => [open(stream), room(stream, 0)]],
    ["by more room than there can be", (stream) => [open(stream), room(stream, MAX_WINDOW)]],
    ["by more content than was announced", (stream) => [announced(stream), last(stream)]],
    ["by what comes after the end", (stream) => [open(stream), last(stream), data(stream, empty)]],
  ];

  test.each(attacks)("%s", async (_name, part) => {
    await using server = await startTestServer();
    using other = await http2Session(server.baseUrl);
    using peer = await Peer.to(server);
    await peer.flood(9_000, (index) => Buffer.concat(part(2 * index + 1))); // fewer than may come at once of streams
    await peer.closed;
    expect(peer.goaway?.code).toBe(ErrorCode.ENHANCE_YOUR_CALM);
    expect(server.log.some((line) => JSON.parse(line).frames === "resets")).toBe(true);
    expect(server.usage.refused().frames).toBe(1);
    const ready = await rawHttp2(other, { ...request, ":path": `/${SERVICE}/Ready` }, empty);
    expect(statusOf(ready)).toMatchObject({ "grpc-status": "0" });
    expect(server.usage.current().streams).toBe(0);
  });
});

describe("a client that does not read", () => {
  /** More than the system takes from a server whose peer does not read. */
  const large = { targetIds: ["x".repeat(16 * 1024 * 1024)] };
  const wide = [[INITIAL_WINDOW, MAX_WINDOW]] as const;
  const ask = Buffer.concat([room(0, MAX_WINDOW - DEFAULT_WINDOW), call(1, "FindWorkloadsByLabels")]);

  /** A server, and a client that has asked it for much and reads none of it. */
  async function deaf() {
    const asked = Promise.withResolvers<void>();
    const findWorkloadsByLabels = () => {
      asked.resolve();
      return large;
    };
    const server = await serve({ ready: () => ({ status: "ok" }), findWorkloadsByLabels });
    const peer = await Peer.to(server, wide);
    await peer.settle();
    peer.socket.pause();
    await peer.send(ask);
    await asked.promise;
    return { server, peer };
  }

  test("may ask on meanwhile", async () => {
    const { server, peer } = await deaf();
    await using _server = server;
    using _peer = peer;
    const ping = frame(Type.PING, 0, 0, Buffer.from("meantime"));
    await peer.send(ping, call(3, "Ready"));
    using other = await Peer.to(server);
    await other.settle();
    peer.socket.resume();
    for (const stream of [1, 3]) expect(await peer.answer(stream)).toMatchObject({ "grpc-status": "0" });
    expect(peer.bytes(1)).toBeGreaterThan(16 * 1024 * 1024);
    expect(peer.frames.some(({ type, payload }) => type === Type.PING && payload.equals(ping.subarray(9)))).toBe(true);
    expect(peer.goaway).toBeUndefined();
  });

  test("loses its connection all the same when it breaks the protocol", async () => {
    const { server, peer } = await deaf();
    await using _server = server;
    using _peer = peer;
    await peer.send(room(0, 0));
    await until("its place is given back", () => server.usage.current().connections === 0 || undefined);
  });

  test.each([
    ["and never reads is ended", true],
    ["and reads is not", false],
  ])("that sends PING without end %s", async (_name, isDeaf) => {
    using pair = await tcpPair();
    pair.socket.on("error", () => undefined); // of the end of the test, while much is under way
    const overdone: string[] = [];
    const connection = new Http2Connection(pair.socket, {
      usage: new Usage(),
      log: createLog({ level: "silent" }),
      serve: () => expect.unreachable(),
      overdone: (kind) => overdone.push(kind),
    });
    let now = performance.now();
    const clock = spyOn(performance, "now").mockImplementation(() => now); // so that they are no more than may come
    try {
      if (!isDeaf) pair.peer.resume();
      connection.read(Buffer.concat([PREFACE, settings()]));
      if (isDeaf) connection.writer.send(Buffer.alloc(16 * 1024 * 1024)); // more than the system takes
      const pings = Buffer.concat(Array<Buffer>(1_000).fill(frame(Type.PING, 0, 0, Buffer.alloc(8))));
      for (let bytes = 0; bytes < 2 * 1024 * 1024 && overdone.length === 0; bytes += pings.length) {
        now += 200;
        connection.read(pings);
        if (!isDeaf) await new Promise(setImmediate);
      }
    } finally {
      clock.mockRestore();
    }
    expect(overdone).toEqual(isDeaf ? ["unread"] : []);
  });

  test("does not hold up a server that closes", async () => {
    const { server, peer } = await deaf();
    using _peer = peer;
    await server.server.close(0);
    expect(server.usage.current()).toMatchObject({ connections: 0, streams: 0 });
  });
});

describe("a server that closes", () => {
  test("lets running calls end, ignores new ones, and then the connection is over", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(call(1, "GetWorkloadLabels"), call(3, "StreamWorkloadLogs"));
    const held = [await server.held(), await server.held()];
    const closed = server.server.close(FOREVER_MS);
    await peer.until("it is told", () => peer.goaway !== undefined);
    expect(peer.goaway).toEqual({ lastStream: 3, code: ErrorCode.NO_ERROR });
    const trailers = headers(5, [["x", "y"]], END_STREAM);
    await peer.send(head(5, "Ready"), data(5, empty), trailers, call(7, "Ready"));
    await peer.settle();
    for (const { release } of held) release();
    for (const stream of [1, 3]) expect(await peer.answer(stream)).toMatchObject({ "grpc-status": "0" });
    await Promise.all([closed, peer.closed]);
    expect([...peer.on(5), ...peer.on(7), ...peer.resets]).toEqual([]);
    expect(server.calls).toEqual(["GetWorkloadLabels", "StreamWorkloadLogs"]);
  });

  test("never says of a call that it ignored that it may have been served", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(call(1, "GetWorkloadLabels"));
    await server.held();
    void server.server.close(FOREVER_MS);
    await peer.until("it is told", () => peer.goaway !== undefined);
    await peer.send(call(3, "Ready"), room(0, 0));
    await peer.closed;
    expect(peer.goaway).toEqual({ lastStream: 1, code: ErrorCode.PROTOCOL_ERROR });
  });

  test("cuts a request that goes on after its answer: one that was answered before", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(head(1, "PutArchive"), data(1, Buffer.from([0, 0xff, 0, 0, 0]))); // too large
    expect(await peer.answer(1)).toMatchObject({ "grpc-status": "8" });
    await Promise.all([server.server.close(FOREVER_MS), peer.closed]);
    expect([peer.resets, peer.goaway?.code]).toEqual([[[1, ErrorCode.NO_ERROR]], ErrorCode.NO_ERROR]);
  });

  test("cuts a request that goes on after its answer: one that is answered then", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server);
    await peer.send(head(1, "Exec"), head(3, "Exec"));
    await peer.settle();
    const closed = server.server.close(FOREVER_MS);
    await peer.until("it is told", () => peer.goaway !== undefined);
    const tooLarge = (stream: number) => data(stream, Buffer.from([0, 0xff, 0, 0, 0]));
    await peer.send(tooLarge(1), tooLarge(3), frame(Type.DATA, END_STREAM, 3)); // and 1 never ends
    await Promise.all([closed, peer.closed]);
    for (const stream of [1, 3]) expect(peer.fields(stream)).toMatchObject({ "grpc-status": "8" });
    expect(peer.resets).toEqual([[1, ErrorCode.NO_ERROR]]);
  });
});

test("a request that goes on after its answer is cut when its time is up", async () => {
  await using server = await startTestServer({ limits: { responseMs: SOON } });
  using peer = await Peer.to(server);
  await peer.send(head(1, "PutArchive"), data(1, Buffer.from([0, 0xff, 0, 0, 0]))); // too large
  expect(await peer.answer(1)).toMatchObject({ "grpc-status": "8" });
  await peer.until("it is cut", () => peer.resets.length > 0);
  expect(peer.resets).toEqual([[1, ErrorCode.NO_ERROR]]);
});

test.each([
  ["half of a preface", [PREFACE.subarray(0, 20)]],
  ["a preface alone", [PREFACE]],
  ["a preface and half of its SETTINGS", [PREFACE, settings([[INITIAL_WINDOW, 1]]).subarray(0, 12)]],
  ["a preface and nothing for its SETTINGS to be", [PREFACE, settings().subarray(0, 8)]],
])("a connection that begins with %s is closed when its time is up", async (_name, sent) => {
  await using server = await startTestServer({ limits: { headerMs: SOON } });
  using peer = await Peer.mute(server);
  await peer.send(...sent);
  await peer.closed;
  expect(server.usage.refused().headerMs).toBe(1);
});

test("a connection that has sent its SETTINGS may then be silent", async () => {
  await using server = await startTestServer({ limits: { headerMs: CONNECTED } });
  using quiet = await Peer.to(server);
  using late = await Peer.mute(server);
  await late.send(PREFACE);
  await late.closed;
  await quiet.send(call(1, "Ready"));
  expect(await quiet.answer(1)).toMatchObject({ "grpc-status": "0" });
  expect(server.usage.refused().headerMs).toBe(1);
});

test("answers that a client does not read wait on their streams, of which it may have so many", async () => {
  using pair = await tcpPair();
  pair.socket.on("error", () => undefined);
  const usage = new Usage({ ...DEFAULT_LIMITS, streamsPerConnection: 50 });
  const head = encodeHeaders([
    [":status", "200"],
    ["x-large", "x".repeat(16_000)],
  ]);
  const connection = new Http2Connection(pair.socket, {
    usage,
    log: createLog({ level: "silent" }),
    overdone: () => expect.unreachable(),
    serve: (stream) => stream.respond(head, true), // no window holds it back
  });
  connection.read(Buffer.concat([PREFACE, settings()]));
  for (let id = 1; usage.refused().streamsPerConnection === 0 && id < 20_000; id += 2) {
    connection.read(frame(Type.HEADERS, END_HEADERS | END_STREAM, id, callHead("/")));
    await new Promise(setImmediate);
  }
  expect(usage.refused().streamsPerConnection).toBe(1);
  expect(usage.current().streams).toBe(50);
  connection.read(frame(Type.RST_STREAM, 0, 1, Buffer.alloc(4))); // of one that was answered: nothing is given back twice
  expect(usage.current().streams).toBe(50);
});

test("streams that ended while they waited for the connection's window are forgotten", async () => {
  using pair = await tcpPair();
  pair.socket.on("error", () => undefined);
  const streams: WeakRef<object>[] = [];
  const connection = new Http2Connection(pair.socket, {
    usage: new Usage(),
    log: createLog({ level: "silent" }),
    overdone: () => expect.unreachable(),
    serve: (stream) => {
      streams.push(new WeakRef(stream));
      stream.respond(encodeHeaders([[":status", "200"]]));
      stream.write(Buffer.alloc(100 * 1024)); // more than the connection's window
      stream.end(null);
    },
  });
  connection.read(Buffer.concat([PREFACE, settings()]));
  const count = 1_000;
  for (let id = 1; id < 2 * count; id += 2)
    connection.read(Buffer.concat([frame(Type.HEADERS, END_HEADERS | END_STREAM, id, callHead("/")), reset(id)]));
  expect(streams.length).toBe(count);
  await new Promise(setImmediate); // what is new is kept to the end of the turn
  Bun.gc(true);
  expect(streams.filter((stream) => stream.deref() !== undefined).length).toBeLessThan(count / 10);
});
