import { createServer as createHttp1Server, type IncomingMessage, type ServerResponse } from "node:http";
import {
  constants,
  createServer as createHttp2Server,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { createServer, type ListenOptions, type Server, type Socket } from "node:net";
import type { Server as TlsServer } from "node:tls";
import { type Connection, Guard } from "./guard.ts";
import { joined } from "./joined.ts";
import { Usage } from "./limits.ts";
import type { Log } from "./log.ts";
import { contextOf, type TlsMaterial, tlsServer } from "./tls.ts";

export type HttpRequest = IncomingMessage | Http2ServerRequest;
export type HttpResponse = ServerResponse | Http2ServerResponse;
export type HttpHandler = (request: HttpRequest, response: HttpResponse) => void;
/** Takes an HTTP/2 stream as it is, or leaves it to the HttpHandler and says so by false. */
export type StreamHandler = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => boolean;

export interface ListenerOptions {
  readonly handle: HttpHandler;
  /** Asked first. */
  readonly handleStream?: StreamHandler;
  readonly log: Log;
  /** Counts what is in use; the limits of it hold. */
  readonly usage?: Usage;
  /** For the TCP port; undefined: cleartext. */
  readonly tls?: TlsMaterial | undefined;
  /** How long a connection may be without a request under way. */
  readonly idleMs?: number;
}

/** What every HTTP/2 connection begins with (RFC 9113 section 3.4), as far as it takes to tell it from HTTP/1.1. */
const PREFACE = Buffer.from("PRI * HTTP/2");
/**
 * How long a connection may be without a request under way: before its first bytes, inside of a header, and between two
 * HTTP/1.1 requests. Kept here because http.Server of Bun 1.4.5 keeps none of its own limits on a connection it is
 * handed. Does not count while a call runs, nor for HTTP/2, whose clients keep quiet connections for hours.
 */
const IDLE_MS = 65_000;
/** What HTTP/1.1 clients are told of that: a little less, so that they are the ones who close. */
const KEEP_ALIVE_MS = 60_000;
/** After this much silence TCP asks whether the peer is still there. */
const TCP_KEEP_ALIVE_MS = 60_000;
/** In MB. With the default of 10 parallel replies on one connection are lost (Bun 1.4.5: 8 of 60 of 200 KiB each). */
const SESSION_MEMORY = 1000;

/** How much of a request is thrown away after its answer; about what a client sends before it can notice. */
const DISMISSED_BYTES = 1024 * 1024;
/** How long a client may keep its side of an answered stream open when the server closes. */
const PARTING_MS = 250;

/** One TCP port, and a Unix socket if asked, for HTTP/1.1 and HTTP/2 with prior knowledge, and every connection on them. */
export class Listener {
  readonly #log: Log;
  readonly #idleMs: number;
  readonly #guard: Guard;
  readonly #connections = new Map<Socket, Connection>();
  readonly #sessions = new Set<ServerHttp2Session>();
  /** HTTP/2 streams that are answered and whose requests go on. */
  readonly #answered = new Set<ServerHttp2Stream>();
  readonly #server: Server;
  readonly #tls: TlsServer | undefined;
  /** For connections from this machine: what comes through it is served as what comes over TCP. */
  readonly #local = createServer((socket) => this.#begin(socket));
  readonly #http1;
  readonly #http2;
  readonly #closed = Promise.withResolvers<void>();
  readonly #failed = Promise.withResolvers<Error>();
  #draining = false;

  constructor(options: ListenerOptions) {
    const { handle, handleStream = () => false, log, tls, usage = new Usage(), idleMs = IDLE_MS } = options;
    this.#log = log;
    this.#guard = new Guard(usage, log);
    this.#idleMs = idleMs;
    this.#tls = tls && tlsServer(tls, (error) => this.#debug("TLS handshake failed", error));
    this.#tls?.on("connection", (socket) => void this.#track(socket)); // also while it does not agree on TLS
    this.#tls?.on("secureConnection", (socket) => this.#begin(socket));
    this.#server = this.#tls ?? createServer((socket) => this.#begin(socket));
    // requestTimeout would end a request that streams for long, on runtimes that keep it.
    this.#http1 = createHttp1Server({ requestTimeout: 0, keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => {
      this.#trackRequest(request.socket, response);
      handle(request, response);
    });
    this.#http2 = createHttp2Server({ maxSessionMemory: SESSION_MEMORY, ...this.#guard.http2Options }, handle);
    this.#http2.on("session", (session) => this.#trackSession(session));
    this.#routeStreams(this.#http2, handleStream);
  }

  /** Resolves with what went wrong when the port can no longer be served. */
  get failed(): Promise<Error> {
    return this.#failed.promise;
  }

  /** Resolves once draining was asked for and the last connection is gone. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /**
   * Starts to accept. `address` is `host:port`, `[IPv6]:port` or `:port`, which is every interface; port 0 is any free one.
   * Throws `listen on <address>: <cause>`.
   */
  async listen(address: string): Promise<{ host: string; port: number }> {
    await this.#open(this.#server, address, () => hostAndPort(address));
    const bound = this.#server.address();
    if (bound === null || typeof bound === "string") throw new Error(`listen on ${address}: not a TCP address`);
    return { host: bound.address, port: bound.port };
  }

  /** Starts to accept on a Unix socket as well, which is made at `path`. Throws `listen on <path>: <cause>`. */
  async listenOnSocket(path: string): Promise<void> {
    if (this.#draining) throw new Error(`listen on ${path}: the server is closing`);
    await this.#open(this.#local, path, () => ({ path }));
  }

  /** Another certificate, key or CA for the connections to come. Throws when they do not fit each other, and keeps the old. */
  renewTls(material: TlsMaterial): void {
    this.#tls?.setSecureContext(contextOf(material));
  }

  async #open(server: Server, name: string, where: () => ListenOptions): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once("error", reject);
    try {
      server.listen(where(), resolve);
      await promise;
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new Error(`listen on ${name}: ${text}`, { cause: error });
    }
    server.off("error", reject);
    server.on("error", this.#failed.resolve);
  }

  /** Accepts nothing more and tells every client so. What is under way ends in its own time, then its connection closes. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#server.close();
    if (this.#local.listening) this.#local.close();
    for (const session of this.#sessions) session.close(); // GOAWAY now; closes after its last stream
    for (const stream of this.#answered) cutRequest(stream);
    for (const [socket, { protocol, requests }] of this.#connections) {
      if (protocol !== "http2" && requests === 0) socket.destroy();
    }
    this.#settle();
  }

  /** Drops every connection, whatever is under way on it. */
  destroy(): void {
    this.drain();
    // With an error, or clients on Bun 1.4.5 take the end of the connection for no end of their calls, and wait for ever.
    for (const session of this.#sessions) session.destroy(new Error("the server closes"));
    for (const socket of this.#connections.keys()) socket.destroy();
  }

  /** Knows a connection from when it comes until it has gone; undefined when it is refused. */
  #track(socket: Socket): Connection | undefined {
    const connection: Connection = { protocol: "unknown", requests: 0 };
    if (!this.#guard.admit(socket, connection)) return undefined;
    this.#connections.set(socket, connection);
    // A peer that resets its connection, or speaks neither protocol, is its own problem and no reason to fail.
    socket.on("error", (error) => this.#debug("connection failed", error));
    socket.on("timeout", () => socket.destroy());
    socket.on("close", () => {
      this.#connections.delete(socket);
      this.#settle();
    });
    if (this.#draining) {
      socket.destroy(); // it came as the door closed
      return undefined;
    }
    socket.setNoDelay(true);
    socket.setKeepAlive(true, TCP_KEEP_ALIVE_MS);
    socket.setTimeout(this.#idleMs);
    return connection;
  }

  #begin(socket: Socket): void {
    const connection = this.#connections.get(socket) ?? this.#track(socket);
    if (connection !== undefined) this.#peek(socket, connection);
  }

  /** Waits for enough bytes to know the protocol, then hands the connection over as if nothing had been read from it. */
  #peek(socket: Socket, connection: Connection): void {
    let seen = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      seen = Buffer.concat([seen, chunk]);
      const length = Math.min(seen.length, PREFACE.length);
      const isHttp2 = seen.subarray(0, length).equals(PREFACE.subarray(0, length));
      if (isHttp2 && length < PREFACE.length) return;
      socket.off("data", onData);
      socket.pause();
      connection.protocol = isHttp2 ? "http2" : "http1";
      if (isHttp2) socket.setTimeout(0);
      if (isHttp2) this.#guard.hand(socket, this.#http2, () => this.#http2.emit("connection", joined(socket)));
      else this.#http1.emit("connection", socket);
      // In this order: bytes put back before the new owner listens are lost (Bun 1.4.5).
      socket.unshift(seen);
      socket.resume();
    };
    socket.on("data", onData);
  }

  /**
   * Puts `handleStream` before the making of requests and responses, which costs more than a short call. What makes them
   * is the listener that the server has added for its handler of requests.
   */
  #routeStreams(server: Http2Server, handleStream: StreamHandler): void {
    const [makeRequest] = server.listeners("stream");
    server.removeAllListeners("stream");
    // One of each for all streams: a short call notices what is made for it.
    const failed = (error: Error) => this.#debug("stream failed", error);
    const dismiss = (stream: ServerHttp2Stream) => this.#dismiss(stream);
    function finished(this: ServerHttp2Stream): void {
      dismiss(this);
    }
    server.on("stream", (stream: ServerHttp2Stream, headers, ...rest) => {
      stream.on("error", failed);
      if (!this.#guard.open(stream)) return;
      stream.on("finish", finished);
      if (!handleStream(stream, headers)) makeRequest?.call(server, stream, headers, ...rest);
    });
  }

  #trackSession(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.on("error", (error) => this.#debug("session failed", error));
    session.on("close", () => this.#sessions.delete(session));
    if (this.#draining) session.close();
  }

  #trackRequest(socket: Socket, response: ServerResponse): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    connection.requests += 1;
    socket.setTimeout(0);
    response.once("close", () => {
      connection.requests -= 1;
      if (connection.requests > 0) return;
      if (this.#draining) socket.destroySoon();
      else socket.setTimeout(this.#idleMs);
    });
  }

  /**
   * For a stream that is answered while its request goes on. Its client waits for room to send the rest, some for ever:
   * so that is taken in and thrown away, until it is too much or the server closes. Not cut at once, as clients on Bun
   * 1.4.5 then lose what they have not read of the answer.
   */
  #dismiss(stream: ServerHttp2Stream): void {
    if (stream.readableEnded) return;
    this.#answered.add(stream);
    stream.once("close", () => this.#answered.delete(stream));
    stream.removeAllListeners("data"); // those of the request, which pause the stream
    let bytes = 0;
    stream.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > DISMISSED_BYTES) cutRequest(stream);
    });
    stream.resume();
    if (this.#draining) setTimeout(cutRequest, PARTING_MS, stream).unref();
  }

  #settle(): void {
    if (this.#draining && this.#connections.size === 0) this.#closed.resolve();
  }

  #debug(message: string, error: Error): void {
    this.#log.debug({ error }, message);
  }
}

/** Asks the client not to send the rest of a request that is answered (RFC 9113 section 8.1). */
const cutRequest = (stream: ServerHttp2Stream): void => stream.close(constants.NGHTTP2_NO_ERROR);

/** Throws when `address` has no port, or one that is not a port number. */
function hostAndPort(address: string): { host?: string; port: number } {
  const parts = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(address);
  const port = Number(parts?.[3] ?? Number.NaN);
  if (!(port <= 65_535)) throw new Error("address must be host:port, [host]:port or :port");
  const host = parts?.[1] ?? parts?.[2] ?? "";
  return host === "" ? { port } : { host, port };
}
