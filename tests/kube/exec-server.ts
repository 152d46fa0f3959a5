import { createHash } from "node:crypto";
import http from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Access } from "../../src/kube/access.ts";
import { Kube, type KubeOptions } from "../../src/kube/client.ts";
import { createLog } from "../../src/log.ts";

const [BINARY, CLOSE_FRAME, PING_FRAME, PONG_FRAME] = [2, 8, 9, 10];

/** The server's end of one exec WebSocket, frame by frame (RFC 6455). */
export class ServerEnd {
  readonly socket: Socket;
  readonly url: URL;
  /** Messages of the client, channel byte first. */
  readonly received: Uint8Array[] = [];
  pings = 0;
  /** Whether pings are answered. */
  answering = true;
  readonly closed: Promise<void>;
  #unread = Buffer.alloc(0);
  #arrived: (() => void)[] = [];

  constructor(socket: Socket, url: URL) {
    this.socket = socket;
    this.url = url;
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => undefined); // the client may reset
    socket.once("end", () => socket.end()); // an HTTP server's sockets are half-open by default
    socket.on("data", (data) => this.#read(Buffer.from(data)));
  }

  /** One message on a channel; resolves when it has left for the client. */
  send(channel: number, data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    return this.#frame(BINARY, Buffer.concat([Uint8Array.of(channel), bytes]));
  }

  status(status: object): Promise<void> {
    return this.send(3, JSON.stringify({ metadata: {}, ...status }));
  }

  /** The end as the API server makes it. */
  async finish(status: object): Promise<void> {
    await this.status(status);
    await this.#frame(CLOSE_FRAME, Buffer.of(0x03, 0xe8));
    this.socket.end();
  }

  /** Bytes as they are, frames or not. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.socket.write(bytes, () => resolve()));
  }

  /** Resolves when `holds`, looked at after each frame of the client. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#arrived.push(resolve));
  }

  /** All stdin so far. */
  get stdin(): Buffer {
    return Buffer.concat(this.received.filter(([channel]) => channel === 0).map((message) => message.subarray(1)));
  }

  #frame(opcode: number, payload: Uint8Array): Promise<void> {
    const header = Buffer.alloc(10);
    header[0] = 0x80 | opcode;
    header[1] = payload.length < 126 ? payload.length : 127;
    if (payload.length >= 126) header.writeBigUInt64BE(BigInt(payload.length), 2);
    const frame = Buffer.concat([header.subarray(0, payload.length < 126 ? 2 : 10), payload]);
    return new Promise((resolve) => this.socket.write(frame, () => resolve()));
  }

  #read(data: Uint8Array): void {
    this.#unread = Buffer.concat([this.#unread, data]);
    for (;;) {
      const buffer = this.#unread;
      if (buffer.length < 2) return;
      const short = (buffer[1] ?? 0) & 0x7f;
      const maskAt = short < 126 ? 2 : short === 126 ? 4 : 10;
      if (buffer.length < maskAt + 4) return;
      const length = short < 126 ? short : short === 126 ? buffer.readUInt16BE(2) : Number(buffer.readBigUInt64BE(2));
      const end = maskAt + 4 + length;
      if (buffer.length < end) return;
      const mask = buffer.subarray(maskAt, maskAt + 4);
      const payload = Buffer.from(buffer.subarray(maskAt + 4, end).map((byte, index) => byte ^ (mask[index % 4] ?? 0)));
      this.#unread = buffer.subarray(end);
      this.#take((buffer[0] ?? 0) & 0x0f, payload);
    }
  }

  #take(opcode: number, payload: Buffer): void {
    if (opcode === BINARY) this.received.push(payload);
    if (opcode === PING_FRAME) this.pings++;
    if (opcode === PING_FRAME && this.answering) void this.#frame(PONG_FRAME, payload);
    for (const resolve of this.#arrived.splice(0)) resolve();
  }
}

export interface ExecServer extends AsyncDisposable {
  readonly kube: (options?: Partial<KubeOptions>) => Kube;
  /** The requests without an upgrade. */
  readonly plain: URL[];
  /** Handshakes seen, refused ones included. */
  readonly handshakes: { readonly url: URL; readonly headers: http.IncomingHttpHeaders }[];
}

/**
 * An API server for exec. `refuse` answers a handshake or plain request (null: upgrade it); without it every handshake is
 * upgraded. Its token is `token-<times renewed>`.
 */
export async function execServer(
  serve: (end: ServerEnd) => unknown,
  refuse: (request: http.IncomingMessage) => { status: number; body: object } | null = () => null,
  protocol = "v5.channel.k8s.io",
): Promise<ExecServer> {
  const plain: URL[] = [];
  const handshakes: ExecServer["handshakes"] = [];
  const sockets = new Set<Socket>();
  const server = http.createServer((request, response) => {
    plain.push(new URL(request.url ?? "", "http://server"));
    const { status, body } = refuse(request) ?? { status: 400, body: upgradeRequired };
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  });
  server.on("upgrade", (request: http.IncomingMessage, socket: Socket) => {
    sockets.add(socket);
    const url = new URL(request.url ?? "", "http://server");
    handshakes.push({ url, headers: request.headers });
    const refusal = refuse(request);
    if (refusal !== null) {
      const body = JSON.stringify(refusal.body);
      socket.end(`HTTP/1.1 ${refusal.status} Refused\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      return;
    }
    const key = `${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
    const accept = createHash("sha1").update(key).digest("base64");
    const head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"];
    socket.write(
      [...head, `Sec-WebSocket-Accept: ${accept}`, `Sec-WebSocket-Protocol: ${protocol}`, "", ""].join("\r\n"),
    );
    serve(new ServerEnd(socket, url));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // a TCP server's address is an object
  let renewed = 0;
  const access: Access = {
    server: new URL(`http://127.0.0.1:${port}`),
    source: "test",
    credentials: async (options) => {
      if (options?.renew) renewed++;
      return { headers: { authorization: `Bearer token-${renewed}` }, tls: {} };
    },
  };
  return {
    plain,
    handshakes,
    kube: (options = {}) => new Kube({ access, namespace: "work", log: createLog({ level: "silent" }), ...options }),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const upgradeRequired = {
  kind: "Status",
  status: "Failure",
  message: "Upgrade request required",
  reason: "BadRequest",
  code: 400,
};
