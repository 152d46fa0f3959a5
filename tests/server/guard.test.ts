import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { constants } from "node:http2";
import { connect as connectTls } from "node:tls";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import {
  ACK,
  callHead,
  END_HEADERS,
  END_STREAM,
  frame,
  framesIn,
  goawayCode,
  PREFACE,
  Raw,
  Type,
} from "../abuse/wire.ts";
import { certificates } from "../support/certificates.ts";
import { until } from "../support/wait.ts";
import {
  envelope,
  http2Session,
  rawHttp2,
  readAll,
  SERVICE,
  startTestServer,
  statusOf,
  stdin,
  tcp,
} from "./harness.ts";

const SOON = 40;
/** Time for an honest client to connect, on any machine. */
const CONNECTED = 1_500;
const ready = { ":path": `/${SERVICE}/Ready`, "content-type": "application/grpc", te: "trailers" };
const empty = envelope(new Uint8Array());
const clientOf = ({ baseUrl }: { baseUrl: string }) => createClient(RunnerService, createGrpcTransport({ baseUrl }));
const at = ({ port }: { port: number }) => ({ host: "127.0.0.1", port });

describe("connections", () => {
  test("more than so many from one address are closed at once; a place that is given back is taken again", async () => {
    await using server = await startTestServer({ limits: { connectionsPerAddress: 2 } });
    using first = await http2Session(server.baseUrl);
    using _second = await tcp(server.port);
    using third = await tcp(server.port);
    await once(third, "close");
    expect(server.usage.refused().connectionsPerAddress).toBe(1);
    expect(statusOf(await rawHttp2(first, ready, empty))).toMatchObject({ "grpc-status": "0" });
    _second.destroy();
    await until("it is given back", () => server.usage.current().connections === 1 || undefined);
    using fourth = await http2Session(server.baseUrl);
    expect(statusOf(await rawHttp2(fourth, ready, empty))).toMatchObject({ "grpc-status": "0" });
  });

  test("more than so many in all are closed at once", async () => {
    await using server = await startTestServer({ limits: { connections: 1 } });
    using first = await http2Session(server.baseUrl);
    using second = await tcp(server.port);
    await once(second, "close");
    expect(server.usage.refused()).toMatchObject({ connections: 1, connectionsPerAddress: 0 });
    expect(statusOf(await rawHttp2(first, ready, empty))).toMatchObject({ "grpc-status": "0" });
  });

  test.each([
    ["says nothing", ""],
    ["sends half of a preface", "PRI * HT"],
    ["sends half of an HTTP/1.1 header", "POST /x HTTP/1.1\r\nhost: a\r\n"],
  ])("one that %s is closed when its time is up", async (_name, said) => {
    await using server = await startTestServer({ limits: { headerMs: SOON } });
    using socket = await tcp(server.port);
    socket.write(said);
    expect(await readAll(socket)).toBe("");
    expect(server.usage.refused().headerMs).toBe(1);
  });

  test("one that sends its HTTP/1.1 header drop by drop gains no time", async () => {
    await using server = await startTestServer({ limits: { headerMs: SOON } });
    using socket = await tcp(server.port);
    const drip = setInterval(() => socket.write("x"), SOON / 8);
    socket.write("POST /x HTTP/1.1\r\nx-");
    await once(socket, "close");
    clearInterval(drip);
    expect(server.usage.refused().headerMs).toBe(1);
  });

  test("one that begins the header of a call and does not end it is closed, with the calls on it alone", async () => {
    await using server = await startTestServer({ limits: { headerMs: CONNECTED } });
    const client = clientOf(server);
    expect((await client.ready({})).status).toBe("ok");
    using raw = await Raw.http2(at(server));
    await raw.send(frame(Type.HEADERS, END_STREAM, 1, callHead(ready[":path"])));
    await raw.closed;
    expect(server.usage.refused().headerMs).toBe(1);
    expect((await client.ready({})).status).toBe("ok");
  });

  test("one without a call for long is closed by GOAWAY, one with a quiet call is not", async () => {
    await using server = await startTestServer({ limits: { idleMs: SOON } });
    using busy = await http2Session(server.baseUrl);
    const call = rawHttp2(busy, { ...ready, ":path": `/${SERVICE}/GetWorkloadLabels` }, empty);
    const held = await server.held();
    using idle = await http2Session(server.baseUrl);
    expect((await once(idle, "goaway"))[0]).toBe(constants.NGHTTP2_NO_ERROR);
    expect(server.usage.refused().idleMs).toBe(1);
    held.release();
    expect(statusOf(await call)).toMatchObject({ "grpc-status": "0" });
  });

  test("a silent one is asked by a ping, stays when it answers and is dropped when it does not", async () => {
    await using server = await startTestServer({ limits: { keepaliveMs: SOON, keepaliveTimeoutMs: CONNECTED } });
    using alive = await http2Session(server.baseUrl);
    using dead = await Raw.http2(at(server));
    let pings = 0;
    alive.on("ping", () => {
      pings += 1;
    });
    await dead.closed;
    expect(framesIn(dead.received).some(({ type, flags }) => type === Type.PING && (flags & ACK) === 0)).toBe(true);
    expect(server.usage.refused().keepaliveTimeoutMs).toBe(1);
    await until("the other was asked again", () => pings > 2 || undefined);
    expect(statusOf(await rawHttp2(alive, ready, empty))).toMatchObject({ "grpc-status": "0" });
  });

  test("pings of clients are answered", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const { promise, resolve } = Promise.withResolvers<string>();
    session.ping(Buffer.from("12345678"), (_error, _ms, payload) => resolve(payload.toString()));
    expect(await promise).toBe("12345678");
  });
});

test("over TLS it is the same", async () => {
  const { servers, server: pair } = certificates();
  const material = { cert: pair.certPem, key: pair.keyPem, clientCa: undefined };
  await using server = await startTestServer({
    tls: material,
    limits: { headerMs: CONNECTED, connectionsPerAddress: 2 },
  });
  using silent = await tcp(server.port); // agrees on nothing
  const socket = connectTls({ host: "127.0.0.1", port: server.port, ca: servers.caPem, ALPNProtocols: ["h2"] });
  socket.on("error", () => undefined);
  await once(socket, "secureConnect");
  using third = await tcp(server.port);
  await once(third, "close");
  expect(server.usage.refused().connectionsPerAddress).toBe(1);
  const received: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => received.push(chunk));
  const priority = frame(Type.PRIORITY, 0, 3, Buffer.from([0, 0, 0, 0, 1]));
  socket.write(Buffer.concat([PREFACE, frame(Type.SETTINGS, 0, 0), ...Array<Buffer>(2_000).fill(priority)]));
  await Promise.all([once(socket, "close"), once(silent, "close")]);
  expect(goawayCode(Buffer.concat(received))).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  expect(server.usage.refused()).toMatchObject({ frames: 1, headerMs: 1 });
  await until("all is given back", () => server.usage.current().connections === 0 || undefined);
});

describe("streams", () => {
  const open = (stream: number) => frame(Type.HEADERS, END_HEADERS, stream, callHead(`/${SERVICE}/Exec`));
  const codesOf = (raw: Raw) =>
    framesIn(raw.received)
      .filter(({ type }) => type === Type.RST_STREAM)
      .map(({ stream, payload }) => [stream, payload.readUInt32BE()]);

  test("clients are told how many there may be on a connection; more are refused, those before go on", async () => {
    await using server = await startTestServer({ limits: { streamsPerConnection: 2 } });
    using raw = await Raw.http2(at(server));
    await raw.send(Buffer.concat([open(1), open(3), open(5), open(7)]));
    await raw.until((bytes) => framesIn(bytes).filter(({ type }) => type === Type.RST_STREAM).length === 2);
    expect(codesOf(raw)).toEqual([
      [5, constants.NGHTTP2_REFUSED_STREAM],
      [7, constants.NGHTTP2_REFUSED_STREAM],
    ]);
    expect(framesIn(raw.received)[0]?.payload.toString("hex")).toContain("000300000002"); // MAX_CONCURRENT_STREAMS: 2
    expect(server.usage.refused().streamsPerConnection).toBe(2);
    expect(server.usage.current().streams).toBe(2);
    using other = await http2Session(server.baseUrl);
    expect(statusOf(await rawHttp2(other, ready, empty))).toMatchObject({ "grpc-status": "0" });
  });

  test("more than so many in all are refused, and a place that is given back is taken again", async () => {
    await using server = await startTestServer({ limits: { streams: 1 } });
    using raw = await Raw.http2(at(server));
    await raw.send(open(1));
    await until("it is open", () => server.usage.current().streams === 1 || undefined);
    using other = await http2Session(server.baseUrl);
    const refused = other.request({ ":method": "POST", ...ready });
    refused.on("error", () => undefined);
    await new Promise((closed) => refused.once("close", closed));
    expect(refused.rstCode).toBe(constants.NGHTTP2_REFUSED_STREAM);
    expect(server.usage.refused().streams).toBe(1);
    raw.socket.destroy();
    await until("it is given back", () => server.usage.current().streams === 0 || undefined);
    expect(statusOf(await rawHttp2(other, ready, empty))).toMatchObject({ "grpc-status": "0" });
  });

  test("calls that end in every way give their places back", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    await client.ready({});
    await client.inspectWorkload({ workloadId: "x" }).catch(() => undefined);
    const open = Promise.withResolvers<void>();
    async function* requests(eof: boolean) {
      yield stdin("a", eof);
      await open.promise;
    }
    for await (const _ of client.exec(requests(true))); // ended by the server first
    const left = client.exec(requests(false))[Symbol.asyncIterator]();
    await left.next();
    await left.return?.();
    open.resolve();
    await until("all are given back", () => server.usage.current().streams === 0 || undefined);
    expect(server.usage.current().executions).toBe(0);
  });

  test("an answer that is complete and not read is given up", async () => {
    await using server = await startTestServer({ limits: { responseMs: SOON } });
    using raw = await Raw.http2(at(server), [[4, 0]]); // no window
    await raw.send(frame(Type.HEADERS, END_HEADERS, 1, callHead(`/${SERVICE}/FindWorkloadsByLabels`)));
    await raw.send(frame(Type.DATA, END_STREAM, 1, empty));
    await raw.until((bytes) => framesIn(bytes).some(({ type }) => type === Type.RST_STREAM));
    expect(codesOf(raw)).toEqual([[1, constants.NGHTTP2_CANCEL]]);
    expect(server.usage.refused().responseMs).toBe(1);
    await until("it is given back", () => server.usage.current().streams === 0 || undefined);
  });

  test("a client whose calls end before it has said all of them keeps its connection, however many they are", async () => {
    await using server = await startTestServer();
    using raw = await Raw.http2(at(server));
    // More than the 1,000 at once of node:http2 on Bun 1.4.5, and no more than the budget of http2/budget.ts.
    const cancelled = Array.from({ length: 1_400 }, (_, index) =>
      Buffer.concat([open(2 * index + 1), frame(Type.RST_STREAM, 0, 2 * index + 1, Buffer.from([0, 0, 0, 8]))]),
    );
    await raw.send(Buffer.concat([...cancelled, frame(Type.PING, 0, 0, Buffer.from("the last"))]));
    expect(await raw.until((bytes) => bytes.includes("the last"))).toBe(true);
    expect(raw.isOpen).toBe(true);
  });
});
