import { expect, test } from "bun:test";
import { once } from "node:events";
import { Code } from "@connectrpc/connect";
import { textPage } from "../../src/http.ts";
import { END_HEADERS, END_STREAM, frame, INITIAL_WINDOW, Type } from "../abuse/wire.ts";
import { http2Session, rawHttp2, startTestServer } from "../server/harness.ts";
import { until } from "../support/wait.ts";
import { call, DEFAULT_WINDOW, heads, last, MAX_FRAME, MAX_WINDOW, Peer, post, reset, room, serve } from "./client.ts";

/* Also for gRPC, which needs no exchange. */

const isDate = (text: string | undefined): boolean =>
  text !== undefined && !Number.isNaN(Date.parse(text)) && new Date(text).toUTCString() === text;

test.each(heads)("a handler of %s is held back by who reads slowly, and told when he goes", async (_name, open) => {
  const chunk = Buffer.alloc(16 * 1024);
  const over = Promise.withResolvers<void>();
  const signals: AbortSignal[] = [];
  let made = 0;
  await using server = await serve({
    async *streamWorkloadLogs(_, { signal }) {
      signals.push(signal);
      try {
        for (; made < 1_000; made++) yield { event: { case: "chunk", value: { data: chunk } } };
      } finally {
        over.resolve();
      }
    },
  });
  using peer = await Peer.to(server);
  await peer.send(open(1, "StreamWorkloadLogs"), last(1));
  await peer.until("the window is used", () => peer.bytes(1) === DEFAULT_WINDOW);
  await peer.settle();
  const before = made;
  expect(before * chunk.length).toBeLessThan(DEFAULT_WINDOW + 2 * chunk.length);
  await peer.send(room(0, 10 * chunk.length), room(1, 10 * chunk.length));
  await peer.until("more is used", () => peer.bytes(1) === DEFAULT_WINDOW + 10 * chunk.length);
  await peer.settle();
  expect(made).toBeGreaterThan(before);
  expect(made).toBeLessThan(before + 12);
  expect(signals.map(({ aborted }) => aborted)).toEqual([false]);
  await peer.send(reset(1));
  await over.promise;
  expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
  await peer.settle();
  expect(server.usage.current().streams).toBe(0);
});

test.each(heads)("a handler of %s is held back by who gives room and does not read", async (_name, open) => {
  const chunk = Buffer.alloc(256 * 1024);
  const most = 200; // more than the system takes from a peer that does not read
  let made = 0;
  await using server = await serve({
    async *streamWorkloadLogs() {
      for (; made < most; made++) yield { event: { case: "chunk", value: { data: chunk } } };
    },
  });
  using deaf = await Peer.to(server, [[INITIAL_WINDOW, MAX_WINDOW]]);
  using other = await Peer.to(server);
  await deaf.settle();
  deaf.socket.pause();
  await deaf.send(room(0, MAX_WINDOW - DEFAULT_WINDOW), open(1, "StreamWorkloadLogs"), last(1));
  await until("it makes them", () => made > 0 || undefined);
  await other.settle();
  expect(made).toBeLessThan(most);
  deaf.socket.resume();
  await deaf.answer(1);
  expect(made).toBe(most);
  expect(deaf.bytes(1)).toBeGreaterThan(most * chunk.length);
});

test.each(heads)("the signal of a call of %s fires when its caller goes", async (_name, open) => {
  await using server = await startTestServer();
  using peer = await Peer.to(server);
  await peer.send(open(1, "StreamWorkloadLogs"), last(1), open(3, "StreamWorkloadLogs"), last(3));
  const signals = [(await server.held()).signal, (await server.held()).signal];
  const aborted = signals.map((signal) => once(signal, "abort"));
  await peer.send(reset(1));
  await aborted[0];
  expect(signals.map((signal) => signal.aborted)).toEqual([true, false]);
  peer.socket.resetAndDestroy();
  await aborted[1];
  await until("all is given back", () => server.usage.current().streams === 0 || undefined);
});

test.each(heads)(
  "a handler of %s that waits for the next message hears that its caller has gone",
  async (_name, open) => {
    const waits = Promise.withResolvers<void>();
    const heard = Promise.withResolvers<unknown>();
    await using server = await serve({
      async *exec(requests) {
        try {
          waits.resolve();
          for await (const _ of requests) yield {};
          heard.resolve("the end");
        } catch (error) {
          heard.resolve(error);
        }
      },
    });
    using peer = await Peer.to(server);
    await peer.send(open(1, "Exec"));
    await waits.promise;
    await peer.settle();
    await peer.send(reset(1));
    expect(await heard.promise).toMatchObject({
      code: Code.Canceled,
      rawMessage: "the caller has gone (HTTP/2 code 8)",
    });
  },
);

test("a page is answered with its length and the date, and to HEAD without its body", async () => {
  await using server = await serve({}, { "/page": () => textPage(200, "hellö") });
  using session = await http2Session(server.baseUrl);
  const get = await rawHttp2(session, { ":method": "GET", ":path": "/page?x" });
  const peek = await rawHttp2(session, { ":method": "HEAD", ":path": "/page" });
  for (const { headers } of [get, peek]) {
    expect(headers).toMatchObject({ ":status": 200, "content-length": "7", "cache-control": "no-store" });
    expect(isDate(headers.date)).toBe(true);
  }
  expect([get.body.toString(), get.headersOnly]).toEqual(["hellö\n", false]);
  expect([peek.body.toString(), peek.headersOnly]).toEqual(["", true]);
});

test("an answer of Connect has the date", async () => {
  await using server = await startTestServer();
  using peer = await Peer.to(server);
  await peer.send(post(1, "Ready", "application/json"), frame(Type.DATA, END_STREAM, 1, Buffer.from("{}")));
  const { date } = await peer.answer(1);
  expect(isDate(date)).toBe(true);
  expect(JSON.parse(peer.content(1).toString())).toEqual({ status: "ok" });
});

test("header fields that no frame holds arrive whole", async () => {
  const [much, more] = ["a".repeat(40_000), "b".repeat(20_000)];
  await using server = await serve({
    ready(_, { responseHeader, responseTrailer }) {
      responseHeader.set("x-much", much);
      responseTrailer.set("x-more", more);
      return { status: "ok" };
    },
  });
  using peer = await Peer.to(server);
  await peer.send(call(1, "Ready"), post(3, "Ready", "application/proto"), frame(Type.DATA, END_STREAM, 3));
  expect(await peer.answer(1)).toMatchObject({
    ":status": "200",
    "x-much": much,
    "x-more": more,
    "grpc-status": "0",
  });
  expect(await peer.answer(3)).toMatchObject({ ":status": "200", "x-much": much, "trailer-x-more": more });
  const { frames } = peer;
  expect(Math.max(...frames.map(({ payload }) => payload.length))).toBe(MAX_FRAME);
  frames.forEach(({ type, stream }, index) => {
    if (type !== Type.CONTINUATION) return;
    const before = frames[index - 1]; // nothing may come in between
    expect(before?.stream).toBe(stream);
    expect(before?.type === Type.HEADERS || before?.type === Type.CONTINUATION).toBe(true);
    expect((before?.flags ?? 0) & END_HEADERS).toBe(0);
  });
});
