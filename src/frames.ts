/*
 * What a client may do to an HTTP/2 connection that costs the server more than the client, told from the headers of frames
 * alone (RFC 9113 section 10.5). node:http2 of Bun 1.4.5 takes CONTINUATION, PRIORITY, WINDOW_UPDATE and unknown frames
 * without any bound, thousands of resets, and whatever many streams fit into one read.
 */

/** So many at once, and so many again each second. */
interface Allowance {
  readonly burst: number;
  readonly perSecond: number;
}

/**
 * Each is well above what the busiest clients were seen to send (grpc-go over loopback asks for the round trip time with
 * every answer; node:http2 opens the window for every frame), and well below what costs a server more than a few percent
 * of a core.
 */
const ALLOWANCES = {
  /** New streams, which are calls: a bound of one read, not of the rate of a busy client. */
  streams: { burst: 10_000, perSecond: 100_000 },
  /** RST_STREAM: cancelled calls, deadlines; one for each call that ended before its client had said all. */
  resets: { burst: 1_500, perSecond: 500 },
  /** Bytes of header blocks, which have to be decoded in full. */
  headerBytes: { burst: 8 * 1024 * 1024, perSecond: 8 * 1024 * 1024 },
  pings: { burst: 1_000, perSecond: 10_000 },
  settings: { burst: 100, perSecond: 10 },
  /** WINDOW_UPDATE, and DATA of a few bytes or none: keystrokes, resizes, small messages. */
  small: { burst: 25_000, perSecond: 50_000 },
  /** DATA that holds nothing and ends nothing. */
  empty: { burst: 1_000, perSecond: 100 },
  /** PRIORITY, acknowledgements, GOAWAY, trailers and kinds that nobody knows: nobody needs many. */
  others: { burst: 1_000, perSecond: 100 },
} as const satisfies Record<string, Allowance>;

export type FrameKind = keyof typeof ALLOWANCES;
const KINDS = Object.keys(ALLOWANCES) as FrameKind[]; // the keys of a constant object are its type's

/** Header fields of one request as they travel, in bytes; node:http2 takes no more (Bun 1.4.5), and does not say why. */
const MAX_BLOCK_BYTES = 64 * 1024;
/** A block of that size needs four. */
const MAX_CONTINUATIONS = 16;
/** DATA below so many bytes costs what its frame does. */
const SMALL_BYTES = 64;

/** What is used is given back so often, and when something is used up. */
const FILL_MS = 100;

const PREFACE_BYTES = 24;
const HEADER_BYTES = 9;
const [DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION] = [0, 1, 3, 4, 6, 8, 9];
const END_STREAM = 0x1;
const ACK = 0x1;
const END_HEADERS = 0x4;

/** Why a connection is to be ended. */
export type Violation = FrameKind | "headerBlock";

/**
 * Reads the bytes that a client sends on one HTTP/2 connection, from its preface on and in any pieces, and keeps count of
 * its frames. Looks at their headers only, and keeps no byte of them. What is malformed is left to who reads the frames.
 */
export class FrameCounter {
  readonly #left: Record<FrameKind, number>;
  #filledAt: number;
  #now: number;
  readonly #header = new Uint8Array(HEADER_BYTES);
  #headerLength = 0;
  /** Bytes to come that are no header of a frame. */
  #skip = PREFACE_BYTES;
  #lastStream = 0;
  #streams = 0;
  #blockBytes = 0;
  #continuations = 0;
  #blockSince: number | undefined;

  /** `now` in ms, here and later of the same clock. */
  constructor(now: number) {
    this.#filledAt = now;
    this.#now = now;
    this.#left = Object.fromEntries(KINDS.map((kind) => [kind, ALLOWANCES[kind].burst])) as Record<FrameKind, number>; // of all KINDS
  }

  /** How many streams the client has opened. */
  get streams(): number {
    return this.#streams;
  }

  /** Since when the fields of a request are on their way and not complete, in ms of the clock; undefined: they are not. */
  get blockSince(): number | undefined {
    return this.#blockSince;
  }

  /** Takes the next bytes; returns what they overdo, and must not be called again then. */
  read(bytes: Uint8Array, now: number): Violation | undefined {
    this.#now = now;
    if (now - this.#filledAt >= FILL_MS) this.#fill();
    for (let at = 0; at < bytes.length; ) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, bytes.length - at);
        this.#skip -= skipped;
        at += skipped;
        continue;
      }
      let header = bytes;
      let start = at;
      if (this.#headerLength > 0 || bytes.length - at < HEADER_BYTES) {
        const part = bytes.subarray(at, at + HEADER_BYTES - this.#headerLength);
        this.#header.set(part, this.#headerLength);
        this.#headerLength += part.length;
        at += part.length;
        if (this.#headerLength < HEADER_BYTES) return undefined;
        this.#headerLength = 0;
        header = this.#header;
        start = 0;
      } else at += HEADER_BYTES;
      const violation = this.#count(header, start);
      if (violation !== undefined) return violation;
    }
    return undefined;
  }

  #fill(): void {
    const seconds = (this.#now - this.#filledAt) / 1000;
    if (seconds <= 0) return;
    this.#filledAt = this.#now;
    for (const kind of KINDS) {
      const { burst, perSecond } = ALLOWANCES[kind];
      this.#left[kind] = Math.min(burst, this.#left[kind] + perSecond * seconds);
    }
  }

  /** The frame whose header begins at `at`. */
  #count(bytes: Uint8Array, at: number): Violation | undefined {
    const length = (byte(bytes, at) << 16) | (byte(bytes, at + 1) << 8) | byte(bytes, at + 2);
    const flags = byte(bytes, at + 4);
    this.#skip = length;
    switch (byte(bytes, at + 3)) {
      case DATA:
        if (length === 0 && (flags & END_STREAM) === 0) return this.#take("empty");
        return length < SMALL_BYTES ? this.#take("small") : undefined;
      case HEADERS: {
        const stream =
          ((byte(bytes, at + 5) & 0x7f) << 24) |
          (byte(bytes, at + 6) << 16) |
          (byte(bytes, at + 7) << 8) |
          byte(bytes, at + 8);
        this.#blockBytes = 0;
        this.#continuations = 0;
        this.#blockSince = this.#now;
        return this.#block(length, flags) ?? this.#open(stream);
      }
      case CONTINUATION:
        this.#continuations += 1;
        return this.#continuations > MAX_CONTINUATIONS ? "headerBlock" : this.#block(length, flags);
      case RST_STREAM:
        return this.#take("resets");
      case SETTINGS:
        return this.#take((flags & ACK) === 0 ? "settings" : "others");
      case PING:
        return this.#take((flags & ACK) === 0 ? "pings" : "others");
      case WINDOW_UPDATE:
        return this.#take("small");
      default:
        return this.#take("others");
    }
  }

  #block(length: number, flags: number): Violation | undefined {
    this.#blockBytes += length;
    if ((flags & END_HEADERS) !== 0) this.#blockSince = undefined;
    return this.#blockBytes > MAX_BLOCK_BYTES ? "headerBlock" : this.#take("headerBytes", length);
  }

  #open(stream: number): Violation | undefined {
    if (stream <= this.#lastStream) return this.#take("others"); // trailers, which calls here have none of
    this.#lastStream = stream;
    this.#streams += 1;
    return this.#take("streams");
  }

  #take(kind: FrameKind, count = 1): Violation | undefined {
    this.#left[kind] -= count;
    if (this.#left[kind] >= 0) return undefined;
    this.#fill();
    return this.#left[kind] < 0 ? kind : undefined;
  }
}

/** The caller knows that it is there. */
const byte = (bytes: Uint8Array, at: number): number => bytes[at] ?? 0;
