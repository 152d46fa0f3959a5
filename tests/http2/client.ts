import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { ExecRequestSchema, RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Pages } from "../../src/http.ts";
import { HeaderDecoder } from "../../src/http2/hpack.ts";
import { Writer } from "../../src/http2/writer.ts";
import { DEFAULT_LIMITS, Usage } from "../../src/limits.ts";
import { createLog } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import {
  ACK,
  callHead,
  END_HEADERS,
  END_STREAM,
  envelope,
  type Frame,
  frame,
  framesIn,
  headerBlock,
  PREFACE,
  Raw,
  settings,
  Type,
} from "../abuse/wire.ts";
import { LIMIT, SERVICE, stdin } from "../server/harness.ts";

/* A client of HTTP/2 that keeps to no rule but those of its test. */

export const PADDED = 0x8;
/** What a client may send on a stream before it is told of more; the same for a server, on the connection as well. */
export const STREAM_WINDOW = 256 * 1024;
export const DEFAULT_WINDOW = 65_535;
export const MAX_WINDOW = 2 ** 31 - 1;
export const MAX_FRAME = 16_384;

export const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** The head of a gRPC call. */
export const head = (stream: number, rpc: string, flags = END_HEADERS): Buffer =>
  frame(Type.HEADERS, flags, stream, callHead(`/${SERVICE}/${rpc}`));

/** The end of a call: its message, by default an empty one. */
export const last = (stream: number, message: Uint8Array = new Uint8Array()): Buffer =>
  frame(Type.DATA, END_STREAM, stream, envelope(message));

/** A whole call. */
export const call = (stream: number, rpc: string): Buffer => Buffer.concat([head(stream, rpc), last(stream)]);

/** The head of a POST of another protocol, with the message in the same form. */
export const post = (stream: number, rpc: string, contentType: string): Buffer => {
  const fields = [
    [":method", "POST"],
    [":scheme", "http"],
    [":path", `/${SERVICE}/${rpc}`],
    [":authority", "test"],
    ["content-type", contentType],
  ] as const;
  return frame(Type.HEADERS, END_HEADERS, stream, headerBlock(fields));
};

/** The head of a call by each protocol whose calls stream both ways. */
export const heads = [
  ["gRPC", head],
  ["gRPC-Web", (stream: number, rpc: string) => post(stream, rpc, "application/grpc-web+proto")],
  ["Connect", (stream: number, rpc: string) => post(stream, rpc, "application/connect+proto")],
] as const;

/** As many frames of DATA as it takes. */
export function data(stream: number, bytes: Uint8Array): Buffer {
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += MAX_FRAME)
    frames.push(frame(Type.DATA, 0, stream, bytes.subarray(at, at + MAX_FRAME)));
  return Buffer.concat(frames);
}

/** Room for so many bytes more, on a stream or (0) the connection. */
export const room = (stream: number, bytes: number): Buffer => frame(Type.WINDOW_UPDATE, 0, stream, uint32(bytes));

export const reset = (stream: number, code = 8): Buffer => frame(Type.RST_STREAM, 0, stream, uint32(code));

/** The beginning of an Exec's stdin, as messages of 8 KiB: exactly so many bytes, the last message perhaps cut. */
export function input(bytes: number): Buffer {
  const message = envelope(toBinary(ExecRequestSchema, create(ExecRequestSchema, stdin("x".repeat(8 * 1024)))));
  return Buffer.concat(Array<Buffer>(Math.ceil(bytes / message.length)).fill(message)).subarray(0, bytes);
}

export class Peer implements Disposable {
  readonly #raw: Raw;
  readonly frames: Frame[] = [];
  #rest = Buffer.alloc(0);
  #pings = 0;

  private constructor(raw: Raw) {
    this.#raw = raw;
    raw.socket.prependListener("data", (chunk: Buffer) => this.#take(chunk)); // before those that look for something
  }

  /** Connected, and silent. */
  static async mute({ port }: { port: number }): Promise<Peer> {
    return new Peer(await Raw.to({ host: "127.0.0.1", port }));
  }

  /** Connected, with the preface and these settings sent. */
  static async to(server: { port: number }, values: Parameters<typeof settings>[0] = []): Promise<Peer> {
    const peer = await Peer.mute(server);
    await peer.send(PREFACE, settings(values), frame(Type.SETTINGS, ACK, 0));
    return peer;
  }

  get socket(): Raw["socket"] {
    return this.#raw.socket;
  }

  get closed(): Promise<void> {
    return this.#raw.closed;
  }

  async send(...parts: Uint8Array[]): Promise<void> {
    await this.#raw.send(Buffer.concat(parts));
  }

  flood(count: number, part: (index: number) => Uint8Array): Promise<number> {
    return this.#raw.flood(count, part);
  }

  /** Resolves once this is so. Throws when the connection ends before. */
  async until(what: string, isSo: () => boolean): Promise<void> {
    if (!(await this.#raw.until(isSo))) throw new Error(`the connection ended (GOAWAY ${this.goaway?.code}): ${what}`);
  }

  /**
   * Resolves once all has come that the server does about what was sent before. The first answer tells that it has read
   * that, the second that its handlers have had their turn since.
   */
  async settle(): Promise<void> {
    for (let round = 0; round < 2; round++) {
      const text = Buffer.from(String(this.#pings++).padStart(8));
      await this.send(frame(Type.PING, 0, 0, text));
      await this.until("a ping is answered", () =>
        this.frames.some(({ type, flags, payload }) => type === Type.PING && flags === ACK && payload.equals(text)),
      );
    }
  }

  /** Resolves with the header fields of an answer, those of its end as well, once it is whole or was reset. */
  async answer(stream: number): Promise<Record<string, string>> {
    const ends = ({ type, flags }: Frame) =>
      type === Type.RST_STREAM || ((type === Type.HEADERS || type === Type.DATA) && (flags & END_STREAM) !== 0);
    await this.until(`stream ${stream} is answered`, () => this.on(stream).some(ends));
    return this.fields(stream);
  }

  /** What has come on a stream. */
  on(stream: number): Frame[] {
    return this.frames.filter((each) => each.stream === stream);
  }

  /** Header fields that have come on a stream. */
  fields(stream: number): Record<string, string> {
    const blocks: Buffer[] = [];
    for (const { type, payload } of this.on(stream))
      if (type === Type.HEADERS) blocks.push(payload);
      else if (type === Type.CONTINUATION) blocks.push(Buffer.concat([blocks.pop() ?? Buffer.alloc(0), payload]));
    const fields = blocks.flatMap((block) => new HeaderDecoder().decode(block) ?? []);
    return Object.fromEntries(fields.map(({ name, value }) => [name, value]));
  }

  content(stream: number): Buffer {
    const frames = this.on(stream).filter(({ type }) => type === Type.DATA);
    return Buffer.concat(frames.map(({ payload }) => payload));
  }

  /** Bytes of DATA that have come on a stream. */
  bytes(stream: number): number {
    return this.on(stream).reduce((sum, { type, payload }) => (type === Type.DATA ? sum + payload.length : sum), 0);
  }

  /** Bytes for which room was given since the beginning, on a stream or (0) the connection. */
  room(stream: number): number {
    const updates = this.on(stream).filter(({ type }) => type === Type.WINDOW_UPDATE);
    return updates.reduce((sum, { payload }) => sum + payload.readUInt32BE(), 0);
  }

  /** Streams that the server has reset, each with the code. */
  get resets(): [stream: number, code: number][] {
    const frames = this.frames.filter(({ type }) => type === Type.RST_STREAM);
    return frames.map(({ stream, payload }) => [stream, payload.readUInt32BE()]);
  }

  /** The last GOAWAY. */
  get goaway(): { lastStream: number; code: number } | undefined {
    const payload = this.frames.findLast(({ type }) => type === Type.GOAWAY)?.payload;
    return payload && { lastStream: payload.readUInt32BE(), code: payload.readUInt32BE(4) };
  }

  #take(chunk: Buffer): void {
    const bytes = Buffer.concat([this.#rest, chunk]);
    const frames = framesIn(bytes);
    this.frames.push(...frames);
    this.#rest = bytes.subarray(frames.reduce((sum, { payload }) => sum + 9 + payload.length, 0));
  }

  [Symbol.dispose](): void {
    this.#raw[Symbol.dispose]();
  }
}

/** The real server with a test's own handlers and pages. At its end nothing may be left open. */
export async function serve(implementation: Partial<ServiceImpl<typeof RunnerService>>, pages: Pages = {}) {
  const usage = new Usage(DEFAULT_LIMITS);
  const server = await startServer({
    address: "127.0.0.1:0",
    maxMessageBytes: LIMIT,
    log: createLog({ level: "silent" }),
    usage,
    pages,
    routes: (router) => router.service(RunnerService, implementation),
  });
  const close = async () => {
    await server.close(0);
    const left = Object.entries(usage.current()).filter(([, count]) => count !== 0);
    if (left.length > 0) throw new Error(`left open: ${left}`);
  };
  const { port } = server.address;
  return { server, port, baseUrl: `http://127.0.0.1:${port}`, usage, [Symbol.asyncDispose]: close };
}

/** Both ends of a TCP connection, and the length of every write that left the first of them. */
export async function tcpPair() {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted: Promise<Socket[]> = once(server, "connection");
  const peer = connect((server.address() as AddressInfo).port, "127.0.0.1"); // it listens on TCP
  const [socket] = await accepted;
  if (socket === undefined) throw new Error("no connection");
  const writes: number[] = [];
  const write = socket.write.bind(socket);
  socket.write = (bytes: Uint8Array, ...rest: never[]) => {
    writes.push(bytes.length);
    return write(bytes, ...rest);
  };
  const close = () => {
    peer.destroy();
    server.close();
  };
  return { socket, peer, writes, writer: new Writer(socket), [Symbol.dispose]: close };
}
