import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { FindWorkloadsByLabelsResponseSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { ErrorCode } from "../../src/http2/frame.ts";
import { END_STREAM, envelope, frame, INITIAL_WINDOW, settings, Type } from "../abuse/wire.ts";
import { startTestServer } from "../server/harness.ts";
import {
  call,
  DEFAULT_WINDOW,
  data,
  head,
  heads,
  input,
  MAX_FRAME,
  MAX_WINDOW,
  PADDED,
  Peer,
  room,
  STREAM_WINDOW,
  serve,
} from "./client.ts";

/** What the test server's FindWorkloadsByLabels answers, as it travels. */
const found = envelope(
  toBinary(
    FindWorkloadsByLabelsResponseSchema,
    create(FindWorkloadsByLabelsResponseSchema, { targetIds: ["x".repeat(200 * 1024)] }),
  ),
);

describe("sending", () => {
  test("a stream is sent what its window holds, and goes on when it gets more", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server, [[INITIAL_WINDOW, 1_000]]);
    await peer.send(call(1, "FindWorkloadsByLabels"));
    await peer.until("the window is used", () => peer.bytes(1) >= 1_000);
    await peer.settle();
    expect(peer.bytes(1)).toBe(1_000);
    await peer.send(room(1, 500));
    await peer.until("more is used", () => peer.bytes(1) >= 1_500);
    await peer.settle();
    expect(peer.bytes(1)).toBe(1_500);
    await peer.send(room(0, MAX_WINDOW - DEFAULT_WINDOW), room(1, MAX_WINDOW));
    expect(await peer.answer(1)).toMatchObject({ ":status": "200", "grpc-status": "0" });
    expect(peer.content(1).equals(found)).toBe(true);
    expect(Math.max(...peer.on(1).map(({ payload }) => payload.length))).toBeLessThanOrEqual(MAX_FRAME);
  });

  test("all streams together are sent what the connection's window holds, and go on when it gets more", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server, [[INITIAL_WINDOW, MAX_WINDOW]]);
    await peer.send(call(1, "FindWorkloadsByLabels"));
    await peer.until("the window is used", () => peer.bytes(1) >= DEFAULT_WINDOW);
    await peer.send(call(3, "FindWorkloadsByLabels"));
    await peer.settle();
    expect([peer.bytes(1), peer.bytes(3)]).toEqual([DEFAULT_WINDOW, 0]);
    expect(peer.fields(3)).toMatchObject({ ":status": "200" }); // needs no window
    await peer.send(room(0, 100));
    await peer.until("more is used", () => peer.bytes(1) + peer.bytes(3) >= DEFAULT_WINDOW + 100);
    await peer.settle();
    expect(peer.bytes(1) + peer.bytes(3)).toBe(DEFAULT_WINDOW + 100);
    await peer.send(room(0, MAX_WINDOW));
    for (const stream of [1, 3]) {
      expect(await peer.answer(stream)).toMatchObject({ "grpc-status": "0" });
      expect(peer.content(stream).equals(found)).toBe(true);
    }
  });

  test("a short answer waits for room as well, its end does not", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server, [[INITIAL_WINDOW, 0]]);
    const answer = envelope(Buffer.from("\x0a\x02ok"));
    await peer.send(call(1, "Ready"));
    await peer.settle();
    expect([peer.fields(1)[":status"], peer.bytes(1)]).toEqual(["200", 0]);
    await peer.send(room(1, answer.length - 1));
    await peer.settle();
    expect([peer.fields(1)["grpc-status"], peer.bytes(1)]).toEqual([undefined, answer.length - 1]);
    await peer.send(room(1, 1));
    expect(await peer.answer(1)).toMatchObject({ "grpc-status": "0" });
    expect(peer.content(1).equals(answer)).toBe(true);
  });

  test("a new INITIAL_WINDOW_SIZE holds for open streams, also one that leaves less than nothing", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server, [[INITIAL_WINDOW, 100]]);
    await peer.send(call(1, "FindWorkloadsByLabels"));
    await peer.until("the window is used", () => peer.bytes(1) >= 100);
    await peer.send(settings([[INITIAL_WINDOW, 10]]), room(1, 90)); // 90 too many, then none
    await peer.settle();
    expect(peer.bytes(1)).toBe(100);
    await peer.send(room(1, 1));
    await peer.settle();
    expect(peer.bytes(1)).toBe(101);
    await peer.send(settings([[INITIAL_WINDOW, 30]]));
    await peer.settle();
    expect(peer.bytes(1)).toBe(121);
    await peer.send(call(3, "FindWorkloadsByLabels"));
    await peer.settle();
    expect([peer.bytes(1), peer.bytes(3)]).toEqual([121, 30]);
  });

  test("streams that wait for the connection's window get it in turns", async () => {
    await using server = await startTestServer();
    using peer = await Peer.to(server, [[INITIAL_WINDOW, MAX_WINDOW]]);
    await peer.send(call(1, "FindWorkloadsByLabels"));
    await peer.until("the window is used", () => peer.bytes(1) === DEFAULT_WINDOW);
    await peer.send(call(3, "FindWorkloadsByLabels"), call(5, "FindWorkloadsByLabels"));
    await peer.settle();
    const bytes = () => [1, 3, 5].map((stream) => peer.bytes(stream));
    for (const each of [10, 20]) {
      await peer.send(room(0, 10), room(0, 10), room(0, 10));
      await peer.settle();
      expect(bytes()).toEqual([DEFAULT_WINDOW + each, each, each]);
    }
  });

  test("streams that wait for the client to read go on all together", async () => {
    const chunk = Buffer.alloc(256 * 1024);
    await using server = await serve({
      async *streamWorkloadLogs() {
        for (let count = 0; count < 32; count++) yield { event: { case: "chunk", value: { data: chunk } } };
      },
    });
    using peer = await Peer.to(server, [[INITIAL_WINDOW, MAX_WINDOW]]);
    const streams = [1, 3, 5];
    await peer.send(room(0, MAX_WINDOW - DEFAULT_WINDOW), ...streams.map((each) => call(each, "StreamWorkloadLogs")));
    for (const stream of streams) expect(await peer.answer(stream)).toMatchObject({ "grpc-status": "0" });
    const { frames } = peer;
    const firstEnd = frames.findIndex(({ type, flags }) => type === Type.HEADERS && (flags & END_STREAM) !== 0);
    for (const stream of streams) {
      const before = frames.slice(0, firstEnd).filter((each) => each.stream === stream && each.type === Type.DATA);
      const bytes = before.reduce((sum, { payload }) => sum + payload.length, 0);
      expect(bytes).toBeGreaterThan(peer.bytes(stream) / 4);
    }
  });
});

describe("receiving", () => {
  /** Its Exec reads nothing until it is told to, and then all. */
  async function deaf() {
    const listen = Promise.withResolvers<void>();
    const server = await serve({
      ready: () => ({ status: "ok" }),
      async *exec(requests) {
        await listen.promise;
        for await (const _ of requests);
        yield {};
      },
    });
    return { ...server, listen: listen.resolve };
  }

  test.each(heads)("a handler of %s that does not read is sent its window and no more", async (_name, open) => {
    await using server = await deaf();
    using peer = await Peer.to(server);
    await peer.send(open(1, "Exec"), data(1, input(STREAM_WINDOW)));
    await peer.settle();
    expect([peer.room(1), peer.resets]).toEqual([0, []]);
    server.listen();
    await peer.until("there is room again", () => peer.room(1) >= STREAM_WINDOW);
    expect(peer.room(1)).toBe(STREAM_WINDOW);
    await peer.send(data(1, input(STREAM_WINDOW)));
    await peer.settle();
    expect(peer.resets).toEqual([]);
  });

  test.each(heads)("more than the window resets a stream of %s, and it alone", async (_name, open) => {
    await using server = await deaf();
    using peer = await Peer.to(server);
    await peer.send(open(1, "Exec"), open(3, "Exec"), data(1, input(STREAM_WINDOW)), data(1, Buffer.alloc(1)));
    await peer.settle();
    expect(peer.resets).toEqual([[1, ErrorCode.FLOW_CONTROL_ERROR]]);
    await peer.send(call(5, "Ready"));
    expect(await peer.answer(5)).toMatchObject({ "grpc-status": "0" });
    expect(server.usage.current().streams).toBe(1);
    server.listen();
  });

  test("what fills frames up counts", async () => {
    await using server = await deaf();
    using peer = await Peer.to(server);
    const padding = 255;
    const bytes = MAX_FRAME - 1 - padding;
    const count = STREAM_WINDOW / MAX_FRAME;
    const content = input(count * bytes);
    const padded = Array.from({ length: count }, (_, index) => {
      const part = content.subarray(index * bytes, (index + 1) * bytes);
      return frame(Type.DATA, PADDED, 1, Buffer.concat([Buffer.from([padding]), part, Buffer.alloc(padding)]));
    });
    await peer.send(head(1, "Exec"), ...padded);
    await peer.settle();
    expect([peer.room(1), peer.resets]).toEqual([0, []]);
    server.listen();
    await peer.until("there is room again", () => peer.room(1) >= count * bytes);
    expect(peer.room(1)).toBe(STREAM_WINDOW);
  });

  test("what fills frames up is no room to spare", async () => {
    await using server = await deaf();
    using peer = await Peer.to(server);
    const padded = frame(Type.DATA, PADDED, 1, Buffer.from([0]));
    await peer.send(head(1, "Exec"), data(1, input(STREAM_WINDOW)), padded); // of nothing but its length
    await peer.settle();
    expect(peer.resets).toEqual([[1, ErrorCode.FLOW_CONTROL_ERROR]]);
    server.listen();
  });

  test("handlers that do not read do not hold up their neighbours", async () => {
    await using server = await deaf();
    using peer = await Peer.to(server);
    let sent = 0;
    // More in all than the connection has room for at once.
    for (const stream of [1, 3, 5, 7, 9, 11]) {
      await peer.send(head(stream, "Exec"), data(stream, input(STREAM_WINDOW)));
      sent += STREAM_WINDOW;
      await peer.settle();
      expect(DEFAULT_WINDOW + peer.room(0) - sent).toBeGreaterThan(STREAM_WINDOW);
    }
    await peer.send(call(13, "Ready"));
    expect(await peer.answer(13)).toMatchObject({ "grpc-status": "0" });
    expect(peer.resets).toEqual([]);
    server.listen();
  });
});
