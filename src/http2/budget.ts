/*
 * What a client may do to an HTTP/2 connection that costs the server more than the client, told from the headers of frames
 * alone (RFC 9113 section 10.5).
 */

/** So many at once, and so many again each second. */
interface Allowance {
  readonly burst: number;
  readonly perSecond: number;
}

/**
 * Each is well above what the busiest clients were seen to send (node:http2 opens the window for every frame), and well below
 * what costs a server more than a few percent of a core.
 */
const ALLOWANCES = {
  /** New streams, which are calls: a bound of one read, not of the rate of a busy client. */
  streams: { burst: 10_000, perSecond: 100_000 },
  /** RST_STREAM: cancelled calls, deadlines; one for each call that ended before its client had said all. */
  resets: { burst: 1_500, perSecond: 500 },
  /** Bytes of header blocks, which have to be decoded in full. */
  headerBytes: { burst: 8 * 1024 * 1024, perSecond: 4 * 1024 * 1024 },
  /** Beside those that are earned: grpc-go asks for the round trip time with every answer. */
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

/** Header fields of one request as they travel, in bytes. */
const MAX_BLOCK_BYTES = 64 * 1024;
/** A block of that size needs four. */
const MAX_CONTINUATIONS = 16;
/** DATA below so many bytes costs what its frame does. */
const SMALL_BYTES = 64;

/** What is used is given back so often, and when something is used up. */
const FILL_MS = 100;

/** Why a connection is to be ended. */
export type Violation = FrameKind | "headerBlock" | "unread";

/** What one client may still do on its connection. */
export class Budget {
  readonly #left: Record<FrameKind, number>;
  #filledAt: number;
  #now: number;
  #blockBytes = 0;
  #continuations = 0;

  /** `now` in ms, here and later of the same clock. */
  constructor(now: number) {
    this.#filledAt = now;
    this.#now = now;
    this.#left = Object.fromEntries(KINDS.map((kind) => [kind, ALLOWANCES[kind].burst])) as Record<FrameKind, number>; // of all KINDS
  }

  /** What is spent from now on is spent at this time. */
  at(now: number): void {
    this.#now = now;
    if (now - this.#filledAt >= FILL_MS) this.#fill();
  }

  /** Returns what is used up, and must not be called again then. */
  spend(kind: FrameKind, count = 1): Violation | undefined {
    this.#left[kind] -= count;
    if (this.#left[kind] >= 0) return undefined;
    this.#fill();
    return this.#left[kind] < 0 ? kind : undefined;
  }

  /** For DATA that the server sends: with each, and so as fast as it is served, a client may ask for the round trip time. */
  earnPing(): void {
    this.#left.pings = Math.min(ALLOWANCES.pings.burst, this.#left.pings + 1);
  }

  /** For so many bytes of DATA. What ends a stream comes once for each, and is in its price. */
  spendData(bytes: number, endsStream: boolean): Violation | undefined {
    if (endsStream || bytes >= SMALL_BYTES) return undefined;
    return this.spend(bytes === 0 ? "empty" : "small");
  }

  /** For a part of a header block: the first, or one that goes on. */
  spendBlock(bytes: number, isFirst: boolean): Violation | undefined {
    this.#continuations = isFirst ? 0 : this.#continuations + 1;
    this.#blockBytes = bytes + (isFirst ? 0 : this.#blockBytes);
    if (this.#continuations > MAX_CONTINUATIONS || this.#blockBytes > MAX_BLOCK_BYTES) return "headerBlock";
    return this.spend("headerBytes", bytes);
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
}
