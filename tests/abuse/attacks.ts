import { connect, type OutgoingHttpHeaders } from "node:http2";
import { connect as connectTcp } from "node:net";
import { gzipSync } from "node:zlib";
import { ODDITIES } from "./oddities.ts";
import {
  ACK,
  callHead,
  END_HEADERS,
  END_STREAM,
  envelope,
  frame,
  goawayCode,
  INITIAL_WINDOW,
  PREFACE,
  Raw,
  settings,
  type Target,
  Type,
} from "./wire.ts";

const path = (rpc: string) => `/agynio.api.runner.v1.RunnerService/${rpc}`;
const CANCEL = Buffer.from([0, 0, 0, 8]);
const [ENHANCE_YOUR_CALM] = [11];
const [DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED] = ["4", "8"];
/** What a server takes in a frame unless it says that it takes more. */
const MAX_FRAME = 16 * 1024;
const GIBIBYTE = 1024 ** 3;
/** How long connections that do nothing are kept up; longer than the server lets those with half of a header be. */
const PATIENCE_MS = 20_000;

/** What a hostile client does. */
export interface Attack {
  /** How often: in the full run, and in `bun test`. */
  readonly full: number;
  readonly small: number;
  /** Does it `count` times and says what came of it; throws when that is not what must. */
  run(target: Target, count: number): Promise<string>;
}

const last = frame(Type.PING, 0, 0, Buffer.from("the last"));
const lastAnswer = frame(Type.PING, ACK, 0, Buffer.from("the last"));

/**
 * Sends frames without end, on a new connection whenever the server has ended the last one. `mayLive`: what is bounded is
 * their rate, so that a slow machine may bring it under the bound.
 */
const flood =
  (
    part: (index: number) => Uint8Array,
    { first = Buffer.alloc(0), mayLive = false }: { first?: Uint8Array; mayLive?: boolean } = {},
  ): Attack["run"] =>
  async (target, count) => {
    const codes: (number | undefined)[] = [];
    for (let sent = 0; sent < count; ) {
      using raw = await Raw.http2(target);
      await raw.send(first);
      // From the first on: stream numbers begin anew with each connection.
      sent += await raw.flood(count - sent, part);
      await raw.send(last);
      if (!(await raw.until((bytes) => bytes.includes(lastAnswer)))) codes.push(goawayCode(raw.received));
    }
    if (!mayLive && !codes.includes(ENHANCE_YOUR_CALM))
      throw new Error(`no connection was ended by GOAWAY ENHANCE_YOUR_CALM: ${codes}`);
    return `${codes.length} connections were ended`;
  };

/** `count` connections that say this and then nothing, until the server has closed all of them, or for a while. */
const idle =
  (said: (index: number) => Uint8Array, mustClose: boolean): Attack["run"] =>
  async (target, count) => {
    using _all = new DisposableStack();
    const raws = await Promise.all(
      Array.from({ length: count }, async (_, index) => {
        const raw = _all.use(await Raw.to(target));
        await raw.send(said(index));
        return raw;
      }),
    );
    const closed = Promise.all(raws.map((raw) => raw.closed));
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS).unref())]);
    const open = raws.filter((raw) => raw.isOpen).length;
    if (mustClose && open > 0) throw new Error(`${open} of ${count} connections are still open`);
    return `${count - open} of ${count} were closed`;
  };

/** The gRPC status of each of these calls, one after the other on one connection. */
async function statuses(
  target: Target,
  calls: Iterable<{ rpc: string; headers?: OutgoingHttpHeaders; body: Uint8Array }>,
): Promise<string[]> {
  const found: string[] = [];
  const session = connect(`http://${target.host}:${target.port}`, {
    createConnection: () => connectTcp({ ...target }),
  });
  session.on("error", () => undefined); // told by the calls
  try {
    for (const { rpc, headers, body } of calls) {
      const stream = session.request({
        ":method": "POST",
        ":path": path(rpc),
        "content-type": "application/grpc",
        te: "trailers",
        ...headers,
      });
      let status = "";
      const look = (received: OutgoingHttpHeaders) => {
        status = String(received["grpc-status"] ?? status);
      };
      stream.on("response", look);
      stream.on("trailers", look);
      stream.on("error", () => undefined);
      stream.resume();
      const closed = new Promise((resolve) => stream.once("close", resolve));
      stream.end(body);
      await closed;
      found.push(status || `HTTP/2 ${stream.rstCode}`);
    }
  } finally {
    session.destroy();
  }
  return found;
}

/** Calls that must all end with this status. */
const calls =
  (
    status: string,
    call: (index: number) => Parameters<typeof statuses>[1] extends Iterable<infer Call> ? Call : never,
  ) =>
  async (target: Target, count: number): Promise<string> => {
    const found = await statuses(
      target,
      Array.from({ length: count }, (_, index) => call(index)),
    );
    const other = found.find((each) => each !== status);
    if (other !== undefined) throw new Error(`status ${other} in place of ${status}`);
    return `${count} calls ended with status ${status}`;
  };

const nothing = envelope(Buffer.alloc(0));
const open = (rpc: string, stream: number) => frame(Type.HEADERS, END_HEADERS, stream, callHead(path(rpc)));
const ping = frame(Type.PING, 0, 0, Buffer.alloc(8));
/** Zeros, of one field that is bytes: tar_payload of PutArchive has number 3. */
const bomb = (bytes: number) => envelope(gzipSync(Buffer.alloc(bytes)), { flags: 1 });

/** Asks for answers that it gives no window for. */
async function deaf(target: Target, count: number): Promise<string> {
  using raw = await Raw.http2(target, [[INITIAL_WINDOW, 0]]);
  for (let index = 0; index < count && raw.isOpen; index++)
    await raw.send(
      Buffer.concat([open("ListWorkloads", 2 * index + 1), frame(Type.DATA, END_STREAM, 2 * index + 1, nothing)]),
    );
  await raw.send(last);
  if (!(await raw.until((bytes) => bytes.includes(lastAnswer)))) throw new Error("the connection was ended");
  return `${count} answers wait`;
}

/** Requests that no client library sends; each must get an answer or a closed connection. */
async function odd(target: Target, count: number): Promise<string> {
  const found = new Map<string, number>();
  for (const [name, bytes] of ODDITIES.slice(0, count)) {
    using raw = await Raw.to(target);
    await raw.send(bytes);
    const answered = raw.until((received) => /^HTTP\/1\.1 \d{3} /.test(received.toString("latin1")));
    const late = new Promise<undefined>((resolve) => setTimeout(resolve, PATIENCE_MS, undefined).unref());
    const outcome = await Promise.race([answered, late]);
    if (outcome === undefined) throw new Error(`${name}: no answer`);
    const status = outcome ? raw.received.toString("latin1", 9, 12) : "closed";
    found.set(status, (found.get(status) ?? 0) + 1);
  }
  return [...found].map(([status, times]) => `${times} x ${status}`).join(", ");
}

export const attacks: Readonly<Record<string, Attack>> = {
  "rapid reset": {
    full: 100_000,
    small: 5_000,
    run: flood((index) =>
      Buffer.concat([open("Ready", 2 * index + 1), frame(Type.RST_STREAM, 0, 2 * index + 1, CANCEL)]),
    ),
  },
  "streams without end": {
    full: 100_000,
    small: 20_000,
    run: flood((index) => open("Ready", 2 * index + 1), { mayLive: true }),
  },
  "empty CONTINUATION frames": {
    full: 200_000,
    small: 2_000,
    run: flood(() => frame(Type.CONTINUATION, 0, 1), { first: frame(Type.HEADERS, 0, 1, callHead(path("Ready"))) }),
  },
  "SETTINGS flood": { full: 300_000, small: 3_000, run: flood(() => settings()) },
  "PING flood": { full: 300_000, small: 30_000, run: flood(() => ping) },
  "PRIORITY flood": {
    full: 300_000,
    small: 3_000,
    run: flood(() => frame(Type.PRIORITY, 0, 3, Buffer.from([0, 0, 0, 0, 1]))),
  },
  "WINDOW_UPDATE flood": {
    full: 300_000,
    small: 100_000,
    run: flood(() => frame(Type.WINDOW_UPDATE, 0, 0, Buffer.from([0, 0, 0, 1])), { mayLive: true }),
  },
  "empty DATA flood": {
    full: 300_000,
    small: 3_000,
    run: flood(() => frame(Type.DATA, 0, 1), { first: open("Exec", 1) }),
  },
  "idle connections": { full: 1_000, small: 20, run: idle(() => Buffer.alloc(0), true) },
  "half of a header": {
    full: 200,
    small: 20,
    run: idle(
      (index) =>
        index % 2 === 0
          ? Buffer.from("POST /x HTTP/1.1\r\nhost: a\r\nx-half: ")
          : Buffer.concat([PREFACE, settings(), frame(Type.HEADERS, 0, 1, callHead(path("Ready")))]),
      true,
    ),
  },
  "a window that never opens": { full: 1_500, small: 50, run: deaf },
  "gzip bomb": {
    full: 20,
    small: 1,
    run: (target, count) => {
      const body = bomb(count === 1 ? 64 * 1024 * 1024 : GIBIBYTE);
      return calls(RESOURCE_EXHAUSTED, () => ({ rpc: "PutArchive", headers: { "grpc-encoding": "gzip" }, body }))(
        target,
        count,
      );
    },
  },
  "a message declared as 1 GiB": {
    full: 200,
    small: 5,
    run: calls(RESOURCE_EXHAUSTED, () => ({
      rpc: "PutArchive",
      body: envelope(Buffer.alloc(1_000), { length: GIBIBYTE }),
    })),
  },
  "metadata of 50,000 bytes": {
    full: 200,
    small: 5,
    run: calls(RESOURCE_EXHAUSTED, () => ({ rpc: "Ready", headers: { "x-much": "a".repeat(50_000) }, body: nothing })),
  },
  "metadata of 100,000 bytes": {
    full: 500,
    small: 5,
    run: flood(() => {
      const block = callHead(path("Ready"), [["x-much", "a".repeat(100_000)]]);
      const parts = [frame(Type.HEADERS, END_STREAM, 1, block.subarray(0, MAX_FRAME))];
      for (let at = MAX_FRAME; at < block.length; at += MAX_FRAME)
        parts.push(
          frame(
            Type.CONTINUATION,
            at + MAX_FRAME < block.length ? 0 : END_HEADERS,
            1,
            block.subarray(at, at + MAX_FRAME),
          ),
        );
      return Buffer.concat(parts);
    }),
  },
  "deadline of nothing": {
    full: 500,
    small: 10,
    run: calls(DEADLINE_EXCEEDED, (index) => ({
      rpc: "Ready",
      headers: { "grpc-timeout": ["0n", "0S", "0H", "00000000u"][index % 4] },
      body: nothing,
    })),
  },
  "deadline in 100 years and later": {
    full: 500,
    small: 10,
    run: calls("0", (index) => ({
      rpc: "Ready",
      headers: { "grpc-timeout": ["876000H", "99999999H", "99999999M", "99999999S"][index % 4] },
      body: nothing,
    })),
  },
  "odd paths, headers and JSON": { full: ODDITIES.length, small: ODDITIES.length, run: odd },
};
