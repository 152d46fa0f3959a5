import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { rpcHandler } from "../../src/adapter.ts";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { RunnersService } from "../../src/gen/agynio/api/runners/v1/runners_pb.ts";
import { Usage } from "../../src/limits.ts";
import { Listener } from "../../src/listener.ts";
import { createLog } from "../../src/log.ts";
import { envelope, http2Session, rawHttp2, readAll, SERVICE, startTestServer, tcp, transports } from "./harness.ts";

const UNIMPLEMENTED = String(Code.Unimplemented);
const endOfStream = (json: unknown) => Buffer.from(envelope(Buffer.from(JSON.stringify(json)), 2));

describe("an unknown service or method", () => {
  test.each(Object.entries(transports))("is UNIMPLEMENTED to a client of %s", async (_name, transportFor) => {
    await using server = await startTestServer();
    const client = createClient(RunnersService, transportFor(server.baseUrl));
    const error = await client.enrollRunner({ serviceToken: "x" }).catch(ConnectError.from);
    expect(error).toBeInstanceOf(ConnectError);
    expect(error).toMatchObject({
      code: Code.Unimplemented,
      rawMessage: "unknown service agynio.api.runners.v1.RunnersService",
    });
  });

  test.each(["application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpc-web-text+proto"])(
    "is told to %s by headers that end the stream",
    async (type) => {
      await using server = await startTestServer();
      using session = await http2Session(server.baseUrl);
      const request = { ":path": `/${SERVICE}/Nope`, "content-type": type };
      const { headers, headersOnly, body } = await rawHttp2(session, request, envelope(new Uint8Array()));
      expect(headers).toMatchObject({ ":status": 200, "content-type": type, "grpc-status": UNIMPLEMENTED });
      expect(decodeURIComponent(headers["grpc-message"] ?? "")).toBe(`unknown method Nope for service ${SERVICE}`);
      expect(headersOnly).toBe(true);
      expect(body).toHaveLength(0);
    },
  );

  test("is told to a Connect stream by its last message", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const request = { ":path": "/foo.Bar/Baz", "content-type": "application/connect+json" };
    const { headers, body } = await rawHttp2(session, request, envelope(Buffer.from("{}")));
    expect(headers).toMatchObject({ ":status": 200, "content-type": "application/connect+json" });
    expect(body).toEqual(endOfStream({ error: { code: "unimplemented", message: "unknown service foo.Bar" } }));
  });

  test.each(["application/json", "application/json; charset=utf-8", "application/proto"])(
    "is told to a unary Connect call of %s by 404 and JSON",
    async (type) => {
      await using server = await startTestServer();
      const init = { method: "POST", headers: { "content-type": type }, body: "{}" };
      const response = await fetch(`${server.baseUrl}/foo.Bar/Baz?x=y`, init);
      expect(response.status).toBe(404);
      expect(response.headers.get("content-type")).toBe("application/json");
      expect(await response.json()).toEqual({ code: "unimplemented", message: "unknown service foo.Bar" });
    },
  );

  test("is told over HTTP/2 while the request is still being sent, and what comes of it is taken in", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const stream = session.request({ ":method": "POST", ":path": "/foo.Bar/Baz", "content-type": "application/grpc" });
    const [headers] = await once(stream, "response");
    expect(headers).toMatchObject({ "grpc-status": UNIMPLEMENTED });
    await new Promise<void>((resolve) => stream.end(new Uint8Array(500_000), () => resolve()));
  });

  test("does no harm when the caller has gone meanwhile", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    for (let count = 0; count < 200; count++) {
      const stream = session.request({
        ":method": "POST",
        ":path": "/foo.Bar/Baz",
        "content-type": "application/grpc",
      });
      stream.on("error", () => {}); // of our own cancellation
      stream.close(8);
    }
    const ready = { ":path": `/${SERVICE}/Ready`, "content-type": "application/grpc" };
    const { trailers } = await rawHttp2(session, ready, envelope(new Uint8Array()));
    expect(trailers).toMatchObject({ "grpc-status": "0" });
  });

  test("does not take the connection with it, though its request was not read", async () => {
    await using server = await startTestServer();
    using socket = await tcp(server.port);
    const body = "x".repeat(500_000);
    const post = (path: string, text: string) =>
      `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n`;
    socket.write(
      `${post("/foo.Bar/Baz", body)}\r\n${body}${post(`/${SERVICE}/Ready`, "{}")}Connection: close\r\n\r\n{}`,
    );
    const text = await readAll(socket);
    expect(text).toStartWith("HTTP/1.1 404 ");
    expect(text).toContain("HTTP/1.1 200 OK");
    expect(text).toContain('{"status":"ok"}');
  });
});

test.each(Object.entries(transports))("a server that closes is UNAVAILABLE to %s", async (_name, transportFor) => {
  const log = createLog({ level: "silent" });
  const handle = rpcHandler({
    usage: new Usage(),
    routes: (router) => router.service(RunnerService, { ready: () => ({ status: "ok" }) }),
    log,
    maxMessageBytes: 1000,
    shutdownSignal: new AbortController().signal,
    closed: () => new ConnectError("going", Code.Unavailable),
  });
  const listener = new Listener({ handle, log });
  const { port } = await listener.listen("127.0.0.1:0");
  const client = createClient(RunnerService, transportFor(`http://127.0.0.1:${port}`));
  const error = await client.ready({}).catch(ConnectError.from);
  expect(error).toMatchObject({ code: Code.Unavailable, rawMessage: "going" });
  listener.destroy();
  await listener.closed;
});

describe("what is no call", () => {
  test.each([
    ["GET", "/", undefined],
    ["GET", "/foo.Bar/Baz", "application/grpc"],
    ["POST", "/", "text/plain"],
    ["POST", "/foo.Bar/Baz", "application/grpcfoo"],
    ["PUT", "/foo.Bar/Baz", "application/json"],
  ])("%s %s (%p) is 404 in plain text", async (method, path, type) => {
    await using server = await startTestServer();
    const headers = new Headers(type === undefined ? [] : [["content-type", type]]);
    const response = await fetch(server.baseUrl + path, { method, headers });
    expect(response.status).toBe(404);
    expect(response.headers.get("content-type")).toStartWith("text/plain");
    expect(await response.text()).toBe("not found\n");
  });

  test.each([
    ["GET", "application/json", 405],
    ["POST", "text/plain", 415],
  ])("%s of a known method with %s is %d", async (method, type, status) => {
    await using server = await startTestServer();
    const response = await fetch(`${server.baseUrl}/${SERVICE}/Ready`, { method, headers: { "content-type": type } });
    expect(response.status).toBe(status);
  });
});

describe("a stream in both directions over HTTP/1.1 is refused with the reason", () => {
  const message = "Exec streams in both directions and needs HTTP/2";

  test.each(["application/grpc-web+proto", "application/grpc"])("to %s", async (type) => {
    await using server = await startTestServer();
    const response = await exec(server.baseUrl, type);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe(type);
    expect(response.headers.get("grpc-status")).toBe(UNIMPLEMENTED);
    expect(decodeURIComponent(response.headers.get("grpc-message") ?? "")).toBe(message);
  });

  test("to a Connect stream", async () => {
    await using server = await startTestServer();
    const response = await exec(server.baseUrl, "application/connect+proto");
    expect(response.status).toBe(200);
    expect(Buffer.from(await response.arrayBuffer())).toEqual(
      endOfStream({ error: { code: "unimplemented", message } }),
    );
  });

  test("at once, while the caller is still sending, and the connection is closed", async () => {
    await using server = await startTestServer();
    using socket = await tcp(server.port);
    const head = `POST /${SERVICE}/Exec HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\n`;
    socket.write(`${head}Transfer-Encoding: chunked\r\n\r\n`);
    expect(await readAll(socket)).toContain(message);
  });
});

test.each(["1.1", "2"])("gRPC-Web as base64 text is refused in its own protocol over HTTP/%s", async (version) => {
  await using server = await startTestServer();
  const type = "application/grpc-web-text+proto";
  const path = `/${SERVICE}/Ready`;
  const told = { "content-type": type, "grpc-status": UNIMPLEMENTED };
  const message = "application/grpc-web-text is not supported, use application/grpc-web";
  if (version === "1.1") {
    const init = { method: "POST", headers: { "content-type": type }, body: "AAAAAAA=" };
    const headers = Object.fromEntries((await fetch(server.baseUrl + path, init)).headers);
    expect(headers).toMatchObject(told);
    expect(decodeURIComponent(headers["grpc-message"] ?? "")).toBe(message);
  } else {
    using session = await http2Session(server.baseUrl);
    const { headers } = await rawHttp2(session, { ":path": path, "content-type": type }, Buffer.from("AAAAAAA="));
    expect(headers).toMatchObject(told);
    expect(decodeURIComponent(headers["grpc-message"] ?? "")).toBe(message);
  }
});

describe("a request that no URL can be made of", () => {
  test.each(["HTTP/1.0\r\n", "HTTP/1.1\r\nHost: a b\r\n"])("%p is answered, and the server serves on", async (head) => {
    await using server = await startTestServer();
    using socket = await tcp(server.port);
    socket.write(`POST /${SERVICE}/Ready ${head}Content-Type: application/json\r\nContent-Length: 2\r\n`);
    socket.write("Connection: close\r\n\r\n{}");
    expect(await readAll(socket)).toStartWith("HTTP/1.1 400 ");
    expect((await fetch(server.baseUrl)).status).toBe(404);
  });

  test("over HTTP/2 is answered, and the connection serves on", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const request = { ":path": `/${SERVICE}/Ready`, "content-type": "application/grpc" };
    const bad = await rawHttp2(session, { ...request, ":authority": "x:99999" }, envelope(new Uint8Array()));
    expect(bad.headers).toMatchObject({ ":status": 400 });
    const good = await rawHttp2(session, request, envelope(new Uint8Array()));
    expect(good.trailers).toMatchObject({ "grpc-status": "0" });
  });
});

function exec(baseUrl: string, type: string): Promise<Response> {
  const body = envelope(new Uint8Array());
  return fetch(`${baseUrl}/${SERVICE}/Exec`, { method: "POST", headers: { "content-type": type }, body });
}
