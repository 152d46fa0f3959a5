import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { Listener } from "../../src/listener.ts";
import { createLog } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import { envelope, http2Session, rawHttp2, readAll, SERVICE, startTestServer, tcp, transports } from "./harness.ts";

/** Longer than any test may take: who waits that long does not wait for this. */
const FOREVER_MS = 3_600_000;
const unary = Object.entries(transports);

const quiet = createLog({ level: "silent" });
const serve = (address: string) => startServer({ address, routes: () => {}, log: quiet, maxMessageBytes: 1000 });

describe("listens on", () => {
  test.each([
    [":0", /^(::|0\.0\.0\.0)$/, "127.0.0.1"],
    ["0.0.0.0:0", /^0\.0\.0\.0$/, "127.0.0.1"],
    ["127.0.0.1:0", /^127\.0\.0\.1$/, "127.0.0.1"],
    ["[::1]:0", /^::1$/, "[::1]"],
    ["localhost:0", /^(::1|127\.0\.0\.1)$/, "localhost"],
  ])("%s", async (address, host, at) => {
    await using server = await serve(address);
    expect(server.address.host).toMatch(host);
    expect((await fetch(`http://${at}:${server.address.port}/`)).status).toBe(404);
  });

  test.each(["", "50051", "host", ":99999", "a:b:1", "1.2.3.4:x"])("no port that %p does not name", (address) => {
    const text = `listen on ${address}: address must be host:port, [host]:port or :port`;
    expect(serve(address)).rejects.toThrow(text);
  });

  test("no port that is taken", async () => {
    await using server = await serve("127.0.0.1:0");
    const address = `127.0.0.1:${server.address.port}`;
    expect(serve(address)).rejects.toThrow(/^listen on 127\.0\.0\.1:\d+: .*EADDRINUSE/);
  });
});

describe("close", () => {
  test.each(unary)("lets a running call of %s end, and takes no new ones", async (_name, transportFor) => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const call = client.getWorkloadLabels({ workloadId: "x" });
    const held = await server.held();
    const closed = server.server.close(FOREVER_MS);
    await expect(fetch(server.baseUrl)).rejects.toThrow();
    expect(held.signal.aborted).toBe(false);
    held.release();
    expect((await call).labels).toEqual({ released: "yes" });
    await closed;
  });

  test.each(unary)("lets a running stream of %s end", async (_name, transportFor) => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const logs = client.streamWorkloadLogs({ workloadId: "x" })[Symbol.asyncIterator]();
    await logs.next();
    const held = await server.held();
    const closed = server.server.close(FOREVER_MS);
    held.release();
    expect((await logs.next()).done).toBe(false);
    expect((await logs.next()).done).toBe(true);
    await closed;
  });

  test.each(unary)("ends a call of %s that outlives the grace with UNAVAILABLE", async (_name, transportFor) => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const call = client.getWorkloadLabels({ workloadId: "x" }).catch(ConnectError.from);
    await server.held();
    await server.server.close(0);
    expect(await call).toMatchObject({ code: Code.Unavailable, rawMessage: "the runner is shutting down" });
  });

  test("drops what does not heed its signal", async () => {
    const stuck = Promise.withResolvers<void>();
    let arrived = 0;
    const server = await startServer({
      address: "127.0.0.1:0",
      log: quiet,
      maxMessageBytes: 1000,
      routes: (router) =>
        router.service(RunnerService, {
          ready: () => {
            if (++arrived === unary.length) stuck.resolve();
            return new Promise(() => {});
          },
        }),
    });
    const baseUrl = `http://127.0.0.1:${server.address.port}`;
    const calls = unary.map(([, transportFor]) => createClient(RunnerService, transportFor(baseUrl)).ready({}));
    const failures = calls.map((call) => call.then(() => "answered", ConnectError.from));
    await stuck.promise;
    await server.close(0);
    for (const failure of await Promise.all(failures)) expect(failure).toBeInstanceOf(ConnectError);
  });

  test("can be hurried", async () => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, unary[0]?.[1](server.baseUrl) ?? expect.unreachable());
    const call = client.getWorkloadLabels({ workloadId: "x" }).catch(ConnectError.from);
    await server.held();
    const patient = server.server.close(FOREVER_MS);
    await server.server.close(0);
    await patient;
    expect(await call).toMatchObject({ code: Code.Unavailable });
  });

  test("tells HTTP/2 clients by GOAWAY, at once", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const request = { ":path": `/${SERVICE}/GetWorkloadLabels`, "content-type": "application/grpc" };
    const call = rawHttp2(session, request, envelope(new Uint8Array()));
    const held = await server.held();
    const goaway = once(session, "goaway");
    const closed = server.server.close(FOREVER_MS);
    expect((await goaway)[0]).toBe(0);
    held.release();
    expect((await call).trailers).toMatchObject({ "grpc-status": "0" });
    await closed;
  });

  test("refuses a call that crosses it", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const request = { "content-type": "application/grpc" };
    const call = rawHttp2(
      session,
      { ...request, ":path": `/${SERVICE}/GetWorkloadLabels` },
      envelope(new Uint8Array()),
    );
    const held = await server.held();
    // Sent, and not yet received when the server closes.
    const crossing = rawHttp2(session, { ...request, ":path": `/${SERVICE}/Ready` }, envelope(new Uint8Array()));
    const closed = server.server.close(FOREVER_MS);
    await expect(crossing).rejects.toThrow("GOAWAY"); // by the client itself, which may try elsewhere
    held.release();
    expect((await call).trailers).toMatchObject({ "grpc-status": "0" });
    await closed;
    expect(server.calls).toEqual(["GetWorkloadLabels"]);
  });

  test("closes connections that wait: new ones, HTTP/1.1 between requests, HTTP/2 without a stream", async () => {
    await using server = await startTestServer();
    using fresh = await tcp(server.port);
    using half = await tcp(server.port);
    half.write(`POST /${SERVICE}/Rea`);
    using idle = await tcp(server.port);
    idle.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await once(idle, "data");
    using session = await http2Session(server.baseUrl);
    await rawHttp2(session, { ":path": "/" }, new Uint8Array());
    const gone = [fresh, half, idle, session].map((each) => once(each, "close"));
    await server.server.close(FOREVER_MS);
    await Promise.all(gone);
  });
});

describe("a client that", () => {
  test("resets its connection in the middle of a call aborts the call and nothing else", async () => {
    await using server = await startTestServer();
    using other = await http2Session(server.baseUrl);
    const request = { ":path": `/${SERVICE}/GetWorkloadLabels`, "content-type": "application/grpc" };
    const survivor = rawHttp2(other, request, envelope(new Uint8Array()));
    const survivorHeld = await server.held();
    using socket = await tcp(server.port);
    const head = `POST /${SERVICE}/GetWorkloadLabels HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n`;
    socket.write(`${head}Content-Length: 2\r\n\r\n{}`);
    const { signal } = await server.held();
    const aborted = once(signal, "abort");
    socket.resetAndDestroy();
    await aborted;
    using session = await http2Session(server.baseUrl);
    const lost = rawHttp2(session, request, envelope(new Uint8Array())).catch(() => "lost");
    const held = await server.held();
    const lostSignal = once(held.signal, "abort");
    session.destroy();
    await lostSignal;
    await lost;
    expect(survivorHeld.signal.aborted).toBe(false);
    survivorHeld.release();
    expect((await survivor).trailers).toMatchObject({ "grpc-status": "0" });
  });

  test("resets its stream aborts the call, and its connection serves on", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const stream = session.request({
      ":method": "POST",
      ":path": `/${SERVICE}/StreamWorkloadLogs`,
      "content-type": "application/grpc",
    });
    stream.on("error", () => {}); // of our own cancellation
    stream.end(envelope(new Uint8Array()));
    const { signal } = await server.held();
    const aborted = once(signal, "abort");
    stream.close(8);
    await aborted;
    const request = { ":path": `/${SERVICE}/Ready`, "content-type": "application/grpc" };
    const { trailers } = await rawHttp2(session, request, envelope(new Uint8Array()));
    expect(trailers).toMatchObject({ "grpc-status": "0" });
  });

  test("speaks neither protocol is told so and closed, and the log says it at debug level", async () => {
    await using server = await startTestServer();
    using socket = await tcp(server.port);
    socket.write("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n"); // TLS
    expect(await readAll(socket)).toStartWith("HTTP/1.1 400 ");
    expect(server.log.map((line) => JSON.parse(line).level)).toContain("debug");
    expect(server.log.filter((line) => JSON.parse(line).level !== "debug")).toEqual([]);
    expect((await fetch(server.baseUrl)).status).toBe(404);
  });

  test("breaks HTTP/2 after its preface is closed, and the server serves on", async () => {
    await using server = await startTestServer();
    using socket = await tcp(server.port);
    socket.write(`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${"\xff".repeat(100)}`, "latin1");
    await readAll(socket);
    expect((await fetch(server.baseUrl)).status).toBe(404);
  });

  test("sends byte after byte is understood, whichever protocol it speaks", async () => {
    await using server = await startTestServer();
    for (const text of ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "P / HTTP/1.1\r\nHost: x\r\n\r\n"]) {
      using socket = await tcp(server.port);
      const answer = once(socket, "data");
      for (const byte of text) {
        await new Promise<void>((resolve) => socket.write(byte, "latin1", () => resolve()));
        await new Promise(setImmediate);
      }
      const head = (await answer)[0].toString("latin1");
      // The server's SETTINGS frame, or its answer to an odd method.
      expect(head.charCodeAt(3) === 4 || head.startsWith("HTTP/1.1 400")).toBe(true);
    }
  });
});

describe("a connection without a call", () => {
  const idleMs = 60;

  test.each(["", "GET / HTTP/1.1\r\nHo", "PRI "])("is closed after a while when it has only said %p", async (said) => {
    await using listener = await listening();
    using socket = await tcp(listener.port);
    if (said !== "") socket.write(said);
    await once(socket, "close");
  });

  test("is closed after a while between two requests of HTTP/1.1", async () => {
    await using listener = await listening();
    using socket = await tcp(listener.port);
    socket.write("GET /end HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(await readAll(socket)).toContain("ended");
  });

  test("counts from the last call: a quiet one is not cut, nor is a quiet HTTP/2 connection", async () => {
    await using listener = await listening();
    using session = await http2Session(`http://127.0.0.1:${listener.port}`);
    using quiet = await tcp(listener.port);
    quiet.write("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    const waiting = await listener.waiting;
    // One idle connection after another is cut meanwhile, each a whole limit later.
    for (let round = 0; round < 4; round++) {
      using idle = await tcp(listener.port);
      await once(idle, "close");
    }
    const answer = once(quiet, "data");
    waiting();
    expect(String((await answer)[0])).toContain("ended");
    const { headers } = await rawHttp2(session, { ":path": "/end" }, new Uint8Array());
    expect(headers).toMatchObject({ ":status": 200 });
  });

  async function listening() {
    const waiting = Promise.withResolvers<() => void>();
    const listener = new Listener({
      log: quiet,
      idleMs,
      handle: (exchange) => {
        const end = () => exchange.answer({ status: 200, headers: {}, body: "ended" });
        if (exchange.path === "/wait") waiting.resolve(end);
        else end();
      },
    });
    const { port } = await listener.listen("127.0.0.1:0");
    const close = async () => {
      listener.destroy();
      await listener.closed;
    };
    return { port, waiting: waiting.promise, [Symbol.asyncDispose]: close };
  }
});
