import { expect, test } from "bun:test";
import type http from "node:http";
import { type AddressInfo, createServer, Socket } from "node:net";
import fc from "fast-check";
import type { Access } from "../../src/kube/access.ts";
import { Kube } from "../../src/kube/client.ts";
import { Incoming } from "../../src/kube/incoming.ts";
import { resourcePath, Transport } from "../../src/kube/request.ts";
import { linesOf, openStream } from "../../src/kube/stream.ts";
import { createLog } from "../../src/log.ts";
import { until } from "../support/wait.ts";
import { collect, failureOf, podObject, scriptedServer, statusObject } from "./server.ts";

const event = (type: string, object: object) => `${JSON.stringify({ type, object })}\n`;

/** Answers 200 with a chunked body that begins with `text`. */
const begin = (response: http.ServerResponse, text: string): Promise<void> => {
  response.writeHead(200, { "content-type": "application/json", "transfer-encoding": "chunked" });
  return new Promise((resolve) => response.write(text, () => resolve()));
};

async function* chunksOf(...texts: string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text);
}

test("lines are put together from any cut of the bytes", async () => {
  const text = "ab\n\nçd€\nef\n";
  const bytes = Buffer.from(text);
  for (let size = 1; size <= bytes.length; size++) {
    const chunks = (async function* () {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
    })();
    expect(await collect(linesOf(chunks))).toEqual(["ab", "", "çd€", "ef"]);
  }
});

test("a line that is too long, or has no end, fails", async () => {
  expect(await collect(linesOf(chunksOf("abc\n", "def\n"), 3))).toEqual(["abc", "def"]);
  expect(await failureOf(collect(linesOf(chunksOf("ab", "cd\n"), 3)))).toMatchObject({ name: "KubeError", status: 0 });
  expect(await failureOf(collect(linesOf(chunksOf("ab\ncd"))))).toMatchObject({
    message: "the stream ended in the middle of a line",
  });
});

test("a watch asks for bookmarks, gives the events and ends when the server ends it", async () => {
  await using server = await scriptedServer(async (_, response) => {
    await begin(response, event("ADDED", podObject("p", "5")));
    response.end(event("BOOKMARK", { kind: "Pod", metadata: { resourceVersion: "6" } }));
  });
  const events = await collect(
    server.kube().pods.watch({ labelSelector: "a=b", resourceVersion: "4", timeoutSeconds: 27 }),
  );
  expect(events.map(({ type, object }) => [type, object.metadata?.resourceVersion])).toEqual([
    ["ADDED", "5"],
    ["BOOKMARK", "6"],
  ]);
  expect(Object.fromEntries(server.seen[0]?.query ?? [])).toEqual({
    watch: "true",
    allowWatchBookmarks: "true",
    labelSelector: "a=b",
    resourceVersion: "4",
    timeoutSeconds: "27",
  });
});

test("an ERROR event is the error that its Status tells", async () => {
  await using server = await scriptedServer(async ({ index }, response) => {
    const status = index === 0 ? statusObject(410, "Expired", "too old") : statusObject(500, "InternalError", "etcd");
    response.end(event("ADDED", podObject("p", "5")) + event("ERROR", status));
  });
  const { pods } = server.kube();
  const seen: string[] = [];
  const watch = async () => {
    for await (const { type } of pods.watch({})) seen.push(type);
  };
  expect(await failureOf(watch())).toMatchObject({ status: 410, reason: "Expired", gone: true });
  expect(await failureOf(watch())).toMatchObject({ status: 500, reason: "InternalError", gone: false });
  expect(seen).toEqual(["ADDED", "ADDED"]);
});

test("nothing that is no event is dropped silently", async () => {
  const good = event("ADDED", podObject("p", "5"));
  const bad = [
    good.slice(0, 40),
    "{}\n",
    "\n",
    "[]\n",
    "no json\n",
    event("OTHER", podObject("p", "6")),
    event("ERROR", {}),
  ];
  await using server = await scriptedServer(({ index }, response) => response.end(good + bad[index]));
  const { pods } = server.kube();
  for (const _ of bad) {
    const seen: string[] = [];
    const watch = async () => {
      for await (const { type } of pods.watch({})) seen.push(type);
    };
    expect(await failureOf(watch())).toMatchObject({ name: "KubeError", status: 0 });
    expect(seen).toEqual(["ADDED"]);
  }
});

test("a lost connection is never taken for the end: reset, closed before the last chunk, without a frame", async () => {
  const endings: ((response: http.ServerResponse) => void)[] = [
    (response) => response.socket?.resetAndDestroy(),
    (response) => response.socket?.end(),
    (response) => response.socket?.end("HTTP/1.1 200 OK\r\n\r\nhello"),
  ];
  await using server = await scriptedServer(async ({ index }, response) => {
    if (index % 3 < 2) await begin(response, "hello\n");
    endings[index % 3]?.(response);
  });
  const kube = server.kube();
  for (const _ of endings) {
    expect(await failureOf(collect(kube.log("p", { container: "c", follow: true })))).toMatchObject({
      name: "KubeError",
      status: 0,
    });
  }
});

test("a silent watch is given up, and a silent log is not", async () => {
  const closed = Promise.withResolvers<void>();
  await using server = await scriptedServer(async ({ path }, response) => {
    response.once("close", () => closed.resolve());
    await begin(response, path.endsWith("/log") ? "one\n" : event("ADDED", podObject("p", "5")));
  });
  const kube = server.kube({ timing: { watchIdleMs: 20 } });
  expect(await failureOf(collect(kube.pods.watch({})))).toMatchObject({ status: 0, message: "no data for 20 ms" });
  await closed.promise;
  const controller = new AbortController();
  const log = kube.log("p", { container: "c", follow: true, signal: controller.signal });
  expect(Buffer.from((await log.next()).value ?? []).toString()).toBe("one\n");
  const reason = new Error("enough");
  const next = log.next();
  controller.abort(reason);
  expect(await failureOf(next)).toBe(reason);
});

test("a slow reader of a watch is no dead link", async () => {
  const all = Promise.withResolvers<void>();
  await using server = await scriptedServer(async (_, response) => {
    await begin(response, event("ADDED", podObject("p", "5")));
    await all.promise;
    response.end(event("DELETED", podObject("p", "6")));
  });
  const idle = 20;
  const watch = server.kube({ timing: { watchIdleMs: idle } }).pods.watch({});
  expect((await watch.next()).value?.type).toBe("ADDED");
  await new Promise((resolve) => setTimeout(resolve, 3 * idle)); // the reader takes its time
  all.resolve();
  expect((await watch.next()).value?.type).toBe("DELETED");
});

test("whoever leaves a stream closes its connection", async () => {
  const closed = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  await using server = await scriptedServer(async ({ index }, response) => {
    response.once("close", () => closed[index]?.resolve());
    await begin(response, "one\n");
  });
  const kube = server.kube();
  for await (const _ of kube.log("p", { container: "c", follow: true })) break;
  await closed[0]?.promise;
  // A reader that never comes back for more: the signal alone must do.
  const controller = new AbortController();
  const log = kube.log("p", { container: "c", follow: true, signal: controller.signal });
  await log.next();
  controller.abort(new Error("enough"));
  await closed[1]?.promise;
});

test("a log is asked for as the caller wants it, and refused with the Status", async () => {
  await using server = await scriptedServer(({ index }, response) => {
    response.writeHead(index === 0 ? 200 : 400, { "content-type": "text/plain" });
    const status = statusObject(400, "BadRequest", 'container "c" in pod "p" is waiting to start');
    response.end(index === 0 ? "one\ntwo\n" : JSON.stringify(status));
  });
  const kube = server.kube();
  const options = { container: "c", timestamps: true, tailLines: 0, sinceTime: "2026-01-02T03:04:05+01:00" };
  expect(Buffer.concat(await collect(kube.log("p", options))).toString()).toBe("one\ntwo\n");
  expect(Object.fromEntries(server.seen[0]?.query ?? [])).toEqual({
    container: "c",
    timestamps: "true",
    tailLines: "0",
    sinceTime: "2026-01-02T03:04:05+01:00",
  });
  expect(await failureOf(collect(kube.log("p", { container: "c" })))).toMatchObject({
    status: 400,
    reason: "BadRequest",
  });
});

test("a log pulls: while nobody reads, the server cannot send on", async () => {
  const total = 512 * 1024 * 1024;
  let sent = 0;
  await using server = await scriptedServer((_, response) => {
    const chunk = Buffer.alloc(64 * 1024, 120);
    const more = () => {
      while (sent < total && response.write(chunk)) sent += chunk.length;
    };
    response.on("drain", more);
    more();
  });
  const log = server.kube().log("p", { container: "c" });
  await log.next();
  const stands = Promise.withResolvers<void>();
  let before = -1;
  const look = setInterval(() => {
    if (sent === before) stands.resolve();
    before = sent;
  }, 50);
  await stands.promise;
  clearInterval(look);
  expect(sent).toBeLessThan(total / 8);
  await log.return(undefined);
});

test("short reads come one after another over one connection, a followed log over its own", async () => {
  await using server = await scriptedServer((_, response) => {
    response.writeHead(200, { "content-type": "text/plain" });
    for (let count = 0; count < 1_000; count++) response.write(`${"x".repeat(127)}\n`);
    response.end();
  });
  const kube = server.kube();
  const pieces = [await collect(kube.log("p", { container: "c" })), await collect(kube.log("p", { container: "c" }))];
  const both = [collect(kube.log("p", { container: "c" })), collect(kube.log("p", { container: "c" }))];
  for (const each of [...pieces, ...(await Promise.all(both))]) {
    expect(Buffer.concat(each).length).toBe(128_000);
    expect(each.length).toBeLessThanOrEqual(3); // of 60 KiB at least, but for the last
  }
  await collect(kube.log("p", { container: "c", follow: true }));
  expect(server.seen.map(({ connection }) => connection)).toEqual([1, 1, 1, 2, 3]);
});

test("what the server closed in the meantime is not noticed by a short read, and a new connection that is lost is told", async () => {
  await using server = await scriptedServer(({ index }, response) => {
    if (index === 1 || index >= 3) response.socket?.destroy();
    else response.end("one\n");
  });
  const kube = server.kube();
  const read = async () => Buffer.concat(await collect(kube.log("p", { container: "c" }))).toString();
  expect(await read()).toBe("one\n");
  expect(await read()).toBe("one\n");
  expect(server.seen.map(({ connection }) => connection)).toEqual([1, 1, 2]);
  expect(await failureOf(read())).toMatchObject({ name: "KubeError", status: 0 });
});

test("a short read gives what had come before it was cut, and then fails", async () => {
  await using server = await scriptedServer(async (_, response) => {
    await begin(response, "one\n");
    response.socket?.destroy();
  });
  const pieces: string[] = [];
  const read = async () => {
    for await (const piece of server.kube().log("p", { container: "c" })) pieces.push(Buffer.from(piece).toString());
  };
  expect(await failureOf(read())).toMatchObject({ name: "KubeError", status: 0 });
  expect(pieces).toEqual(["one\n"]);
});

test("more streams than fetch allows at once do not keep out a request", async () => {
  await using server = await scriptedServer(async ({ path }, response) => {
    if (path.endsWith("/log")) return begin(response, "one\n");
    response.end(JSON.stringify(podObject("p", "1")));
  });
  const kube = server.kube();
  const controller = new AbortController();
  const logs = Array.from({ length: 300 }, () =>
    kube.log("p", { container: "c", follow: true, signal: controller.signal }),
  );
  await Promise.all(logs.map((log) => log.next()));
  expect((await kube.pods.get("p")).metadata?.name).toBe("p");
  controller.abort(new Error("enough"));
});

/** A server that answers each request with bytes, or does with its connection as it likes. It counts connections from 1. */
async function byteServer(answer: (seen: { index: number; request: string }, socket: Socket) => unknown) {
  const sockets = new Set<Socket>();
  const seen: { connection: number; request: string }[] = [];
  const server = createServer((socket) => {
    const connection = sockets.add(socket).size;
    let text = "";
    socket.on("error", () => undefined); // the client may reset
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      if (!text.endsWith("\r\n\r\n")) return;
      const one = { connection, request: text };
      text = "";
      answer({ index: seen.push(one) - 1, request: one.request }, socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // a TCP server's address is an object
  return {
    seen,
    sockets,
    kube: (token = "token") => {
      const access: Access = {
        server: new URL(`http://127.0.0.1:${port}`),
        source: "test",
        credentials: async () => ({ headers: { authorization: `Bearer ${token}` }, tls: {} }),
      };
      const timing = { watchOpenMs: 50, watchIdleMs: 5_000 };
      return new Kube({ access, namespace: "work", log: createLog({ level: "silent" }), timing });
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Bytes that tell their places apart. */
const patternOf = (length: number): Buffer =>
  Buffer.from(Uint8Array.from({ length }, (_, at) => (at * 31) ^ (at >> 8)));

/** An answer with this content, of a length or in chunks that end where `cuts` say. */
function answerOf(content: Buffer, cuts: readonly number[], isChunked: boolean): Buffer {
  if (!isChunked)
    return Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${content.length}\r\n\r\n`), content]);
  const chunks = piecesOf(content, cuts).filter(({ length }) => length > 0);
  return Buffer.concat([
    Buffer.from("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    ...chunks.flatMap((chunk) => [Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from("\r\n")]),
    Buffer.from("0\r\n\r\n"),
  ]);
}

/** The bytes, cut at each of `cuts`. */
function piecesOf(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const edges = [0, ...cuts.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge));
}

/** A transport that asks on a socket which leads nowhere: the test says what comes on it, once it was `asked`. */
function nowhere() {
  const transport = new Transport({
    access: {
      server: new URL("http://127.0.0.1:1"),
      source: "test",
      credentials: async () => ({ headers: {}, tls: {} }),
    },
  });
  const socket = new Socket();
  const asked = Promise.withResolvers<void>();
  socket.write = () => {
    asked.resolve();
    return true;
  };
  const { connections } = transport;
  connections.take = () => socket;
  const leave = connections.leave.bind(connections);
  connections.leave = (left, peer) => {
    expect(left.destroyed).toBe(false);
    leave(left, peer);
  };
  const path = resourcePath("work", "pods", "p", "log");
  const read = (signal?: AbortSignal) =>
    openStream(transport, { path, query: [], verb: "GET", short: true, gatherMs: Number.POSITIVE_INFINITY, signal });
  return { transport, socket, asked: asked.promise, read };
}

/** What a short read makes of bytes that come whether it has asked for more or not; it holds each piece for some turns. */
async function readUnasked(
  pieces: readonly Buffer[],
  holds: readonly number[],
  read: Buffer[] = [],
  after: (socket: Socket) => unknown = () => undefined,
): Promise<Buffer> {
  const { transport, socket, asked, read: reading } = nowhere();
  const come = async () => {
    await asked;
    for (const [index, piece] of pieces.entries()) {
      if (piece.length === 0) continue;
      const chunk = Buffer.allocUnsafeSlow(piece.length);
      piece.copy(chunk);
      socket.emit("data", chunk);
      if (index % 3 > 0) await turn();
    }
    after(socket);
  };
  const coming = come();
  for await (const piece of reading()) {
    const before = Buffer.from(piece);
    for (let turns = holds[read.length % holds.length] ?? 0; turns > 0; turns--) await turn();
    expect(before.equals(piece)).toBe(true);
    read.push(before);
  }
  await coming;
  transport.connections.drop();
  for (const piece of read.slice(0, -1)) expect(piece.length).toBeGreaterThanOrEqual(60 * 1024);
  for (const piece of read) expect(piece.length).toBeLessThanOrEqual(64 * 1024);
  return Buffer.concat(read);
}

test("a short read gives all in its order, and no piece changes while it is held, whatever comes meanwhile", async () => {
  const content = patternOf(700_000);
  const lengths = fc.oneof(fc.nat(20), fc.integer({ min: 65_000, max: 66_000 }), fc.nat(content.length));
  const cuts = fc.array(fc.nat(content.length), { maxLength: 24 });
  const holds = fc.array(fc.nat(6), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(lengths, cuts, cuts, holds, fc.boolean(), async (length, chunks, pieces, held, isChunked) => {
      const expected = content.subarray(0, length);
      const answer = answerOf(expected, chunks, isChunked);
      expect((await readUnasked(piecesOf(answer, pieces), held)).equals(expected)).toBe(true);
    }),
    { numRuns: 60 },
  );
});

test("whoever gives a read up gets the reason, and nothing of what had come before", async () => {
  const { socket, asked, read } = nowhere();
  const controller = new AbortController();
  const reading = read(controller.signal);
  const first = reading.next();
  await asked;
  socket.emit("data", answerOf(patternOf(300_000), [], false));
  expect((await first).value?.length).toBeGreaterThan(0);
  controller.abort(new Error("enough"));
  expect(await failureOf(reading.next())).toEqual(new Error("enough"));
});

test("what comes on a connection that waits for work closes it, and answers nothing", async () => {
  const gone = Promise.withResolvers<void>();
  const sockets: Socket[] = [];
  await using server = await byteServer((_, socket) => {
    sockets.push(socket);
    socket.on("close", () => gone.resolve());
    socket.write(ok);
  });
  const kube = server.kube();
  const read = async () => Buffer.concat(await collect(kube.log("p", { container: "c" }))).toString();
  expect(await read()).toBe("one\n");
  sockets[0]?.write("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n");
  await gone.promise;
  expect(await read()).toBe("one\n");
  expect(server.seen.map(({ connection }) => connection)).toEqual([1, 2]);
});

/** An answer of `length` bytes on a socket that leads nowhere; `say` lets some of it come, in a chunk of its own. */
function answerInParts(length: number, gatherMs: number) {
  const socket = new Socket();
  socket.write = () => true;
  let isPaused = false; // a socket that leads nowhere does not tell
  socket.pause = () => {
    isPaused = true;
    return socket;
  };
  socket.resume = () => {
    isPaused = false;
    return socket;
  };
  const incoming = new Incoming(socket, gatherMs, () => undefined);
  const say = (text: string) => socket.emit("data", Buffer.concat([Buffer.from(text)]));
  say(`HTTP/1.1 200 OK\r\ncontent-length: ${length}\r\n\r\n`);
  return { isPaused: () => isPaused, next: async () => Buffer.from((await incoming.next()) ?? []).toString(), say };
}

test("of a log that has flowed for long more is let come for a moment before it is read; of one that trickles, or is new, it is not", async () => {
  const { isPaused, next, say } = answerInParts(20_000_000, 3_600_000);
  say("x".repeat(5000));
  expect((await next()).length).toBe(5000);
  let piece = next();
  expect(isPaused()).toBe(false);
  say("x".repeat(17_000_000));
  let left = 17_000_000;
  for (; left >= 65_536; piece = next()) left -= (await piece).length;
  expect(isPaused()).toBe(true);
  await until("it is read again", () => !isPaused() || undefined);
  say("x".repeat(5000));
  expect(isPaused()).toBe(true);
  await until("it is read again", () => !isPaused() || undefined);
  say("x".repeat(100));
  expect(isPaused()).toBe(false);
  say("x".repeat(65_000));
  expect((await piece).length).toBeGreaterThan(left + 5100);
});

test("the first of many small chunks is given at once, and the others together", async () => {
  const { next, say } = answerInParts(200_000, 3_600_000);
  say("x".repeat(1000));
  expect((await next()).length).toBe(1000);
  const pieces: number[] = [];
  const reading = (async () => {
    for (let piece = await next(); piece !== ""; piece = await next()) pieces.push(piece.length);
  })();
  for (let index = 1; index < 200; index++) {
    say("x".repeat(1000));
    if (index % 7 === 0) await turn();
  }
  await reading;
  expect(pieces.reduce((sum, length) => sum + length)).toBe(199_000);
  for (const length of pieces.slice(0, -1)) expect(length).toBeGreaterThanOrEqual(60 * 1024);
});

test("small chunks are given although nothing more comes, also those that came while one was looked at", async () => {
  const { next, say } = answerInParts(10, 1);
  say("a");
  expect(await next()).toBe("a");
  for (const chunk of ["b", "c"]) {
    const piece = next();
    say(chunk);
    expect(await piece).toBe(chunk);
  }
  say("d");
  say("e");
  expect(await next()).toBe("de");
});

test.each([true, false])(
  "what came at once before its connection was lost is given, and its end told: whole %p",
  async (isWhole) => {
    const content = patternOf(300_000);
    const answer = answerOf(content, [7, 100, 70_000], true);
    const read: Buffer[] = [];
    const reading = readUnasked([isWhole ? answer : answer.subarray(0, -1)], [2], read, (socket) => socket.destroy());
    if (isWhole) await reading;
    else expect(await failureOf(reading)).toMatchObject({ name: "KubeError", status: 0 });
    expect(Buffer.concat(read).equals(content)).toBe(true);
  },
);

test.each([0, 1, 65_535, 65_536, 65_537, 98_304, 98_305, 3 * 1024 * 1024 + 17])(
  "a log of %d bytes is whole, whether the connection ends with it or not, and however slow its reader",
  async (length) => {
    const content = patternOf(length);
    await using server = await byteServer(async ({ index }, socket) => {
      const answer = answerOf(content, [7, 100, 70_000, 1_000_000], index % 2 === 1);
      for (const piece of piecesOf(answer, [3, 30, 90, 66_000, 300_000, 300_001])) {
        socket.write(piece);
        await turn();
      }
      if (index >= 2) socket.end();
    });
    const kube = server.kube();
    for (let index = 0; index < 4; index++) {
      const read: Buffer[] = [];
      for await (const piece of kube.log("p", { container: "c", follow: index % 2 === 1 && length < 100_000 })) {
        read.push(Buffer.from(piece));
        for (let turns = 0; turns < 3; turns++) await turn();
        expect(read.at(-1)?.equals(piece)).toBe(true);
      }
      expect(Buffer.concat(read).equals(content)).toBe(true);
    }
  },
);

const ok = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\none\n";

/** How a first read ends, whether the second one comes over its connection, and what the first is answered. */
const firstReads: [name: string, again: boolean, answer: string][] = [
  ["ended well", true, ok],
  ["was refused, with all of the reason", true, "HTTP/1.1 400 \r\ncontent-length: 2\r\n\r\n{}"],
  ["was refused, without a reason", true, "HTTP/1.1 503 \r\ncontent-length: 0\r\n\r\n"],
  ["was refused, with a reason too long", false, `HTTP/1.1 400 \r\ncontent-length: 70000\r\n\r\n${"x".repeat(69_999)}`],
  ["ended well and said that it closes", false, ok.replace("\r\n", "\r\nconnection: close\r\n")],
  ["ended well, of HTTP/1.0", false, ok.replace("1.1", "1.0")],
  ["ended with more than was asked for", false, `${ok}HTTP/1.1 200 OK\r\n`],
  ["was no answer", false, "HTTP/1.1 200 OK\r\na\r\n\r\n"],
  ["broke in the middle", false, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\nx\r\n"],
];

test.each(firstReads)("the connection of a read that %s is used again: %p", async (_, again, answer) => {
  await using server = await byteServer(({ index }, socket) => socket.write(index === 0 ? answer : ok));
  const kube = server.kube();
  const read = () => collect(kube.log("p", { container: "c" }));
  await read().catch((error) => expect(error).toHaveProperty("name", "KubeError"));
  expect(Buffer.concat(await read()).toString()).toBe("one\n");
  expect(server.seen.map(({ connection }) => connection)).toEqual([1, again ? 1 : 2]);
});

test("after a read that was left early the next one has a connection of its own, and that of the first is closed", async () => {
  const closed = Promise.withResolvers<void>();
  await using server = await byteServer(({ index }, socket) => {
    if (index === 0) socket.once("close", () => closed.resolve());
    socket.write(index === 0 ? ok.replace("4", "99999").replace("one", "x".repeat(70_000)) : ok);
  });
  const kube = server.kube();
  for await (const _ of kube.log("p", { container: "c" })) break;
  await closed.promise;
  expect(Buffer.concat(await collect(kube.log("p", { container: "c" }))).toString()).toBe("one\n");
  expect(server.seen.map(({ connection }) => connection)).toEqual([1, 2]);
});

test("a followed log that ends leaves no connection for a short read", async () => {
  await using server = await byteServer((_, socket) => socket.write(ok));
  const kube = server.kube();
  await collect(kube.log("p", { container: "c", follow: true }));
  await collect(kube.log("p", { container: "c" }));
  expect(server.seen.map(({ connection }) => connection)).toEqual([1, 2]);
});

test("a connection that is lost just when it is taken does not matter", async () => {
  await using server = await scriptedServer((_, response) => response.end("one\n"));
  const transport = new Transport({ access: server.access });
  const lost = new Socket().destroy();
  while (!lost.closed) await turn();
  transport.connections.take = () => lost;
  const path = resourcePath("work", "pods", "p", "log");
  const pieces = await collect(openStream(transport, { path, query: [], verb: "GET", short: true, openMs: 1_000 }));
  expect(Buffer.concat(pieces).toString()).toBe("one\n");
  transport.connections.drop();
});

test("a short read that nobody reads on takes no more from its connection", async () => {
  const bytes = answerOf(patternOf(32 * 1024 * 1024), [], false);
  await using server = await byteServer((_, socket) => socket.write(bytes));
  const log = server.kube().log("p", { container: "c" });
  await log.next();
  for (let turns = 0; turns < 500; turns++) await turn();
  const [end] = server.sockets;
  expect(end?.writableLength).toBeGreaterThan(0);
  await log.return(undefined);
});

test("a request says what it must and no more", async () => {
  await using server = await byteServer((_, socket) => socket.write(ok));
  await collect(server.kube().log("p", { container: "c d\r\n" }));
  const lines = server.seen[0]?.request.split("\r\n") ?? [];
  expect(lines[0]).toBe("GET /api/v1/namespaces/work/pods/p/log?container=c+d%0D%0A HTTP/1.1");
  expect(lines.slice(1).map((line) => line.replace(/(?<=:) .*/, ""))).toEqual([
    "host:",
    "authorization:",
    "accept:",
    "user-agent:",
    "",
    "",
  ]);
  expect(lines[2]).toBe("authorization: Bearer token");
});

test.each(["a\nx: y", "a\r\nx: y", "a\r", "\0", "\x7f", "\x80", "\u010a", "\u{1f600}"])(
  "a token that no header can hold, %j, is refused without a word of it, and nothing is sent",
  async (bad) => {
    await using server = await byteServer((_, socket) => socket.write(ok));
    const kube = server.kube(`secret${bad}`);
    for (const follow of [false, true]) {
      const error = await failureOf(collect(kube.log("p", { container: "c", follow })));
      expect(error).toMatchObject({ name: "KubeError", status: 0 });
      expect(Bun.inspect(error)).not.toContain("secret");
    }
    await collect(server.kube().log("p", { container: "c" }));
    expect(server.seen).toHaveLength(1);
    expect(server.sockets.size).toBe(1);
  },
);

test("a 401 is asked again once with new credentials, by a watch and by a log", async () => {
  await using server = await scriptedServer(({ headers }, response) => {
    response.writeHead(headers.authorization === "Bearer token-1" ? 200 : 401);
    response.end("one\n");
  });
  const kube = server.kube();
  expect(Buffer.concat(await collect(kube.log("p", { container: "c" }))).toString()).toBe("one\n");
  expect(server.renewed()).toBe(1);
  expect(server.seen).toHaveLength(2);
  await collect(kube.log("p", { container: "c", follow: true }));
  expect(server.renewed()).toBe(1);
});

test("a second 401 is told", async () => {
  await using server = await scriptedServer((_, response) => {
    response.writeHead(401);
    response.end();
  });
  for (const follow of [false, true]) {
    const error = await failureOf(collect(server.kube().log("p", { container: "c", follow })));
    expect(error).toMatchObject({ name: "KubeError", status: 401 });
  }
  expect(server.renewed()).toBe(2);
  expect(server.seen).toHaveLength(4);
});

test("a refusal is read up to 64 KiB, by a log as by a unary request", async () => {
  await using server = await scriptedServer((_, response) => {
    response.statusCode = 404;
    response.end(JSON.stringify(statusObject(404, "NotFound", "x".repeat(60_000))));
  });
  const kube = server.kube();
  for (const follow of [true, false])
    expect(await failureOf(collect(kube.log("p", { container: "c", follow })))).toMatchObject({ notFound: true });
  expect(await failureOf(kube.pods.get("p"))).toMatchObject({ notFound: true });
});

test("a refusal is told by its status when its body says nothing, or too much", async () => {
  const status = JSON.stringify(statusObject(410, "Expired", "y".repeat(100_000)));
  const answers = [
    "HTTP/1.1 503 \r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 503 \r\nretry-after: 7\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    `HTTP/1.1 410 \r\ncontent-length: ${status.length}\r\n\r\n${status}`,
    `HTTP/1.1 410 \r\n\r\n${status}`,
  ];
  await using server = await byteServer(({ index }, socket) => socket.write(answers[index >> 1] ?? ""));
  const kube = server.kube();
  for (const index of answers.keys()) {
    const expected = index < 2 ? { status: 503, retryAfterSeconds: 7 } : { status: 410, reason: "" };
    for (const follow of [false, true])
      expect(await failureOf(collect(kube.log("p", { container: "c", follow })))).toMatchObject(expected);
  }
});

test("a refusal that ends with its connection is told as any other", async () => {
  const status = (code: number, reason: string) => JSON.stringify(statusObject(code, reason, "why"));
  const answers = [
    "HTTP/1.0 503 Service Unavailable\r\nretry-after: 7\r\nconnection: close\r\n\r\n<html>",
    `HTTP/1.1 410 \r\n\r\n${status(410, "Expired")}`,
    `HTTP/1.0 401 \r\n\r\n${status(401, "Unauthorized")}`,
    `HTTP/1.1 403 \r\n\r\n${status(403, "Forbidden")}`,
  ];
  await using server = await byteServer(({ index }, socket) => socket.end(answers[index] ?? ""));
  const kube = server.kube();
  const log = () => failureOf(collect(kube.log("p", { container: "c", follow: false })));
  expect(await log()).toMatchObject({ status: 503, retryAfterSeconds: 7 });
  expect(await log()).toMatchObject({ status: 410, reason: "Expired", message: "why", gone: true });
  expect(await log()).toMatchObject({ status: 403, reason: "Forbidden" }); // asked again after the 401
  expect(server.seen).toHaveLength(4);
});

test("a refusal that is cut, or does not go on, is no answer", async () => {
  const start = `HTTP/1.1 403 \r\ncontent-length: 999\r\n\r\n{"kind":"Status"`;
  await using server = await byteServer(({ request }, socket) => {
    socket.write(start);
    if (request.includes("/log")) socket.end();
  });
  const kube = server.kube();
  for (const follow of [false, true]) {
    const error = await failureOf(collect(kube.log("p", { container: "c", follow })));
    expect(error).toMatchObject({ name: "KubeError", status: 0 });
  }
  const error = await failureOf(collect(kube.pods.watch({})));
  expect(error).toMatchObject({ status: 0, message: "no answer within 50 ms" });
});

test("whoever gives up before the head, or in the middle of a refusal, gets the reason, and the connection is closed", async () => {
  for (const start of ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 403 \r\ncontent-length: 9\r\n\r\n{"]) {
    const came = Promise.withResolvers<void>();
    const closed = Promise.withResolvers<void>();
    await using server = await byteServer((_, socket) => {
      socket.once("close", () => closed.resolve());
      socket.write(start);
      came.resolve();
    });
    const controller = new AbortController();
    const read = failureOf(collect(server.kube().log("p", { container: "c", signal: controller.signal })));
    await came.promise;
    await turn();
    const reason = new Error("enough");
    controller.abort(reason);
    expect(await read).toBe(reason);
    await closed.promise;
  }
});
