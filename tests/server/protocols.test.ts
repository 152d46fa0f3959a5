import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { ReadyRequestSchema, RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import {
  bidiTransports,
  envelope,
  http2Session,
  rawHttp2,
  SERVICE,
  startTestServer,
  statusOf,
  stdin,
  transports,
} from "./harness.ts";

describe.each(Object.entries(transports))("%s", (_name, transportFor) => {
  test("answers a unary call", async () => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    expect((await client.ready({})).status).toBe("ok");
  });

  test("carries code and message of an error, whatever the text", async () => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const error = await client.inspectWorkload({ workloadId: "x" }).catch(ConnectError.from);
    expect(error).toBeInstanceOf(ConnectError);
    expect(error).toMatchObject({ code: Code.NotFound, rawMessage: 'resource not found: pods "x" not found – ü' });
  });

  test("delivers a stream's messages as they come, not at its end", async () => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const logs = client.streamWorkloadLogs({ workloadId: "x" })[Symbol.asyncIterator]();
    const text = async () => {
      const { value, done } = await logs.next();
      return done || value.event.case !== "chunk" ? undefined : Buffer.from(value.event.value.data).toString();
    };
    expect(await text()).toBe("first"); // the handler has not been released yet
    (await server.held()).release();
    expect(await text()).toBe("second");
    expect(await text()).toBeUndefined();
  });

  test("passes on the caller's cancellation", async () => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const abort = new AbortController();
    const call = client.getWorkloadLabels({ workloadId: "x" }, { signal: abort.signal }).catch(ConnectError.from);
    const { signal } = await server.held();
    const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    abort.abort();
    expect(await call).toMatchObject({ code: Code.Canceled });
    await aborted;
  });

  test("passes on the caller's deadline", async () => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const call = client.getWorkloadLabels({ workloadId: "x" }, { timeoutMs: 300 }).catch(ConnectError.from);
    const { signal } = await server.held();
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    expect(await call).toMatchObject({ code: Code.DeadlineExceeded });
  });
});

describe.each(bidiTransports)("%s", (_name, transportFor) => {
  test("streams in both directions at once", async () => {
    await using server = await startTestServer();
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const turns = Array.from({ length: 3 }, () => Promise.withResolvers<void>());
    async function* requests() {
      for (const [index, turn] of turns.entries()) {
        yield stdin(`line ${index}`);
        await turn.promise; // the next line waits for the echo of this one
      }
    }
    const echoed: string[] = [];
    for await (const { event } of client.exec(requests())) {
      if (event.case !== "stdout") continue;
      turns[echoed.length]?.resolve();
      echoed.push(Buffer.from(event.value.data).toString());
    }
    expect(echoed).toEqual(["line 0", "line 1", "line 2"]);
  });
});

test("all of a long answer arrives at a caller that reads slowly and never closes its side", async () => {
  await using server = await startTestServer();
  const client = createClient(RunnerService, transports["gRPC over HTTP/2"]?.(server.baseUrl) ?? expect.unreachable());
  const count = 64;
  const open = Promise.withResolvers<void>();
  async function* requests() {
    for (let index = 1; index <= count; index++) yield stdin("x".repeat(100_000), index === count);
    await open.promise;
  }
  let bytes = 0;
  for await (const { event } of client.exec(requests())) {
    if (event.case === "stdout") bytes += event.value.data.length;
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  }
  open.resolve();
  expect(bytes).toBe(count * 100_000);
});

test("many large answers at once on one connection all arrive, though none is read before all have begun", async () => {
  await using server = await startTestServer();
  using session = await http2Session(server.baseUrl);
  const request = {
    ":method": "POST",
    ":path": `/${SERVICE}/FindWorkloadsByLabels`,
    "content-type": "application/grpc",
  };
  const calls = Array.from({ length: 100 }, () => session.request(request).end(envelope(new Uint8Array())));
  await Promise.all(calls.map((call) => once(call, "response")));
  const sizes = calls.map(async (call) => {
    let bytes = 0;
    for await (const chunk of call) bytes += chunk.length;
    return bytes;
  });
  expect(new Set(await Promise.all(sizes)).size).toBe(1);
  expect(await sizes[0]).toBeGreaterThan(200 * 1024);
});

describe("on the wire", () => {
  const ready = { ":path": `/${SERVICE}/Ready`, "content-type": "application/grpc", te: "trailers" };
  const message = toBinary(ReadyRequestSchema, create(ReadyRequestSchema));

  test("gRPC's status is a trailer", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const { headers, trailers, body } = await rawHttp2(session, ready, envelope(message));
    expect(headers).toMatchObject({ ":status": 200, "content-type": "application/grpc+proto" });
    expect(body).toEqual(Buffer.from([0, 0, 0, 0, 4, 10, 2, 111, 107]));
    expect(trailers).toMatchObject({ "grpc-status": "0" });
  });

  test.each(["1.1", "2"])("Connect's JSON is plain JSON over HTTP/%s", async (version) => {
    await using server = await startTestServer();
    const body = JSON.stringify({ workloadId: "x" });
    const answer = await jsonCall(server.baseUrl, version, "Ready", "{}");
    expect(answer).toEqual({ status: 200, type: "application/json", json: { status: "ok" } });
    const error = await jsonCall(server.baseUrl, version, "InspectWorkload", body);
    const message = 'resource not found: pods "x" not found – ü';
    expect(error).toEqual({ status: 404, type: "application/json", json: { code: "not_found", message } });
  });

  test.each([
    ["application/grpc+json", "grpc-encoding", "grpc-accept-encoding"],
    ["application/grpc-web+json", "grpc-encoding", "grpc-accept-encoding"],
    ["application/connect+json", "connect-content-encoding", "connect-accept-encoding"],
  ])("%s: compresses a stream for who compresses, not for who could read it", async (type, encoding, accepted) => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const exec = { ...ready, ":path": `/${SERVICE}/Exec`, "content-type": type };
    const reads = { ...exec, [accepted]: "gzip" };
    const json = Buffer.from(JSON.stringify({ stdin: { data: Buffer.alloc(10_000).toString("base64") } }));
    for (const plain of [exec, reads, { ...reads, [encoding]: "identity" }]) {
      const { headers, body } = await rawHttp2(session, plain, envelope(json));
      expect(headers).not.toHaveProperty(encoding);
      expect(body.length).toBeGreaterThan(10_000);
    }
    const zipped = envelope(gzipSync(json), 1);
    for (const asked of [
      { ...exec, [encoding]: "gzip" },
      { ...reads, [encoding]: "gzip" },
    ]) {
      const { headers, body } = await rawHttp2(session, asked, zipped);
      expect(headers).toMatchObject({ [encoding]: "gzip" });
      expect(body.length).toBeLessThan(1000);
    }
    const none = { ...exec, [accepted]: "br", [encoding]: "gzip" };
    expect((await rawHttp2(session, none, zipped)).headers).not.toHaveProperty(encoding);
  });

  test("compresses a unary answer for who can read it so", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const find = { ...ready, ":path": `/${SERVICE}/FindWorkloadsByLabels` };
    const plain = await rawHttp2(session, find, envelope(message));
    expect(plain.headers).not.toHaveProperty("grpc-encoding");
    expect(plain.body.length).toBeGreaterThan(200_000);
    const zipped = await rawHttp2(session, { ...find, "grpc-accept-encoding": "gzip" }, envelope(message));
    expect(zipped.headers).toMatchObject({ "grpc-encoding": "gzip" });
    expect(zipped.body.length).toBeLessThan(1000);
  });

  test.each([
    ["application/grpc", "grpc-timeout", "99999999H"],
    ["application/grpc", "grpc-timeout", "2147484S"],
    ["application/grpc-web", "grpc-timeout", "35792M"],
    ["application/proto", "connect-timeout-ms", "9999999999"],
  ])("%s with %s %s, more than a timer counts, is no deadline", async (type, name, value) => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const body = type === "application/proto" ? message : envelope(message);
    const request = { ":path": `/${SERVICE}/GetWorkloadLabels`, "content-type": type, [name]: value };
    const call = rawHttp2(session, request, body);
    const held = await server.held();
    // A call with a deadline of its own, which is over after a timer that would fire at once.
    const brief = rawHttp2(session, { ...request, [name]: name === "grpc-timeout" ? "50m" : "50" }, body);
    await once((await server.held()).signal, "abort");
    await brief;
    expect(held.signal.aborted).toBe(false);
    held.release();
    const { headers, trailers, body: answer } = await call;
    expect(headers).toMatchObject({ ":status": 200 });
    expect(answer.toString()).toContain("released");
    if (type === "application/grpc") expect(trailers).toMatchObject({ "grpc-status": "0" });
  });

  test("takes requests compressed by gzip, and names it when asked for another encoding", async () => {
    await using server = await startTestServer();
    using session = await http2Session(server.baseUrl);
    const zipped = await rawHttp2(session, { ...ready, "grpc-encoding": "gzip" }, envelope(gzipSync(message), 1));
    expect(zipped.trailers).toMatchObject({ "grpc-status": "0" });
    const odd = await rawHttp2(session, { ...ready, "grpc-encoding": "br" }, envelope(message, 1));
    expect(statusOf(odd)).toMatchObject({ "grpc-status": String(Code.Unimplemented) });
    expect(decodeURIComponent(statusOf(odd)["grpc-message"] ?? "")).toContain("supported encodings are gzip");
  });
});

async function jsonCall(baseUrl: string, version: string, rpc: string, body: string) {
  const path = `/${SERVICE}/${rpc}`;
  if (version === "1.1") {
    const response = await fetch(baseUrl + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    return { status: response.status, type: response.headers.get("content-type"), json: await response.json() };
  }
  using session = await http2Session(baseUrl);
  const response = await rawHttp2(session, { ":path": path, "content-type": "application/json" }, Buffer.from(body));
  const { ":status": status, "content-type": type } = response.headers;
  return { status: Number(status), type: type ?? null, json: JSON.parse(response.body.toString()) };
}
