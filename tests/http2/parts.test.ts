import { describe, expect, test } from "bun:test";
import { Socket } from "node:net";
import fc from "fast-check";
import { ConnectionError, ErrorCode, Setting } from "../../src/http2/frame.ts";
import { encodeHeaders, HeaderDecoder } from "../../src/http2/hpack.ts";
import { Recent } from "../../src/http2/recent.ts";
import { PeerSettings } from "../../src/http2/settings.ts";
import { Http2Stream, type StreamOwner } from "../../src/http2/stream.ts";
import { Streams } from "../../src/http2/streams.ts";
import { Writer } from "../../src/http2/writer.ts";
import { settings } from "../abuse/wire.ts";

describe("the streams that ended last", () => {
  test("are known with whether the server has reset them", () => {
    const recent = new Recent();
    expect(recent.wasReset(1)).toBeUndefined();
    recent.add(1, true);
    recent.add(3, false);
    recent.add(2 ** 31 - 1, true);
    expect([1, 3, 5, 2 ** 31 - 1].map((id) => recent.wasReset(id))).toEqual([true, false, undefined, true]);
  });

  test("are 256, and the first is forgotten for another", () => {
    const recent = new Recent();
    const known = () =>
      Array.from({ length: 600 }, (_, id) => id + 1).filter((id) => recent.wasReset(id) !== undefined);
    for (let id = 1; id <= 600; id++) {
      recent.add(id, id % 3 === 0);
      if (id === 256) expect(known()).toHaveLength(256);
      if (id === 257) expect(recent.wasReset(1)).toBeUndefined();
    }
    expect(known()).toEqual(Array.from({ length: 256 }, (_, index) => index + 345));
    for (const id of known()) expect(recent.wasReset(id)).toBe(id % 3 === 0);
  });

  test("are not the connection itself", () => {
    const recent = new Recent();
    expect(recent.wasReset(0)).toBeUndefined();
    for (let id = 1; id <= 1_000; id++) recent.add(id, true);
    expect(recent.wasReset(0)).toBeUndefined();
  });
});

describe("the streams that are open", () => {
  const owner: StreamOwner = {
    writer: new Writer(new Socket()),
    sendWindow: 0,
    sent: () => undefined,
    told: (block) => block,
    answered: () => undefined,
    waits: () => undefined,
    closed: () => undefined,
  };
  const head = { method: "GET", scheme: "http", authority: "", path: "/", headers: {}, contentLength: undefined };
  const streamOf = (id: number) => new Http2Stream(id, head, owner, 0);
  const idsOf = (streams: readonly Http2Stream[]) => streams.map(({ id }) => id);

  function opened(...ids: number[]): Streams {
    const streams = new Streams();
    for (const id of ids) streams.add(streamOf(id));
    return streams;
  }

  test("are found by their ids", () => {
    const [first, second] = [streamOf(3), streamOf(7)];
    const streams = new Streams();
    streams.add(first);
    streams.add(second);
    expect([0, 1, 3, 5, 7, 9].map((id) => streams.get(id))).toEqual([
      undefined,
      undefined,
      first,
      undefined,
      second,
      undefined,
    ]);
    expect(streams.get(3)).toBe(first);
    expect(new Streams().get(1)).toBeUndefined();
  });

  test("come in their order", () => {
    expect(idsOf(opened(1, 5, 9, 11).all())).toEqual([1, 5, 9, 11]);
    expect(opened().all()).toEqual([]);
  });

  test("may end and begin while they are gone through", () => {
    const streams = opened(1, 3, 5, 7);
    const seen: number[] = [];
    for (const stream of streams.all()) {
      seen.push(stream.id);
      streams.delete(stream);
      streams.add(streamOf(stream.id + 8));
    }
    expect(seen).toEqual([1, 3, 5, 7]);
    expect(idsOf(streams.all())).toEqual([9, 11, 13, 15]);
  });

  test("stay when one ends that is not among them", () => {
    const streams = opened(1, 5);
    for (const id of [0, 3, 7]) streams.delete(streamOf(id));
    expect(idsOf(streams.all())).toEqual([1, 5]);
  });

  test("are what a map would hold, whatever opens and ends", () => {
    const step = fc.record({ opens: fc.boolean(), id: fc.integer({ min: 1, max: 20 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const streams = new Streams();
        const map = new Map<number, Http2Stream>();
        let last = 0;
        for (const { opens, id } of steps) {
          if (opens) {
            last += id;
            const stream = streamOf(last);
            streams.add(stream);
            map.set(last, stream);
          } else {
            streams.delete(map.get(id) ?? streamOf(id));
            map.delete(id);
          }
          expect(streams.size).toBe(map.size);
        }
        for (let id = 0; id <= last + 1; id++) expect(streams.get(id)).toBe(map.get(id));
        expect(idsOf(streams.all())).toEqual([...map.keys()]);
      }),
    );
  });
});

describe("what a client says of itself", () => {
  const { HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE } = Setting;
  const payloadOf = (values: Parameters<typeof settings>[0]) => settings(values).subarray(9);

  function said(...values: (readonly [id: number, value: number])[]): PeerSettings {
    const peer = new PeerSettings();
    peer.take(payloadOf(values));
    return peer;
  }

  test("is the window of its streams, of which the last word counts", () => {
    expect(new PeerSettings().initialWindow).toBe(65_535);
    expect(said().initialWindow).toBe(65_535);
    expect(said([INITIAL_WINDOW_SIZE, 0]).initialWindow).toBe(0);
    expect(said([INITIAL_WINDOW_SIZE, 2 ** 31 - 1]).initialWindow).toBe(2 ** 31 - 1);
    const peer = said([INITIAL_WINDOW_SIZE, 1], [MAX_CONCURRENT_STREAMS, 5], [INITIAL_WINDOW_SIZE, 2]);
    expect(peer.initialWindow).toBe(2);
    peer.take(payloadOf([[ENABLE_PUSH, 0]]));
    expect(peer.initialWindow).toBe(2);
  });

  test.each([
    ["a window", INITIAL_WINDOW_SIZE, 2 ** 31, ErrorCode.FLOW_CONTROL_ERROR],
    ["a window", INITIAL_WINDOW_SIZE, 2 ** 32 - 1, ErrorCode.FLOW_CONTROL_ERROR],
    ["a push", ENABLE_PUSH, 2, ErrorCode.PROTOCOL_ERROR],
    ["a size of frames", MAX_FRAME_SIZE, 16_383, ErrorCode.PROTOCOL_ERROR],
    ["a size of frames", MAX_FRAME_SIZE, 0, ErrorCode.PROTOCOL_ERROR],
    ["a size of frames", MAX_FRAME_SIZE, 2 ** 24, ErrorCode.PROTOCOL_ERROR],
  ])("is not %s (%d) of %d", (_, id, value, code) => {
    const failure = expect(() => said([MAX_CONCURRENT_STREAMS, 1], [id, value]));
    failure.toThrow(ConnectionError);
    failure.toThrow(expect.objectContaining({ code }));
  });

  test("may be of any other value, and what nobody knows", () => {
    const values = [
      [ENABLE_PUSH, 0],
      [ENABLE_PUSH, 1],
      [MAX_FRAME_SIZE, 16_384],
      [MAX_FRAME_SIZE, 2 ** 24 - 1],
      [MAX_CONCURRENT_STREAMS, 0],
      [HEADER_TABLE_SIZE, 2 ** 32 - 1],
      [0, 2 ** 32 - 1],
      [0xffff, 2 ** 32 - 1],
    ] as const;
    for (const value of values) expect(said(value).initialWindow).toBe(65_535);
  });

  describe("of its table", () => {
    const block = encodeHeaders([[":status", "200"]]);
    /** Octets that are told before the block. */
    const before = (peer: PeerSettings) => {
      const [bytes, own] = [Buffer.from(peer.told(block)).toString("hex"), block.toString("hex")];
      expect(bytes).toEndWith(own);
      return bytes.slice(0, -own.length);
    };

    test("is told of with the next block, once, where it is smaller", () => {
      const peer = said([HEADER_TABLE_SIZE, 4095]);
      const bytes = Buffer.from(peer.told(block));
      expect(bytes.toString("hex")).toBe(`20${block.toString("hex")}`);
      expect(new HeaderDecoder().decode(bytes)).toMatchObject([{ name: ":status", value: "200" }]);
      expect([before(peer), before(peer)]).toEqual(["", ""]);
      peer.take(payloadOf([[HEADER_TABLE_SIZE, 0]]));
      expect([before(peer), before(peer)]).toEqual(["20", ""]);
      peer.take(payloadOf([[INITIAL_WINDOW_SIZE, 0]]));
      expect(before(peer)).toBe("");
    });

    test("is told of where it was smaller for a moment (RFC 7541 section 4.2)", () => {
      expect(before(said([HEADER_TABLE_SIZE, 0], [HEADER_TABLE_SIZE, 4096]))).toBe("20");
    });

    test("is not told of where it is as large as ever, or larger", () => {
      for (const peer of [new PeerSettings(), said([HEADER_TABLE_SIZE, 4096]), said([HEADER_TABLE_SIZE, 65_536])])
        expect(peer.told(block)).toBe(block);
    });
  });
});
