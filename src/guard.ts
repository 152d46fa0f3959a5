import {
  constants,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type ServerOptions,
} from "node:http2";
import type { Socket } from "node:net";
import { Bag, type Member } from "./bag.ts";
import { FrameCounter, type Violation } from "./frames.ts";
import type { LimitName, Limits, Usage } from "./limits.ts";
import type { Log } from "./log.ts";

/** How often connections are looked at, at least: every time that is allowed may last so much longer. */
const LOOK_MS = 1_000;
/** A client that is ended for its frames is told of in the log at most so often. */
const WARN_MS = 60_000;
/** How long a client that is sent away may take to read why: what it still sends would make its system drop that unread. */
const PARTING_MS = 250;
/**
 * GOAWAY with ENHANCE_YOUR_CALM, which says nothing of what calls were answered. As bytes: that of node:http2 is not on its
 * way yet when the connection is ended after it (Bun 1.4.5).
 */
const GOAWAY = Buffer.from("0000080700000000007fffffff0000000b", "hex");
/** In bytes, each field counted with 32 more (RFC 9113): above it clients refuse a call themselves, and their connection lives. */
const MAX_HEADER_LIST = 64 * 1024;

/**
 * What node:http2 itself bounds, above what the guard does, so that the guard's own count: left alone it ends a connection
 * where more than 33 calls a second are cancelled, or end before their clients have said all (Bun 1.4.5), and one whose
 * client opens 100 streams too many before it has heard how many it may.
 */
const HTTP2_OPTIONS = { streamResetBurst: 10_000, streamResetRate: 10_000, maxSessionRejectedStreams: 10_000 };

/** What the listener knows of a connection. */
export interface Connection {
  protocol: "unknown" | "http1" | "http2";
  /** HTTP/1.1 requests under way. */
  requests: number;
}

/** An HTTP/2 stream, and since when an answer that is complete waits to be read. */
interface OpenStream extends Member {
  readonly stream: ServerHttp2Stream;
  unreadSince: number | undefined;
}

/** A connection and what it does. Times are of performance.now(). */
interface Watched {
  readonly connection: Connection;
  readonly address: string | undefined;
  readonly since: number;
  /** Of HTTP/2. */
  session: ServerHttp2Session | undefined;
  frames: FrameCounter | undefined;
  /** HTTP/2 streams that are open. */
  readonly streams: Bag<OpenStream>;
  /** Streams that the server has told of or refused, of those that the client has opened. */
  known: number;
  heardAt: number;
  /** Since when there is no stream. */
  quietSince: number;
  pingedAt: number | undefined;
  /** HTTP/1.1: bytes read when the last request had ended, and since when there are more without a request. */
  read: number;
  headerSince: number | undefined;
}

const lookMs = ({ headerMs, responseMs, idleMs, keepaliveMs, keepaliveTimeoutMs }: Limits): number =>
  Math.min(LOOK_MS, headerMs / 4, responseMs / 4, idleMs / 4, keepaliveMs / 4, keepaliveTimeoutMs / 4);

/**
 * Keeps connections within the limits: how many there are, what they send before anything reads it, how long they may take
 * over a header, be silent, be of no use, and leave an answer unread. One that overdoes it is ended for itself alone.
 */
export class Guard {
  readonly #usage: Usage;
  readonly #log: Log;
  readonly #watched = new Map<Socket, Watched>();
  readonly #sessions = new Map<ServerHttp2Session, Watched>();
  readonly #addresses = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #warnedAt = Number.NEGATIVE_INFINITY;

  constructor(usage: Usage, log: Log) {
    this.#usage = usage;
    this.#log = log;
  }

  /** For the server that connections are handed to. */
  get http2Options(): ServerOptions {
    const { streamsPerConnection: maxConcurrentStreams } = this.#usage.limits;
    return { ...HTTP2_OPTIONS, settings: { maxConcurrentStreams, maxHeaderListSize: MAX_HEADER_LIST } };
  }

  /** Takes a connection that has just come; says false, and drops it, when there are too many. */
  admit(socket: Socket, connection: Connection): boolean {
    const address = socket.remoteAddress;
    const known = address === undefined ? 0 : (this.#addresses.get(address) ?? 0);
    if (address !== undefined && known >= this.#usage.limits.connectionsPerAddress) {
      this.#usage.refuse("connectionsPerAddress");
      socket.destroy();
      return false;
    }
    if (!this.#usage.take("connections")) {
      socket.destroy();
      return false;
    }
    if (address !== undefined) this.#addresses.set(address, known + 1);
    const now = performance.now();
    const watched: Watched = {
      connection,
      address,
      since: now,
      session: undefined,
      frames: undefined,
      streams: new Bag(),
      known: 0,
      heardAt: now,
      quietSince: now,
      pingedAt: undefined,
      read: 0,
      headerSince: undefined,
    };
    this.#watched.set(socket, watched);
    socket.once("close", () => this.#forget(socket, watched));
    this.#timer ??= setInterval(() => this.#look(performance.now()), lookMs(this.#usage.limits)).unref();
    return true;
  }

  /**
   * Gives a connection to the server for HTTP/2 by `give`, which emits its event `connection`, and from then on reads first
   * what comes. The session must not find the native part of the socket, for it would read from there, below every listener
   * (Bun 1.4.5): `joined` hides it.
   */
  hand(socket: Socket, server: Http2Server, give: () => void): void {
    const watched = this.#watched.get(socket);
    const keep = (session: ServerHttp2Session) => {
      if (watched === undefined) return;
      watched.session = session;
      this.#sessions.set(session, watched);
    };
    server.once("session", keep);
    give(); // tells of its session at once
    server.off("session", keep);
    if (watched === undefined) return;
    const frames = new FrameCounter(performance.now());
    watched.frames = frames;
    const readers = socket.listeners("data");
    socket.removeAllListeners("data");
    let isOver = false;
    socket.on("data", (chunk) => {
      if (isOver || typeof chunk === "string") return; // it never is: no encoding is set
      const now = performance.now();
      watched.heardAt = now;
      const violation = frames.read(chunk, now);
      if (violation !== undefined) {
        isOver = true;
        this.#calm(socket, watched, violation);
        return;
      }
      for (const reader of readers) reader.call(socket, chunk);
      if (watched.streams.size >= this.#usage.limits.streamsPerConnection) this.#countRefused(watched, frames);
    });
  }

  /** Takes a stream that has just been opened; says false, and refuses it, when there are too many. */
  open(stream: ServerHttp2Stream): boolean {
    const watched = stream.session === undefined ? undefined : this.#sessions.get(stream.session as ServerHttp2Session); // a server's streams have none other
    if (watched === undefined) return true;
    watched.known += 1;
    if (!this.#usage.take("streams")) {
      stream.close(constants.NGHTTP2_REFUSED_STREAM);
      return false;
    }
    const opened: OpenStream = { place: undefined, stream, unreadSince: undefined };
    watched.streams.add(opened);
    stream.on("close", () => {
      if (!watched.streams.delete(opened)) return; // given back with its connection
      this.#usage.give("streams");
      if (watched.streams.size === 0) watched.quietSince = performance.now();
    });
    return true;
  }

  /** The server refuses by itself what a client opens above what it was told, and tells nobody. */
  #countRefused(watched: Watched, { streams, blockSince }: FrameCounter): void {
    const unknown = streams - watched.known - (blockSince === undefined ? 0 : 1);
    if (unknown <= 0) return;
    watched.known += unknown;
    this.#usage.refuse("streamsPerConnection", unknown);
  }

  #forget(socket: Socket, watched: Watched): void {
    this.#watched.delete(socket);
    if (watched.session !== undefined) this.#sessions.delete(watched.session);
    this.#usage.give("connections");
    this.#usage.give("streams", watched.streams.size);
    watched.streams.clear();
    if (watched.address !== undefined) {
      const left = (this.#addresses.get(watched.address) ?? 1) - 1;
      if (left === 0) this.#addresses.delete(watched.address);
      else this.#addresses.set(watched.address, left);
    }
    if (this.#watched.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #look(now: number): void {
    for (const [socket, watched] of this.#watched) {
      if (watched.connection.protocol === "http2") this.#lookHttp2(socket, watched, now);
      else this.#lookHttp1(socket, watched, now);
    }
  }

  /** Also for a connection that has not told what it speaks: its first bytes are those of a header. */
  #lookHttp1(socket: Socket, watched: Watched, now: number): void {
    if (watched.connection.requests > 0) {
      watched.headerSince = undefined;
      watched.read = socket.bytesRead;
      return;
    }
    const isFirst = watched.connection.protocol === "unknown";
    if (!isFirst && socket.bytesRead === watched.read) return;
    watched.headerSince ??= isFirst ? watched.since : now;
    if (now - watched.headerSince >= this.#usage.limits.headerMs) this.#drop(socket, watched, "headerMs");
  }

  #lookHttp2(socket: Socket, watched: Watched, now: number): void {
    const { limits } = this.#usage;
    const { frames, session } = watched;
    if (frames === undefined || session === undefined || session.destroyed) return;
    if (now - (frames.blockSince ?? now) >= limits.headerMs) this.#drop(socket, watched, "headerMs");
    else if (watched.streams.size > 0) this.#closeUnread(watched, now);
    else if (now - watched.quietSince >= limits.idleMs && !session.closed) {
      this.#usage.refuse("idleMs");
      session.close(); // by GOAWAY, so that no call is lost
    }
    this.#keepAlive(socket, watched, now);
  }

  /** Asks a silent client whether it is there, and drops one that does not answer. */
  #keepAlive(socket: Socket, watched: Watched, now: number): void {
    const { keepaliveMs, keepaliveTimeoutMs } = this.#usage.limits;
    const { session, heardAt, pingedAt } = watched;
    if (session === undefined || session.destroyed) return;
    if (pingedAt !== undefined && heardAt < pingedAt) {
      if (now - pingedAt >= keepaliveTimeoutMs) this.#drop(socket, watched, "keepaliveTimeoutMs");
    } else if (now - heardAt >= keepaliveMs) {
      watched.pingedAt = now;
      session.ping(() => undefined); // whatever is heard then counts
    }
  }

  /** Ends streams whose answer is complete and is not read: it would be kept for as long as its client likes. */
  #closeUnread({ streams }: Watched, now: number): void {
    for (const opened of streams) {
      const { stream } = opened;
      if (!stream.writableEnded) continue;
      opened.unreadSince ??= now;
      if (now - opened.unreadSince >= this.#usage.limits.responseMs) {
        this.#usage.refuse("responseMs");
        stream.close(constants.NGHTTP2_CANCEL);
      }
    }
  }

  #drop(socket: Socket, { address }: Watched, limit: LimitName): void {
    this.#usage.refuse(limit);
    this.#log.debug({ address, limit }, "connection dropped");
    socket.destroy();
  }

  /** Ends a connection whose client does what costs the server more than itself. */
  #calm(socket: Socket, { session, address }: Watched, kind: Violation): void {
    this.#usage.refuse("frames");
    const now = performance.now();
    const level = now - this.#warnedAt > WARN_MS ? "warn" : "debug"; // who comes again and again fills no log
    if (level === "warn") this.#warnedAt = now;
    this.#log[level]({ address, frames: kind }, "HTTP/2 connection ended: more frames than any client needs");
    const end = () => {
      clearTimeout(timer);
      if (session?.destroyed === false) session.destroy();
      socket.destroy();
    };
    const timer = setTimeout(end, PARTING_MS);
    socket.once("end", end);
    socket.end(GOAWAY);
  }
}
