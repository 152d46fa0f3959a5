import { describe, expect, spyOn, test } from "bun:test";
import { Socket } from "node:net";
import { Code } from "@connectrpc/connect";
import fc from "fast-check";
import { type Envelope, Envelopes, OnlyEnvelope } from "../../src/grpc/envelopes.ts";
import { FrameType } from "../../src/http2/frame.ts";
import { Http2Stream, STREAM_WINDOW, type StreamOwner } from "../../src/http2/stream.ts";
import { Writer } from "../../src/http2/writer.ts";
import { releaseRead } from "../../src/memory.ts";
import { envelope } from "../abuse/wire.ts";

const LIMIT = 1024 * 1024;
const head = { method: "POST", scheme: "http", authority: "", path: "/", headers: {}, contentLength: undefined };

/** Sends nothing, and sums up the room that is given. */
class Room extends Writer {
  bytes = 0;

  override send(frame: Buffer<ArrayBuffer>): void {
    if (frame[3] === FrameType.WINDOW_UPDATE) this.bytes += frame.readUInt32BE(9);
  }
}

/** A stream on which a client sends. */
function openStream() {
  const room = new Room(new Socket());
  const owner: StreamOwner = {
    writer: room,
    sendWindow: 0,
    sent: () => undefined,
    told: (block) => block,
    answered: () => undefined,
    waits: () => undefined,
    closed: () => undefined,
  };
  const stream = new Http2Stream(1, head, owner, 0);
  return {
    stream,
    room,
    /** Each chunk is gone once it was taken, but for what is kept. */
    send: (...chunks: Uint8Array[]) => {
      for (const chunk of chunks) {
        const read = Buffer.from(new Uint8Array(chunk).buffer);
        stream.take(read, chunk.length);
        releaseRead(read);
      }
    },
    end: () => stream.complete(),
  };
}

/** Its messages. */
function open(limit = LIMIT) {
  const { stream, ...client } = openStream();
  const envelopes = new Envelopes(stream, limit);
  return {
    ...client,
    envelopes,
    text: async () => (await envelopes.next())?.data.toString(),
  };
}

/** Those that are left. */
async function all(envelopes: Envelopes): Promise<Envelope[]> {
  const messages: Envelope[] = [];
  for (let next = await envelopes.next(); next !== undefined; next = await envelopes.next()) messages.push(next);
  return messages;
}

const message = (text: string) => envelope(Buffer.from(text));
const announced = (length: number) => envelope(Buffer.alloc(0), { length });
const isPending = (promise: Promise<unknown>) =>
  Promise.race([promise, new Promise((resolve) => setImmediate(resolve, "pending"))]).then((it) => it === "pending");

test("messages are the same, wherever their bytes are cut and whenever they are asked for", async () => {
  const length = fc.oneof(fc.nat(10), fc.nat(10_000));
  const one = fc.record({ compressed: fc.boolean(), length, fill: fc.nat(255) });
  const given = fc.record({ messages: fc.array(one, { maxLength: 8 }), cuts: fc.array(fc.nat(), { maxLength: 12 }) });
  await fc.assert(
    fc.asyncProperty(given, fc.boolean(), async ({ messages, cuts }, isEager) => {
      const expected = messages.map(({ compressed, length, fill }) => ({
        compressed,
        data: Buffer.alloc(length, fill),
      }));
      const bytes = Buffer.concat(
        expected.map(({ compressed, data }) => envelope(data, { flags: compressed ? 1 : 0 })),
      );
      const ends = cuts.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b);
      const { envelopes, send, end } = open();
      const early = isEager ? all(envelopes) : undefined;
      for (const [index, at] of [...ends, bytes.length].entries()) {
        send(bytes.subarray(ends[index - 1] ?? 0, at));
        if (index % 2 === 0) await undefined;
      }
      end();
      expect(await (early ?? all(envelopes))).toEqual(expected);
    }),
  );
});

test("a message is there with its last byte, and not before", async () => {
  const { send, text } = open();
  const bytes = message("hello");
  const next = text();
  for (const byte of bytes.subarray(0, -1)) send(Buffer.of(byte));
  expect(await isPending(next)).toBe(true);
  send(bytes.subarray(-1));
  expect(await next).toBe("hello");
});

test("after the last there is none, however often it is asked for", async () => {
  const { send, end, text } = open();
  send(message("a"), message(""));
  end();
  expect([await text(), await text(), await text(), await text()]).toEqual(["a", "", undefined, undefined]);
  const waiting = open();
  const next = waiting.text();
  waiting.end();
  expect(await next).toBeUndefined();
});

describe("a request that ends within a message", () => {
  test.each([
    ["its prefix", message("hello").subarray(0, 4)],
    ["its content", message("hello").subarray(0, -1)],
    ["its prefix and no more", announced(1)],
  ])("fails with INVALID_ARGUMENT after those before: in %s", async (_, rest) => {
    for (const isEager of [false, true]) {
      const { send, end, text } = open();
      send(message("first"));
      expect(await text()).toBe("first");
      const early = isEager ? text() : undefined;
      send(rest);
      end();
      const failure = expect(early ?? text()).rejects;
      await failure.toMatchObject({ code: Code.InvalidArgument, rawMessage: "protocol error: incomplete envelope" });
    }
  });

  test("has its whole ones first", async () => {
    const { send, end, text } = open();
    send(Buffer.concat([message("first"), message("second"), message("third").subarray(0, -1)]));
    end();
    expect([await text(), await text()]).toEqual(["first", "second"]);
    await expect(text()).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

describe("a message that is too large", () => {
  const limit = 10;
  const refused = {
    code: Code.ResourceExhausted,
    rawMessage: "message size 11 is larger than configured readMaxBytes 10",
  };

  test("fails with RESOURCE_EXHAUSTED with its prefix, after those before were taken", async () => {
    const { send, text } = open(limit);
    send(Buffer.concat([message("first"), message("x".repeat(limit)), announced(limit + 1), message("last")]));
    expect([await text(), await text()]).toEqual(["first", "x".repeat(limit)]);
    await expect(text()).rejects.toMatchObject(refused);
    await expect(text()).rejects.toMatchObject(refused);
  });

  test("fails for who waits for it", async () => {
    const { send, end, text } = open(limit);
    const next = text();
    send(announced(limit + 1).subarray(0, 4));
    expect(await isPending(next)).toBe(true);
    send(announced(limit + 1).subarray(4));
    await expect(next).rejects.toMatchObject(refused);
    send(message("more"));
    end();
    await expect(text()).rejects.toMatchObject(refused);
  });

  test("is given no room, nor is what comes behind it", async () => {
    const { send, text, room } = open(limit);
    const next = text();
    send(announced(limit + 1));
    await expect(next).rejects.toMatchObject(refused);
    for (let sent = 0; sent < STREAM_WINDOW; sent += 1024) send(Buffer.alloc(1024));
    expect(room.bytes).toBe(0);
  });
});

describe("messages that have failed", () => {
  test("fail for who waits, and for who asks later, by the first reason; what has come is dropped", async () => {
    const { envelopes, send, end, text } = open();
    const next = text();
    envelopes.fail("the first");
    await expect(next).rejects.toBe("the first");
    envelopes.fail("the second");
    send(message("late"));
    end();
    await expect(text()).rejects.toBe("the first");
    const other = open();
    other.send(message("early"));
    other.envelopes.fail("the first");
    await expect(other.text()).rejects.toBe("the first");
  });

  test("take back none that was given before", async () => {
    const { envelopes, send, text } = open();
    send(message("early"));
    const early = text();
    envelopes.fail("too late");
    expect(await early).toBe("early");
  });
});

describe("who sends is given room", () => {
  const part = message("x".repeat(8 * 1024 - 5));
  const parts = (bytes: number) => Array<Buffer>(bytes / part.length).fill(part);

  test("not while enough waits, and again once it is taken", async () => {
    for (const messages of [parts(STREAM_WINDOW), Array<Buffer>(STREAM_WINDOW / 4096).fill(Buffer.alloc(4096))]) {
      const { envelopes, send, room } = open();
      send(...messages);
      expect(room.bytes).toBe(0);
      const count = Math.floor(STREAM_WINDOW / (messages[0] === part ? part.length : 5));
      for (let taken = 0; taken < count; taken++) await envelopes.next();
      expect(await isPending(envelopes.next())).toBe(true);
      expect(room.bytes).toBe(STREAM_WINDOW);
    }
  });

  test("while little waits", async () => {
    const { send, text, room } = open();
    for (let sent = 0; sent < 2 * STREAM_WINDOW; sent += part.length) {
      send(part);
      expect(await text()).toHaveLength(part.length - 5);
    }
    expect(room.bytes).toBe(2 * STREAM_WINDOW);
  });

  test.each([
    ["that nobody waits for", false],
    ["that is waited for, behind others that have held it back", true],
  ])("for a message that is larger than all room there is: one %s", async (_, isBehind) => {
    const { send, text, room } = open();
    const before = isBehind ? parts(72 * 1024) : [];
    send(...before);
    for (const _ of before) await text();
    const early = isBehind ? text() : undefined;
    const large = message("x".repeat(3 * STREAM_WINDOW));
    let sent = 0;
    while (sent < large.length) {
      const left = STREAM_WINDOW + room.bytes - before.length * part.length - sent;
      expect(left).toBeGreaterThan(0);
      const bytes = large.subarray(sent, sent + Math.min(16 * 1024, left));
      send(bytes);
      sent += bytes.length;
    }
    expect(await (early ?? text())).toHaveLength(large.length - 5);
  });
});

describe("a message that has to be the only one", () => {
  /** What came of it: its bytes, or why there is none. */
  function openOnly(limit = LIMIT) {
    const { stream, ...client } = openStream();
    const told: unknown[] = [];
    const only = new OnlyEnvelope(stream, limit, {
      received: (frame) => told.push(frame),
      failed: (reason) => told.push(reason),
    });
    return { ...client, only, told };
  }
  /** Bytes that are like no others near them. */
  const content = (length: number) => Buffer.from(Uint8Array.from({ length }, (_, index) => index + (index >> 8)));
  const LARGE = 256 * 1024;

  test("is the same, whatever its length and wherever it is cut", async () => {
    const length = fc.oneof(fc.nat(10), fc.nat(10_000), fc.integer({ min: LARGE - 10, max: LIMIT }));
    await fc.assert(
      fc.property(length, fc.array(fc.nat(), { maxLength: 12 }), (length, cuts) => {
        const bytes = envelope(content(length));
        const ends = cuts.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b);
        const { send, end, told } = openOnly();
        for (const [index, at] of [...ends, bytes.length].entries()) send(bytes.subarray(ends[index - 1] ?? 0, at));
        expect(told).toEqual([]);
        end();
        expect(told).toHaveLength(1);
        expect(Buffer.compare(told[0] as Buffer, bytes)).toBe(0);
      }),
    );
  });

  test("is given memory and room for all of it when it is large, once a sixteenth of it is here", () => {
    const bytes = envelope(content(LIMIT));
    const part = Math.ceil(bytes.length / 16);
    const { send, end, told, room } = openOnly();
    using allocated = spyOn(Buffer, "allocUnsafeSlow");
    const lengths = () => allocated.mock.calls.map(([length]) => length);
    send(bytes.subarray(0, part - 1));
    expect([lengths(), room.bytes]).toEqual([[], 0]);
    send(bytes.subarray(part - 1, part));
    expect([lengths(), room.bytes]).toEqual([[bytes.length], bytes.length - part]);
    send(bytes.subarray(part));
    end();
    expect(lengths()).toEqual([bytes.length]);
    expect((told[0] as Buffer).buffer.byteLength).toBe(bytes.length);
  });

  test("is given neither when it is not large, or is over", () => {
    const { send, room } = openOnly();
    using allocated = spyOn(Buffer, "allocUnsafeSlow");
    send(envelope(content(LARGE - 5)));
    const { only, ...other } = openOnly();
    other.send(announced(LIMIT));
    only.fail("gone");
    other.send(content(LIMIT / 4 - 5));
    expect([allocated.mock.calls, room.bytes, other.room.bytes, other.told]).toEqual([
      [],
      STREAM_WINDOW,
      STREAM_WINDOW,
      ["gone"],
    ]);
  });

  test.each([10, LIMIT])("fails when it is cut short, or another follows: one of %i bytes", (length) => {
    const bytes = envelope(content(length));
    const cut = openOnly();
    cut.send(bytes.subarray(0, -1));
    cut.end();
    expect(cut.told).toMatchObject([{ code: Code.InvalidArgument, rawMessage: "protocol error: incomplete envelope" }]);
    const extra = {
      code: Code.Unimplemented,
      rawMessage: "protocol error: received extra input message for unary method",
    };
    for (const at of [bytes.length - 1, bytes.length]) {
      const { send, end, told } = openOnly();
      send(bytes.subarray(0, at), Buffer.concat([bytes.subarray(at), Buffer.alloc(1)]));
      expect(told).toMatchObject([extra]);
      send(Buffer.alloc(1));
      end();
      expect(told).toHaveLength(1);
    }
  });
});
