import type { Socket } from "node:net";
import type { Violation } from "./http2/budget.ts";
import type { Http2Connection } from "./http2/connection.ts";
import type { LimitName, Limits, Usage } from "./limits.ts";
import type { Log } from "./log.ts";

/** How often connections are looked at, at least: every time that is allowed may last so much longer. */
const LOOK_MS = 1_000;
/** A client that is ended for its frames is told of in the log at most so often. */
const WARN_MS = 60_000;

/** What the listener knows of a connection. */
export interface Connection {
  /** Whether its first bytes have told what it speaks. */
  isKnown: boolean;
  http2: Http2Connection | undefined;
  /** HTTP/1.1 requests under way. */
  requests: number;
}

/** A connection and what it does. Times are of performance.now(). */
interface Watched {
  readonly connection: Connection;
  readonly address: string | undefined;
  readonly since: number;
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
  readonly #addresses = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #warnedAt = Number.NEGATIVE_INFINITY;

  constructor(usage: Usage, log: Log) {
    this.#usage = usage;
    this.#log = log;
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
    const watched: Watched = { connection, address, since: performance.now(), read: 0, headerSince: undefined };
    this.#watched.set(socket, watched);
    socket.once("close", () => this.#forget(socket, watched));
    this.#timer ??= setInterval(() => this.#look(performance.now()), lookMs(this.#usage.limits)).unref();
    return true;
  }

  /** A client does what costs the server more than itself, and its connection is ended. */
  overdone(kind: Violation, address: string | undefined): void {
    this.#usage.refuse("frames");
    const now = performance.now();
    const level = now - this.#warnedAt > WARN_MS ? "warn" : "debug"; // who comes again and again fills no log
    if (level === "warn") this.#warnedAt = now;
    this.#log[level]({ address, frames: kind }, "HTTP/2 connection ended: more frames than any client needs");
  }

  #forget(socket: Socket, watched: Watched): void {
    this.#watched.delete(socket);
    this.#usage.give("connections");
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
      const { http2 } = watched.connection;
      const limit = http2 === undefined ? this.#lookHttp1(socket, watched, now) : http2.look(now);
      if (limit !== undefined) this.#drop(socket, watched, limit);
    }
  }

  /** Also for a connection that has not told what it speaks: its first bytes are those of a header. */
  #lookHttp1(socket: Socket, watched: Watched, now: number): LimitName | undefined {
    if (watched.connection.requests > 0) {
      watched.headerSince = undefined;
      watched.read = socket.bytesRead;
      return undefined;
    }
    const isFirst = !watched.connection.isKnown;
    if (!isFirst && socket.bytesRead === watched.read) return undefined;
    watched.headerSince ??= isFirst ? watched.since : now;
    return now - watched.headerSince >= this.#usage.limits.headerMs ? "headerMs" : undefined;
  }

  #drop(socket: Socket, { address }: Watched, limit: LimitName): void {
    this.#usage.refuse(limit);
    this.#log.debug({ address, limit }, "connection dropped");
    socket.destroy();
  }
}
