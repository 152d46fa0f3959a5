/**
 * The server's side of a WebSocket (RFC 6455) over a socket that was upgraded, with back-pressure both ways: nothing is
 * read while the last message is being handled, and a writer waits for the socket to drain. Bun's own server can hold back
 * neither.
 */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] = [0, 1, 2, 8, 9, 10];
/** Longest frame taken; the API server's limit is of this order. */
const MAX_FRAME = 32 * 1024 * 1024;

export class WebSocketConnection {
  readonly #socket: Socket;
  #buffer: Buffer;
  #message: Buffer[] = [];
  #closed = false;
  #drained: Promise<void> | undefined;

  /** Answers the handshake; `protocol` is one of those that the client offered. */
  constructor(request: IncomingMessage, socket: Socket, head: Buffer, protocol: string) {
    this.#socket = socket;
    this.#buffer = head;
    const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}${GUID}`).digest("base64");
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: ${protocol}\r\n\r\n`,
    );
    socket.setNoDelay(true);
    socket.on("close", () => {
      this.#closed = true;
    });
  }

  /** Messages until either side closes or the connection is lost. One is read when the one before was dealt with. */
  async *messages(): AsyncGenerator<Buffer> {
    const incoming: AsyncIterator<Buffer> = this.#socket[Symbol.asyncIterator]();
    for (;;) {
      for (let frame = this.#frame(); frame !== undefined; frame = this.#frame()) {
        const { opcode, payload, final } = frame;
        if (opcode === CLOSE) return this.close();
        if (opcode === PING) await this.#write(PONG, payload);
        if (opcode !== CONTINUATION && opcode !== TEXT && opcode !== BINARY) continue;
        this.#message.push(payload);
        if (!final) continue;
        const message = this.#message.length === 1 ? payload : Buffer.concat(this.#message);
        this.#message = [];
        yield message;
      }
      const next = await incoming.next().catch(() => ({ done: true as const, value: undefined })); // a reset is an end
      if (next.done) return;
      this.#buffer = this.#buffer.length === 0 ? next.value : Buffer.concat([this.#buffer, next.value]);
    }
  }

  /** Resolves when the socket has room again, false when the connection is over. */
  async send(...parts: Uint8Array[]): Promise<boolean> {
    return this.#write(BINARY, Buffer.concat(parts));
  }

  /** A normal close (1000). */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.end(frameOf(CLOSE, Buffer.from([0x03, 0xe8])));
  }

  async #write(opcode: number, payload: Buffer): Promise<boolean> {
    if (this.#closed) return false;
    if (this.#socket.write(frameOf(opcode, payload))) return true;
    this.#drained ??= this.#drain();
    await this.#drained;
    return !this.#closed;
  }

  /** One wait for all that is written meanwhile. */
  async #drain(): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = () => {
        this.#socket.off("drain", done);
        this.#socket.off("close", done);
        resolve();
      };
      this.#socket.on("drain", done);
      this.#socket.on("close", done);
    });
    this.#drained = undefined;
  }

  /** The next whole frame of what was read, unmasked. */
  #frame(): { opcode: number; payload: Buffer; final: boolean } | undefined {
    const buffer = this.#buffer;
    if (buffer.length < 6) return undefined;
    const [first = 0, second = 0] = buffer;
    const short = second & 0x7f;
    const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
    const start = 2 + lengthBytes + 4;
    if (buffer.length < start) return undefined;
    const length =
      lengthBytes === 0 ? short : lengthBytes === 2 ? buffer.readUInt16BE(2) : Number(buffer.readBigUInt64BE(2));
    if (length > MAX_FRAME) {
      this.#socket.destroy();
      return undefined;
    }
    if (buffer.length < start + length) return undefined;
    const mask = buffer.subarray(start - 4, start);
    const payload = Buffer.from(buffer.subarray(start, start + length));
    for (let index = 0; index < length; index++) payload[index] = (payload[index] ?? 0) ^ (mask[index & 3] ?? 0);
    this.#buffer = buffer.subarray(start + length);
    return { opcode: first & 0x0f, payload, final: (first & 0x80) !== 0 };
  }
}

/** One frame, not masked, as servers send them. */
function frameOf(opcode: number, payload: Buffer): Buffer {
  const { length } = payload;
  const head = Buffer.alloc(length < 126 ? 2 : length < 65_536 ? 4 : 10);
  head[0] = 0x80 | opcode;
  if (length < 126) head[1] = length;
  else if (length < 65_536) {
    head[1] = 126;
    head.writeUInt16BE(length, 2);
  } else {
    head[1] = 127;
    head.writeBigUInt64BE(BigInt(length), 2);
  }
  return Buffer.concat([head, payload]);
}
