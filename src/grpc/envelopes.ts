import { Code, ConnectError } from "@connectrpc/connect";
import { Chunks } from "../chunks.ts";
import type { Http2Stream } from "../http2/stream.ts";
import { lasting } from "../memory.ts";
import { Intake } from "./intake.ts";

/** What goes before each message on the wire: a byte of flags, four of length. */
export const PREFIX_BYTES = 5;
/** The flag of a compressed message. */
export const COMPRESSED = 0b1;
/** Bytes of messages that wait for their handler, above which the caller is held back. */
const WAITING_BYTES = 64 * 1024;

/** One message as it travels. */
export interface Envelope {
  readonly compressed: boolean;
  readonly data: Buffer;
}

/**
 * The messages of a request, as whole ones, each made of what has come when it is asked for. Their sender is held back while
 * enough waits. A message that is announced as larger than `limit` bytes is RESOURCE_EXHAUSTED, and nothing after it is read.
 */
export class Envelopes {
  readonly #stream: Http2Stream;
  readonly #limit: number;
  readonly #chunks = new Intake();
  /** Length of the next message, once its prefix is here. */
  #length: number | undefined;
  #hasEnded = false;
  #failure: { reason: unknown } | undefined;
  #waiter: PromiseWithResolvers<Envelope | undefined> | undefined;

  constructor(stream: Http2Stream, limit: number) {
    this.#stream = stream;
    this.#limit = limit;
    stream.onData = (chunk) => this.#receive(chunk);
    stream.onEnd = () => {
      this.#hasEnded = true;
      this.#tell();
    };
  }

  /** The next message, undefined after the last. One call at a time. */
  next(): Promise<Envelope | undefined> {
    this.#waiter = Promise.withResolvers();
    const { promise } = this.#waiter;
    this.#tell();
    return promise;
  }

  /** Ends them with `reason`, also for who waits. What has come is dropped. */
  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#chunks.clear();
    this.#tell();
  }

  #receive(chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    this.#chunks.add(chunk);
    this.#tell();
    if (this.#chunks.bytes > WAITING_BYTES && this.#isWhole()) this.#stream.pause();
  }

  /** Tells who waits, if there is what it waits for. */
  #tell(): void {
    const waiter = this.#waiter;
    if (waiter === undefined) return;
    const isWhole = this.#isWhole();
    if (!isWhole && !this.#hasEnded && this.#failure === undefined) {
      this.#stream.resume();
      return;
    }
    this.#waiter = undefined;
    if (this.#failure !== undefined) waiter.reject(this.#failure.reason);
    else if (isWhole) waiter.resolve(this.#take());
    else if (this.#chunks.bytes > 0) waiter.reject(incomplete());
    else waiter.resolve(undefined);
  }

  /** Whether the next message is here. Fails for one that is too large. */
  #isWhole(): boolean {
    this.#length ??= announcedAt(this.#chunks);
    if (this.#length === undefined) return false;
    if (this.#length <= this.#limit) return this.#chunks.bytes >= PREFIX_BYTES + this.#length;
    this.#stream.pause(); // until the answer is out; then what still comes is thrown away
    this.#failure ??= { reason: tooLarge(this.#length, this.#limit) };
    this.#chunks.clear();
    return false;
  }

  #take(): Envelope {
    const bytes = this.#chunks.take(PREFIX_BYTES + (this.#length ?? 0));
    this.#length = undefined;
    return { compressed: (bytes.readUInt8() & COMPRESSED) !== 0, data: bytes.subarray(PREFIX_BYTES) };
  }
}

/** Who is told, once, what came of a request that has to have one message. */
export interface Receiver {
  /** The request has ended; this was its message, with its prefix. */
  received(frame: Buffer): void;
  failed(reason: unknown): void;
}

/**
 * The message of a request that has to have one and no other. Of a short call it is a good part, so it keeps apart from
 * `Envelopes`, and does less, and tells its receiver without a promise. It fails with UNIMPLEMENTED where there is no message or
 * more than one, and with RESOURCE_EXHAUSTED, before the rest of it is read, where that is announced as larger than `limit`.
 */
export class OnlyEnvelope {
  readonly #stream: Http2Stream;
  readonly #limit: number;
  readonly #receiver: Receiver;
  readonly #chunks = new Chunks();
  /** Bytes of the message with its prefix, once that is here. */
  #length: number | undefined;
  #isOver = false;

  constructor(stream: Http2Stream, limit: number, receiver: Receiver) {
    this.#stream = stream;
    this.#limit = limit;
    this.#receiver = receiver;
    stream.onData = (chunk) => this.#receive(chunk);
    stream.onEnd = () => this.#end();
  }

  /** Ends it with `reason`. What has come is dropped. */
  fail(reason: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#chunks.clear();
    this.#receiver.failed(reason);
  }

  #receive(chunk: Buffer): void {
    if (this.#isOver) return;
    const chunks = this.#chunks;
    chunks.add(lasting(chunk));
    if (this.#length === undefined) {
      const length = announcedIn(chunks);
      if (length === undefined) return;
      if (length > this.#limit) {
        this.#stream.pause(); // until the answer is out; then what still comes is thrown away
        this.fail(tooLarge(length, this.#limit));
        return;
      }
      this.#length = PREFIX_BYTES + length;
    }
    if (chunks.bytes > this.#length) this.fail(cardinality("received extra input message"));
  }

  #end(): void {
    const { bytes } = this.#chunks;
    if (bytes === 0) this.fail(cardinality("missing input message"));
    else if (bytes !== this.#length) this.fail(incomplete());
    if (this.#isOver) return;
    this.#isOver = true;
    this.#receiver.received(this.#chunks.take(bytes));
  }
}

/** The length that the next message announces, once its prefix is here. */
const announcedIn = (chunks: Chunks): number | undefined =>
  chunks.bytes < PREFIX_BYTES ? undefined : chunks.first(PREFIX_BYTES).readUInt32BE(1);

const announcedAt = (intake: Intake): number | undefined => {
  if (intake.bytes < PREFIX_BYTES) return undefined;
  let length = 0;
  for (let place = 1; place < PREFIX_BYTES; place++) length = length * 256 + (intake.at(place) ?? 0);
  return length;
};

function tooLarge(bytes: number, limit: number): ConnectError {
  const text = `message size ${bytes} is larger than configured readMaxBytes ${limit}`;
  return new ConnectError(text, Code.ResourceExhausted);
}

const incomplete = () => new ConnectError("protocol error: incomplete envelope", Code.InvalidArgument);

const cardinality = (text: string) => new ConnectError(`protocol error: ${text} for unary method`, Code.Unimplemented);
