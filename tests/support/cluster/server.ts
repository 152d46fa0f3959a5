import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { ApiError } from "./status.ts";
import type { TlsMaterial } from "./tls.ts";

/** One request as it came, with the status of its answer: 0 while there is none, 101 for an upgrade. `at` in Unix ms. */
export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly status: number;
  readonly at: number;
}

export interface Handlers {
  /** Answers, or throws ApiError. */
  request(request: IncomingMessage, url: URL, response: ServerResponse): Promise<void> | void;
  /** Takes the socket over, or throws ApiError. Returns the status line's code. */
  upgrade(request: IncomingMessage, url: URL, socket: Socket, head: Buffer): number;
}

/** The limit of the API server on a body. */
export const MAX_BODY_BYTES = 3 * 1024 * 1024;

/** Listens with TLS on the loopback interface, records requests, turns ApiErrors into Status objects. */
export class ApiListener implements AsyncDisposable {
  readonly requests: RecordedRequest[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(tls: TlsMaterial, handlers: Handlers) {
    const server: Server = createServer({ cert: tls.certPem, key: tls.keyPem });
    this.#server = server;
    server.on("connection", (socket: Socket) => this.#track(socket));
    server.on("secureConnection", (socket: Socket) => this.#track(socket));
    server.on("request", (request: IncomingMessage, response: ServerResponse) => {
      const url = urlOf(request);
      const entry = this.#record(request, url);
      // A watch is answered while its handler lasts: its status is known once it is set up.
      const known = () => {
        if (response.headersSent) entry.status = response.statusCode;
      };
      response.on("close", known);
      void answer(() => handlers.request(request, url, response), response).then(known);
    });
    server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
      this.#track(socket);
      const url = urlOf(request);
      const entry = this.#record(request, url);
      try {
        entry.status = handlers.upgrade(request, url, socket, head);
      } catch (error) {
        const { status } = errorOf(error);
        entry.status = status.code;
        refuse(socket, status);
      }
    });
  }

  /** Resolves with the port. */
  listen(port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.on("error", reject);
      this.#server.listen(port, "127.0.0.1", () => {
        const address = this.#server.address();
        resolve((address as AddressInfo).port); // of a TCP server that listens
      });
    });
  }

  /** Drops every connection without a word, as a crash does; listening goes on. */
  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.dropConnections();
    this.#server.closeAllConnections();
    await closed;
  }

  #track(socket: Socket): void {
    if (this.#sockets.has(socket)) return;
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    // A client that resets its connection is no fault of ours.
    socket.on("error", () => socket.destroy());
  }

  #record(request: IncomingMessage, url: URL): { -readonly [Key in keyof RecordedRequest]: RecordedRequest[Key] } {
    const { method = "GET" } = request;
    const entry = { method, path: url.pathname, query: url.search.slice(1), status: 0, at: Date.now() };
    this.requests.push(entry);
    return entry;
  }
}

const urlOf = (request: IncomingMessage): URL => new URL(request.url ?? "/", "https://cluster");

async function answer(handle: () => Promise<void> | void, response: ServerResponse): Promise<void> {
  try {
    await handle();
  } catch (error) {
    if (response.headersSent) response.destroy();
    else {
      const { status } = errorOf(error);
      sendJson(response, status.code, status);
    }
  }
}

/** A fault of ours is a 500 that says so, and is told on stderr: a test should not have to guess. */
function errorOf(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  console.error("embedded cluster:", error);
  return new ApiError(500, "InternalError", `Internal error occurred: ${error}`);
}

export function sendJson(response: ServerResponse, code: number, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(code, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-cache, private",
  });
  response.end(text);
}

function refuse(socket: Socket, status: ApiError["status"]): void {
  const body = `${JSON.stringify(status)}\n`;
  const reasons: Record<number, string> = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
  };
  socket.end(
    `HTTP/1.1 ${status.code} ${reasons[status.code] ?? "Error"}\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}

/** The whole body as text; throws 413 above the API server's limit. */
export async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES)
      throw new ApiError(413, "RequestEntityTooLarge", `Request entity too large: limit is ${MAX_BODY_BYTES}`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
