import { once } from "node:events";
import { connect, type Socket } from "node:net";

/* HTTP/2 as bytes (RFC 9113, RFC 7541), for what no client library would send. */

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export const Type = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;

export const END_STREAM = 0x1;
export const ACK = 0x1;
export const END_HEADERS = 0x4;

/** One frame: nine bytes of header, then the payload. */
export function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(9 + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  bytes.set(payload, 9);
  return bytes;
}

const NO_SETTINGS = Buffer.alloc(0);

export const settings = (values: readonly (readonly [id: number, value: number])[] = []): Buffer => {
  const payload = values.length === 0 ? NO_SETTINGS : Buffer.alloc(6 * values.length);
  values.forEach(([id, value], index) => {
    payload.writeUInt16BE(id, 6 * index);
    payload.writeUInt32BE(value, 6 * index + 2);
  });
  return frame(Type.SETTINGS, 0, 0, payload);
};

/** INITIAL_WINDOW_SIZE: what a server may send on each stream before it is told of more. */
export const INITIAL_WINDOW = 4;

/** Header fields as HPACK literals that enter no table, so that blocks may be sent in any number and order. */
export function headerBlock(fields: readonly (readonly [name: string, value: string])[]): Buffer {
  const text = (value: string) => Buffer.concat([integer(value.length, 7, 0), Buffer.from(value, "latin1")]);
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

/** HPACK's integers (RFC 7541 section 5.1). */
export function integer(value: number, prefixBits: number, pattern: number): Buffer {
  const limit = 2 ** prefixBits - 1;
  if (value < limit) return Buffer.from([pattern | value]);
  const bytes = [pattern | limit];
  let rest = value - limit;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

/** The head of a gRPC call of this path, with more fields. */
export const callHead = (path: string, more: readonly (readonly [string, string])[] = []) =>
  headerBlock([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", "abuse"],
    ["content-type", "application/grpc"],
    ["te", "trailers"],
    ...more,
  ]);

/** gRPC's five bytes before a message, which may lie about its length. */
export function envelope(message: Uint8Array, { flags = 0, length = message.length } = {}): Buffer {
  const bytes = Buffer.alloc(5 + message.length);
  bytes[0] = flags;
  bytes.writeUInt32BE(length, 1);
  bytes.set(message, 5);
  return bytes;
}

export interface Target {
  readonly host: string;
  readonly port: number;
  /** The attacker's own address; another one than that of honest clients. */
  readonly localAddress?: string;
}

/** A TCP connection that sends what it is told, and remembers how it was ended. */
export class Raw implements Disposable {
  readonly socket: Socket;
  readonly closed: Promise<void>;
  #received = Buffer.alloc(0);
  readonly #readers = new Set<() => void>();

  private constructor(socket: Socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => undefined); // told by `closed`
    socket.on("data", (chunk: Buffer) => {
      // Enough to find the GOAWAY at its end, and a short answer whole.
      this.#received = Buffer.concat([this.#received, chunk]).subarray(-KEPT_BYTES);
      for (const look of this.#readers) look();
    });
  }

  /** Resolves when it is connected, or when that was refused. */
  static async to({ host, port, localAddress }: Target): Promise<Raw> {
    const socket = connect({ host, port, ...(localAddress === undefined ? {} : { localAddress }) });
    const raw = new Raw(socket);
    await Promise.race([once(socket, "connect"), raw.closed]).catch(() => undefined);
    return raw;
  }

  /** The same after the preface and an exchange of settings. */
  static async http2(target: Target, values: Parameters<typeof settings>[0] = []): Promise<Raw> {
    const raw = await Raw.to(target);
    await raw.send(Buffer.concat([PREFACE, settings(values), frame(Type.SETTINGS, ACK, 0)]));
    return raw;
  }

  get received(): Buffer {
    return this.#received;
  }

  get isOpen(): boolean {
    return !this.socket.destroyed && !this.socket.readableEnded;
  }

  /** Resolves when the bytes are on their way, or the peer has closed: then false. */
  async send(bytes: Uint8Array): Promise<boolean> {
    if (!this.socket.writable) return false;
    if (!this.socket.write(bytes)) await Promise.race([once(this.socket, "drain"), this.closed]).catch(() => undefined);
    return this.socket.writable;
  }

  /** Sends `part(0)`, `part(1)`, … up to `count`, many at once; returns how many it sent until it saw that the peer closed. */
  async flood(count: number, part: (index: number) => Uint8Array): Promise<number> {
    const batchSize = Math.max(1, Math.floor(BATCH_BYTES / part(0).length));
    let sent = 0;
    while (sent < count) {
      const batch = Array.from({ length: Math.min(batchSize, count - sent) }, (_, index) => part(sent + index));
      sent += batch.length;
      if (!(await this.send(Buffer.concat(batch)))) break;
      // Whether the peer has closed is seen only between two writes.
      await new Promise((resolve) => setImmediate(resolve));
    }
    return sent;
  }

  /** Resolves with true once this was received, with false when the connection ends without it. */
  async until(found: (received: Buffer) => boolean): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => found(this.#received) && resolve();
    this.#readers.add(look);
    look();
    await Promise.race([promise, this.closed]);
    this.#readers.delete(look);
    return found(this.#received);
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

const KEPT_BYTES = 256 * 1024;
/** So much goes out by one write of a flood. */
const BATCH_BYTES = 64 * 1024;

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** The whole frames in what a server sent from its first byte on. */
export function framesIn(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at + 9 <= bytes.length; ) {
    const end = at + 9 + bytes.readUIntBE(at, 3);
    if (end > bytes.length) break;
    const stream = bytes.readUInt32BE(at + 5) & 0x7fffffff;
    frames.push({ type: bytes[at + 3] ?? 0, flags: bytes[at + 4] ?? 0, stream, payload: bytes.subarray(at + 9, end) });
    at = end;
  }
  return frames;
}

/** The error code of the GOAWAY at the end of what a server sent; undefined: there is none. */
export function goawayCode(bytes: Buffer): number | undefined {
  const goaway = framesIn(bytes).findLast(({ type }) => type === Type.GOAWAY);
  return goaway?.payload.readUInt32BE(4);
}
