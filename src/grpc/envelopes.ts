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
/**
 * An only message of more bytes gets memory for all of it once this part is here, and is not put together at its end. Not as soon
 * as it is announced: that costs its sender nothing.
 */
const LARGE_BYTES = 256 * 1024;
const LARGE_PART = 1 / 16;

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
  /** Bytes that are here. */
  #bytes = 0;
  /** Bytes of the message with its prefix, once that is here. */
  #length: number | undefined;
  /** In place of the chunks: memory of that length. */
  #whole: Buffer<ArrayBuffer> | undefined;
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
    this.#drop();
    this.#receiver.failed(reason);
  }

  #receive(chunk: Buffer): void {
    if (this.#isOver) return;
    const at = this.#bytes;
    this.#bytes += chunk.length;
    if (this.#whole === undefined) this.#chunks.add(lasting(chunk));
    else if (this.#bytes <= this.#whole.length) this.#whole.set(chunk, at);
    this.#length ??= this.#announced();
    const length = this.#length;
    if (length === undefined || this.#isOver) return;
    if (this.#bytes > length) this.fail(cardinality("received extra input message"));
    else if (this.#whole === undefined && length > LARGE_BYTES && this.#bytes >= length * LARGE_PART)
      this.#gather(length);
  }

  /** With its prefix. Fails where it is too large. */
  #announced(): number | undefined {
    const length = announcedIn(this.#chunks);
    if (length === undefined) return undefined;
    if (length > this.#limit) {
      this.#stream.pause(); // until the answer is out; then what still comes is thrown away
      this.fail(tooLarge(length, this.#limit));
    }
    return PREFIX_BYTES + length;
  }

  #gather(length: number): void {
    this.#whole = Buffer.allocUnsafeSlow(length);
    this.#stream.allow(length - this.#bytes); // of the stream's window alone, each length would cost a way there and back
    this.#whole.set(this.#chunks.take(this.#bytes));
  }

  #end(): void {
    if (this.#bytes === 0) this.fail(cardinality("missing input message"));
    else if (this.#bytes !== this.#length) this.fail(incomplete());
    if (this.#isOver) return;
    this.#isOver = true;
    const frame = this.#whole ?? this.#chunks.take(this.#bytes);
    this.#drop();
    this.#receiver.received(frame);
  }

  #drop(): void {
    this.#chunks.clear();
    this.#whole = undefined;
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
