import { expect, test } from "bun:test";
import type { ServerResponse } from "node:http";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { Kube } from "../../src/kube/client.ts";
import { createLog } from "../../src/log.ts";
import { grown } from "../support/grown.ts";
import { collect, failureOf, json, listObject, podObject, scriptedServer, statusObject } from "./server.ts";

/* The API server, or whoever answers in its place, as the attacker (promises, threat 27). */

const MEBIBYTE = 1024 * 1024;
/** What a bounded answer may take of memory while it is refused: its bound, its copies, and what the server here keeps. */
const WITHIN_MIB = 300;

/** A server of bytes: `talk` is called for each connection that has sent something. */
async function byteServer(talk: (socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined); // the client may reset
    socket.on("close", () => sockets.delete(socket));
    socket.once("data", () => talk(socket));
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo; // a TCP server's address is an object
  const access = {
    server: new URL(`http://127.0.0.1:${port}`),
    source: "test",
    credentials: async () => ({ headers: { authorization: "Bearer token" }, tls: {} }),
  };
  return {
    kube: new Kube({
      access,
      namespace: "work",
      log: createLog({ level: "silent" }),
      timing: { requestMs: 5_000, watchOpenMs: 5_000, watchIdleMs: 5_000 },
    }),
    sockets,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** Writes `chunk` for as long as the other end is there, at its pace. */
function without(end: {
  write(chunk: string | Buffer): boolean;
  once(event: "drain", on: () => void): unknown;
  destroyed: boolean;
}) {
  return (chunk: string | Buffer) => {
    const more = () => {
      let room = true;
      while (room && !end.destroyed) room = end.write(chunk);
      if (!end.destroyed) end.once("drain", more);
    };
    more();
  };
}

const endless = (response: ServerResponse, chunk: string | Buffer) => without(response)(chunk);

const refused = { name: "KubeError", reason: "" };

test("an object, a list and an error without end are given up, in bounded memory", async () => {
  await using server = await scriptedServer(({ path, query }, response) => {
    response.writeHead(path.endsWith("/error") ? 403 : 200, { "content-type": "application/json" });
    response.write(
      query.has("limit") ? '{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":["' : '{"kind":"Pod","x":"',
    );
    endless(response, Buffer.alloc(65_536, 120));
  });
  const { pods } = server.kube();
  const mib = await grown(async () => {
    expect(await failureOf(pods.get("p"))).toMatchObject({ ...refused, status: 200 });
    expect(await failureOf(pods.listAll({}))).toMatchObject({ ...refused, status: 200 });
    expect(await failureOf(pods.get("error"))).toMatchObject({ ...refused, status: 403 });
  });
  expect(mib).toBeLessThan(WITHIN_MIB);
});

test("an error of 10 MB is told without it", async () => {
  const message = "x".repeat(10_000_000);
  await using server = await scriptedServer((_, response) =>
    json(response, 409, statusObject(409, "Conflict", message)),
  );
  const error = await failureOf(server.kube().pods.patch("p", {}));
  expect(error).toMatchObject({ name: "KubeError", status: 409 });
  expect(Bun.inspect(error).length).toBeLessThan(10_000);
});

test("a list whose pages never end is given up", async () => {
  await using server = await scriptedServer(({ index }, response) =>
    json(response, 200, listObject([], "1", `page-${index}`)),
  );
  expect(await failureOf(server.kube().pods.listAll({}))).toMatchObject({ ...refused, status: 200 });
  expect(server.seen.length).toBeLessThan(3_000);
});

test("a compressed answer that nobody asked for is bounded by what it becomes", async () => {
  const bomb = gzipSync(Buffer.alloc(256 * MEBIBYTE, 32));
  await using server = await scriptedServer(({ headers }, response) => {
    expect(headers["accept-encoding"]).toBe("identity");
    response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" });
    response.end(bomb);
  });
  const mib = await grown(async () => {
    expect(await failureOf(server.kube().pods.get("p"))).toMatchObject({ ...refused, status: 200 });
  });
  expect(mib).toBeLessThan(WITHIN_MIB);
});

test("a line of a watch without an end is given up", async () => {
  await using server = await scriptedServer((_, response) => {
    response.writeHead(200);
    endless(response, Buffer.alloc(65_536, 120));
  });
  const mib = await grown(async () => {
    expect(await failureOf(collect(server.kube().pods.watch({})))).toMatchObject({ ...refused, status: 0 });
  });
  expect(mib).toBeLessThan(WITHIN_MIB);
});

test("a header without an end is given up, of a request and of a stream", async () => {
  await using server = await byteServer((socket) => {
    socket.write("HTTP/1.1 200 OK\r\n");
    without(socket)(`x-more: ${"y".repeat(8_000)}\r\n`);
  });
  const { pods } = server.kube;
  const mib = await grown(async () => {
    expect(await failureOf(pods.patch("p", {}))).toMatchObject({ ...refused, status: 0 });
    expect(await failureOf(collect(pods.watch({})))).toMatchObject({ ...refused, status: 0 });
    expect(await failureOf(collect(server.kube.log("p", { container: "c" })))).toMatchObject({ ...refused, status: 0 });
  });
  expect(mib).toBeLessThan(WITHIN_MIB);
});

test("no redirect is followed, whatever its kind and wherever it leads, by a request, a stream or an exec", async () => {
  await using other = await scriptedServer((_, response) => json(response, 200, podObject("p", "1")));
  for (const status of [301, 302, 303, 307, 308]) {
    await using server = await scriptedServer((_, response) => {
      response.writeHead(status, { location: new URL("/stolen", other.access.server).href });
      response.end();
    });
    const kube = server.kube();
    expect(await failureOf(kube.pods.get("p"))).toMatchObject({ ...refused, status });
    expect(await failureOf(kube.pods.create(podObject("p", "")))).toMatchObject({ ...refused, status });
    expect(await failureOf(kube.pods.delete("p"))).toMatchObject({ ...refused, status });
    expect(await failureOf(collect(kube.pods.watch({})))).toMatchObject({ ...refused, status });
    expect(await failureOf(collect(kube.log("p", { container: "c" })))).toMatchObject({ ...refused, status });
    const signal = new AbortController().signal;
    expect(await failureOf(kube.exec("p", { container: "c", command: ["x"], signal }))).toMatchObject({
      name: "KubeError",
    });
  }
  expect(other.seen).toEqual([]);
});

test("text that is not UTF-8 is no answer, and no event", async () => {
  const pod = Buffer.from(JSON.stringify(podObject("p", "1")));
  const bad = Buffer.concat([
    pod.subarray(0, pod.indexOf("uid-")),
    Buffer.from([0xc3, 0x28]),
    pod.subarray(pod.indexOf("uid-")),
  ]);
  await using server = await scriptedServer(({ query }, response) =>
    response.end(
      query.has("watch") ? Buffer.concat([Buffer.from('{"type":"ADDED","object":'), bad, Buffer.from("}\n")]) : bad,
    ),
  );
  const { pods } = server.kube();
  expect(await failureOf(pods.get("p"))).toMatchObject({ ...refused, status: 200 });
  expect(await failureOf(collect(pods.watch({})))).toMatchObject({ ...refused, status: 0 });
});

test("depth, numbers and names of JSON do no harm", async () => {
  const deep = "[".repeat(1_000_000);
  const nested = `${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}`;
  const extra = (text: string) => `{"kind":"Pod","metadata":{"name":"p","uid":"u"},${text}}`;
  const bodies = [
    deep,
    nested,
    extra(`"x":${"9".repeat(100_000)}`),
    extra('"x":1e999'),
    extra('"__proto__":{"polluted":1}'),
    extra('"constructor":{"prototype":{"polluted":1}}'),
  ];
  await using server = await scriptedServer(({ path }, response) =>
    response.end(bodies[Number(path.split("/").at(-1))]),
  );
  const { pods } = server.kube();
  for (const name of ["0", "1"]) expect(await failureOf(pods.get(name))).toMatchObject({ ...refused, status: 200 });
  for (const name of ["2", "3", "4", "5"]) expect((await pods.get(name)).metadata?.name).toBe("p");
  expect("polluted" in {}).toBe(false);
});

test.each([1e9, -5, Number.NaN, "soon"])("a Retry-After of %p holds nobody for long", async (retryAfterSeconds) => {
  await using server = await scriptedServer((_, response) =>
    json(response, 429, statusObject(429, "TooManyRequests", "later", { retryAfterSeconds })),
  );
  const timing = { requestMs: 100 };
  const error = await failureOf(server.kube({ timing }).pods.get("p"));
  const seconds = (error as { retryAfterSeconds?: number }).retryAfterSeconds ?? 0; // a KubeError
  expect(seconds).toBeGreaterThanOrEqual(0);
  expect(seconds).toBeLessThanOrEqual(300);
});
