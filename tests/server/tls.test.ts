import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectTcp } from "node:net";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { createLog } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import type { TlsMaterial } from "../../src/tls.ts";
import { certificates, type Pair } from "../support/certificates.ts";
import { echoed, envelope, rawHttp2, readAll, SERVICE, startTestServer, tcp } from "./harness.ts";

const { servers, clients, server, client, expired, early, strange } = certificates();
const material: TlsMaterial = { cert: server.certPem, key: server.keyPem, clientCa: undefined };
const mutual: TlsMaterial = { ...material, clientCa: clients.caPem };
const trusting = { ca: servers.caPem };
const showing = (pair: Pair) => ({ ...trusting, cert: pair.certPem, key: pair.keyPem });

const transports: [name: string, (baseUrl: string, nodeOptions?: ConnectionOptions) => Transport][] = [
  ["gRPC over HTTP/2", (baseUrl, nodeOptions = trusting) => createGrpcTransport({ baseUrl, nodeOptions })],
  [
    "gRPC-Web over HTTP/1.1",
    (baseUrl, nodeOptions = trusting) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1", nodeOptions }),
  ],
  [
    "gRPC-Web over HTTP/2",
    (baseUrl, nodeOptions = trusting) => createGrpcWebTransport({ baseUrl, httpVersion: "2", nodeOptions }),
  ],
  [
    "Connect over HTTP/1.1",
    (baseUrl, nodeOptions = trusting) => createConnectTransport({ baseUrl, httpVersion: "1.1", nodeOptions }),
  ],
  [
    "Connect over HTTP/2",
    (baseUrl, nodeOptions = trusting) => createConnectTransport({ baseUrl, httpVersion: "2", nodeOptions }),
  ],
];
const grpc = transports[0]?.[1] ?? expect.unreachable();
const ready = (baseUrl: string, nodeOptions?: ConnectionOptions) =>
  createClient(RunnerService, grpc(baseUrl, nodeOptions)).ready({});

/** A TLS connection, agreed on; rejects when the server refuses it, also when that shows only afterwards (TLS 1.3). */
async function secured(port: number, options: ConnectionOptions = {}): Promise<TLSSocket & Disposable> {
  const socket = connectTls({ host: "127.0.0.1", port, ...trusting, ...options });
  await once(socket, "secureConnect");
  return Object.assign(socket, { [Symbol.dispose]: () => void socket.destroy() });
}

describe.each(transports)("over TLS, %s", (name, transportFor) => {
  test("calls, streams and large messages are as they are without", async () => {
    await using at = await startTestServer({ tls: material });
    const calls = createClient(RunnerService, transportFor(at.baseUrl));
    expect((await calls.ready({})).status).toBe("ok");
    const large = await Promise.all(Array.from({ length: 20 }, () => calls.findWorkloadsByLabels({})));
    expect(new Set(large.map(({ targetIds }) => targetIds[0]?.length))).toEqual(new Set([200 * 1024]));
    await calls.putArchive({ workloadId: "x", path: "/", tarPayload: new Uint8Array(200 * 1024) });
    const logs = calls.streamWorkloadLogs({ workloadId: "x" })[Symbol.asyncIterator]();
    await logs.next();
    (await at.held()).release();
    expect([(await logs.next()).done, (await logs.next()).done]).toEqual([false, true]);
    if (!name.endsWith("HTTP/2")) return;
    expect(await echoed(calls, "one", "two")).toEqual(["one", "two"]);
  });

  test("closing lets a running call end, and ends one that outlives the grace with UNAVAILABLE", async () => {
    for (const released of [true, false]) {
      await using at = await startTestServer({ tls: material });
      const calls = createClient(RunnerService, transportFor(at.baseUrl));
      const call = calls.getWorkloadLabels({ workloadId: "x" }).catch(ConnectError.from);
      const held = await at.held();
      const closed = at.server.close(released ? 3_600_000 : 0);
      if (released) held.release();
      expect(await call).toMatchObject(released ? { labels: { released: "yes" } } : { code: Code.Unavailable });
      await closed;
    }
  });
});

describe("TLS", () => {
  test.each([
    [["h2", "http/1.1"], "h2"],
    [["http/1.1"], "http/1.1"],
    [["h2"], "h2"],
  ])("agrees by ALPN: of %j on %s", async (ALPNProtocols, agreed) => {
    await using at = await startTestServer({ tls: material });
    using socket = await secured(at.port, { ALPNProtocols });
    expect(socket.alpnProtocol).toBe(agreed);
  });

  test("without ALPN carries HTTP/1.1; HTTP/2 needs it (RFC 9113 section 3.2) and is told so", async () => {
    await using at = await startTestServer({ tls: material });
    using socket = await secured(at.port);
    socket.write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    expect(await readAll(socket)).toStartWith("HTTP/1.1 404 ");
    using other = await secured(at.port);
    other.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    expect(await readAll(other)).toMatch(/^HTTP\/1\.1 403 .*HTTP\/2 over TLS has to be agreed on by ALPN: h2/s);
  });

  test("is of version 1.2 or 1.3", async () => {
    await using at = await startTestServer({ tls: material });
    for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
      using socket = await secured(at.port, { minVersion: version, maxVersion: version });
      expect(socket.getProtocol()).toBe(version);
    }
    const old = secured(at.port, { minVersion: "TLSv1", maxVersion: "TLSv1.1" });
    await expect(old).rejects.toThrow();
    expect(at.log.some((line) => line.includes("TLS handshake failed"))).toBe(true);
  });

  test("is the only thing that the port speaks, and clients without it harm nobody", async () => {
    await using at = await startTestServer({ tls: material });
    for (const said of [
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      "\x16\x03\x01\xff\xff",
    ]) {
      using socket = await tcp(at.port);
      socket.on("error", () => {}); // of the refusal
      socket.end(said, "latin1");
      expect(await readAll(socket)).not.toContain("HTTP/1.1 ");
    }
    using reset = await tcp(at.port);
    reset.resetAndDestroy();
    expect((await ready(at.baseUrl)).status).toBe("ok");
    expect(at.log.filter((line) => JSON.parse(line).level !== "debug")).toEqual([]);
  });

  test("is not spoken on the Unix socket", async () => {
    await using at = await startTestServer({ tls: mutual });
    const path = `/tmp/tls-${process.pid}-${performance.now()}.sock`;
    await at.server.listenOnSocket(path);
    const nodeOptions = { createConnection: () => connectTcp(path) };
    const local = createGrpcTransport({ baseUrl: "http://localhost", nodeOptions });
    expect((await createClient(RunnerService, local).ready({})).status).toBe("ok");
  });

  test("closing tells HTTP/2 clients by GOAWAY, and drops who has not agreed on TLS or waits between requests", async () => {
    await using at = await startTestServer({ tls: material });
    using silent = await tcp(at.port);
    using idle = await secured(at.port);
    idle.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await once(idle, "data");
    const session = connectHttp2(at.baseUrl, trusting);
    const request = { ":path": `/${SERVICE}/GetWorkloadLabels`, "content-type": "application/grpc" };
    const call = rawHttp2(session, request, envelope(new Uint8Array()));
    const held = await at.held();
    const gone = [silent, idle, session].map((each) => once(each, "close"));
    const goaway = once(session, "goaway");
    const closed = at.server.close(3_600_000);
    expect((await goaway)[0]).toBe(0);
    held.release();
    expect((await call).trailers).toMatchObject({ "grpc-status": "0" });
    await Promise.all(gone);
    await closed;
  });

  test("a caller that does not read stops the handler after little", async () => {
    let made = 0;
    await using at = await startServer({
      address: "127.0.0.1:0",
      maxMessageBytes: 1000,
      log: createLog({ level: "silent" }),
      tls: material,
      routes: (router) =>
        router.service(RunnerService, {
          async *streamWorkloadLogs() {
            for (; ; made++) yield { event: { case: "chunk", value: { data: new Uint8Array(32 * 1024) } } };
          },
        }),
    });
    const session = connectHttp2(`https://127.0.0.1:${at.address.port}`, trusting);
    const path = `/${SERVICE}/StreamWorkloadLogs`;
    const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc" });
    stream.end(envelope(new Uint8Array()));
    await once(stream, "response");
    await turns(200);
    const before = made;
    expect(before).toBeLessThan(32); // 1 MiB: the windows of client and server, and what is on the way
    await turns(200);
    expect(made).toBe(before);
    session.destroy();
  });
});

const turns = async (count: number) => {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
};

describe("client certificates", () => {
  test.each(transports)("of the CA are let in by %s", async (_name, transportFor) => {
    await using at = await startTestServer({ tls: mutual });
    const calls = createClient(RunnerService, transportFor(at.baseUrl, showing(client)));
    expect((await calls.ready({})).status).toBe("ok");
  });

  const refused = [
    ["none", trusting],
    ["one of another CA", showing(strange)],
    ["one of the servers' CA", showing(servers.issue("client", { usage: "client" }))],
    ["one that has expired", showing(expired)],
    ["one that is not valid yet", showing(early)],
  ] as const;
  const versions = ["TLSv1.2", "TLSv1.3"] as const;

  test.each(refused.flatMap(([what, options]) => versions.map((version) => [what, version, options] as const)))(
    "are required: %s is refused by %s before any request is read",
    async (_what, version, options) => {
      await using at = await startTestServer({ tls: mutual });
      const pinned = { ...options, minVersion: version, maxVersion: version };
      const error = await ready(at.baseUrl, pinned).catch(ConnectError.from);
      expect(error).toBeInstanceOf(ConnectError);
      const page = await fetch(`${at.baseUrl}/`, { tls: { ...options } }).catch(() => undefined);
      expect(page).toBeUndefined();
      expect(at.calls).toEqual([]);
      // Who has one goes on being served.
      expect((await ready(at.baseUrl, showing(client))).status).toBe("ok");
    },
  );
});

test("no TLS session outlives the certificate that it was begun with: it is shown for each connection", async () => {
  await using at = await startTestServer({ tls: mutual });
  const options = { maxVersion: "TLSv1.2", ALPNProtocols: ["http/1.1"] } as const;
  using first = await secured(at.port, { ...showing(client), ...options });
  first.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  await once(first, "data");
  const session = first.getSession() ?? Buffer.alloc(0);
  using again = await secured(at.port, { ...showing(client), ...options, session });
  expect(again.isSessionReused()).toBe(false);
});

describe("renewed", () => {
  const next = servers.issue("next");

  test("a certificate is shown to new connections, while those that are open go on", async () => {
    await using at = await startTestServer({ tls: material });
    const calls = createClient(RunnerService, grpc(at.baseUrl));
    const logs = calls.streamWorkloadLogs({ workloadId: "x" })[Symbol.asyncIterator]();
    await logs.next();
    const held = await at.held();
    at.server.renewTls({ ...material, cert: next.certPem, key: next.keyPem });
    using socket = await secured(at.port, { ALPNProtocols: ["h2", "http/1.1"] });
    expect([socket.getPeerCertificate().subject.CN, socket.alpnProtocol]).toEqual(["next", "h2"]);
    held.release();
    expect([(await logs.next()).done, (await logs.next()).done]).toEqual([false, true]);
    await expect(secured(at.port, { minVersion: "TLSv1", maxVersion: "TLSv1.1" })).rejects.toThrow();
  });

  test("a pair that does not fit throws, and the one before stays", async () => {
    await using at = await startTestServer({ tls: material });
    expect(() => at.server.renewTls({ ...material, key: next.keyPem })).toThrow();
    using socket = await secured(at.port);
    expect(socket.getPeerCertificate().subject.CN).toBe("server");
  });

  test("another CA of clients refuses those of the one before", async () => {
    await using at = await startTestServer({ tls: mutual });
    expect((await ready(at.baseUrl, showing(client))).status).toBe("ok");
    at.server.renewTls({ ...mutual, clientCa: servers.caPem });
    expect(await ready(at.baseUrl, showing(client)).catch(ConnectError.from)).toBeInstanceOf(ConnectError);
    const good = servers.issue("client", { usage: "client" });
    expect((await ready(at.baseUrl, showing(good))).status).toBe("ok");
  });
});
