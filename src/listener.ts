import { createServer as createHttp1Server, type ServerResponse } from "node:http";
import { createServer, type ListenOptions, type Server, type Socket } from "node:net";
import { TLSSocket, type Server as TlsServer } from "node:tls";
import type { Exchange } from "./exchange.ts";
import { type Connection, Guard } from "./guard.ts";
import { Http1Exchange } from "./http1.ts";
import { Http2Connection, type Http2Options } from "./http2/connection.ts";
import { Http2Exchange } from "./http2/exchange.ts";
import { PREFACE } from "./http2/frame.ts";
import type { Http2Stream } from "./http2/stream.ts";
import { Usage } from "./limits.ts";
import type { Log } from "./log.ts";
import { contextOf, type TlsMaterial, tlsServer } from "./tls.ts";

export type HttpHandler = (exchange: Exchange) => void;
/** Takes an HTTP/2 stream as it is, or leaves it to the HttpHandler and says so by false. */
export type StreamHandler = (stream: Http2Stream) => boolean;

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

/** As much of what every HTTP/2 connection begins with as it takes to tell it from HTTP/1.1. */
const DISTINCT = PREFACE.subarray(0, 12);
/** To who speaks HTTP/2 over TLS without having agreed on it (section 3.2). */
const NO_ALPN = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\nHTTP/2 over TLS has to be agreed on by ALPN: h2\n";
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
/** One TCP port, and a Unix socket if asked, for HTTP/1.1 and HTTP/2 with prior knowledge, and every connection on them. */
export class Listener {
  readonly #log: Log;
  readonly #idleMs: number;
  readonly #guard: Guard;
  readonly #connections = new Map<Socket, Connection>();
  readonly #server: Server;
  readonly #tls: TlsServer | undefined;
  /** For connections from this machine: what comes through it is served as what comes over TCP. */
  readonly #local = createServer((socket) => this.#begin(socket));
  readonly #http1;
  readonly #http2Options: Http2Options;
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
      handle(new Http1Exchange(request, response));
    });
    const serve = (stream: Http2Stream): void => {
      if (!handleStream(stream)) handle(new Http2Exchange(stream));
    };
    this.#http2Options = { usage, log, serve, overdone: (kind, address) => this.#guard.overdone(kind, address) };
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
    for (const [socket, { http2, requests }] of this.#connections) {
      if (http2 !== undefined) http2.close();
      else if (requests === 0) socket.destroy();
    }
    this.#settle();
  }

  /** Drops every connection, whatever is under way on it. */
  destroy(): void {
    this.drain();
    for (const [socket, { http2 }] of this.#connections) {
      if (http2 !== undefined) http2.destroy();
      else socket.destroy();
    }
  }

  /** Knows a connection from when it comes until it has gone; undefined when it is refused. */
  #track(socket: Socket): Connection | undefined {
    const connection: Connection = { isKnown: false, http2: undefined, requests: 0 };
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
      const length = Math.min(seen.length, DISTINCT.length);
      const isHttp2 = seen.subarray(0, length).equals(DISTINCT.subarray(0, length));
      if (isHttp2 && length < DISTINCT.length) return;
      socket.off("data", onData);
      connection.isKnown = true;
      if (isHttp2) this.#serveHttp2(socket, connection, seen);
      else {
        socket.pause();
        this.#http1.emit("connection", socket);
        // In this order: bytes put back before the new owner listens are lost (Bun 1.4.5).
        socket.unshift(seen);
        socket.resume();
      }
    };
    socket.on("data", onData);
  }

  #serveHttp2(socket: Socket, connection: Connection, seen: Buffer): void {
    if (socket instanceof TLSSocket && socket.alpnProtocol !== "h2") {
      socket.end(NO_ALPN);
      return;
    }
    socket.setTimeout(0);
    connection.http2 = new Http2Connection(socket, this.#http2Options);
    connection.http2.read(seen);
    if (this.#draining) connection.http2.close();
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

  #settle(): void {
    if (this.#draining && this.#connections.size === 0) this.#closed.resolve();
  }

  #debug(message: string, error: Error): void {
    this.#log.debug({ error }, message);
  }
}

/** Throws when `address` has no port, or one that is not a port number. */
function hostAndPort(address: string): { host?: string; port: number } {
  const parts = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(address);
  const port = Number(parts?.[3] ?? Number.NaN);
  if (!(port <= 65_535)) throw new Error("address must be host:port, [host]:port or :port");
  const host = parts?.[1] ?? parts?.[2] ?? "";
  return host === "" ? { port } : { host, port };
}
