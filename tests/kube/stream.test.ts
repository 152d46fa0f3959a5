import { expect, test } from "bun:test";
import type http from "node:http";
import { linesOf } from "../../src/kube/stream.ts";
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
    expect(each.length).toBeLessThanOrEqual(4); // of 32 KiB at least, but for the last
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
