import { Code, ConnectError } from "@connectrpc/connect";
import type { Http2Stream } from "../http2/stream.ts";

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
 * The messages of a request, as whole ones. Their sender is held back while enough of them wait to be taken.
 * A message that is announced as larger than `limit` bytes is RESOURCE_EXHAUSTED, and nothing after it is read.
 */
export class Envelopes {
  readonly #stream: Http2Stream;
  readonly #limit: number;
  readonly #ready: Envelope[] = [];
  #readyBytes = 0;
  /** What has come of the next message. */
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** Length of the next message, once its prefix is here. */
  #length: number | undefined;
  #ended = false;
  #failure: { reason: unknown } | undefined;
  #waiter: PromiseWithResolvers<Envelope | undefined> | undefined;

  constructor(stream: Http2Stream, limit: number) {
    this.#stream = stream;
    this.#limit = limit;
    stream.onData = (chunk) => this.#receive(chunk);
    stream.onEnd = () => this.#end();
  }

  /** The next message, undefined after the last. One call at a time. */
  next(): Promise<Envelope | undefined> {
    const envelope = this.#ready.shift();
    if (envelope !== undefined) {
      this.#readyBytes -= envelope.data.length;
      if (this.#ready.length === 0) this.#stream.resume();
      return Promise.resolve(envelope);
    }
    if (this.#failure !== undefined) return Promise.reject(this.#failure.reason);
    if (this.#ended) return Promise.resolve(undefined);
    this.#waiter = Promise.withResolvers();
    return this.#waiter.promise;
  }

  /** Ends them with `reason`, also for who waits. What has come is dropped. */
  fail(reason: unknown): void {
    this.#ready.length = 0;
    this.#break(reason);
  }

  #receive(chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes < PREFIX_BYTES + (this.#length ?? 0)) return;
    let bytes = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks);
    while (bytes.length >= PREFIX_BYTES) {
      this.#length ??= bytes.readUInt32BE(1);
      if (this.#length > this.#limit) {
        this.#stream.pause(); // until the answer is out; then what still comes is thrown away
        this.#break(tooLarge(this.#length, this.#limit));
        return;
      }
      const end = PREFIX_BYTES + this.#length;
      if (bytes.length < end) break;
      this.#deliver({ compressed: (bytes.readUInt8() & COMPRESSED) !== 0, data: bytes.subarray(PREFIX_BYTES, end) });
      bytes = bytes.subarray(end);
      this.#length = undefined;
    }
    this.#chunks = bytes.length === 0 ? [] : [bytes];
    this.#bytes = bytes.length;
  }

  #deliver(envelope: Envelope): void {
    if (this.#waiter !== undefined) {
      this.#waiter.resolve(envelope);
      this.#waiter = undefined;
      return;
    }
    this.#ready.push(envelope);
    this.#readyBytes += envelope.data.length;
    if (this.#readyBytes > WAITING_BYTES) this.#stream.pause();
  }

  #end(): void {
    if (this.#bytes > 0) this.#break(incomplete());
    this.#ended = true;
    this.#waiter?.resolve(undefined);
    this.#waiter = undefined;
  }

  #break(reason: unknown): void {
    this.#failure ??= { reason };
    this.#chunks = [];
    this.#bytes = 0;
    this.#waiter?.reject(reason);
    this.#waiter = undefined;
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
  readonly #chunks: Buffer[] = [];
  #bytes = 0;
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
    this.#chunks.length = 0;
    this.#receiver.failed(reason);
  }

  #receive(chunk: Buffer): void {
    if (this.#isOver) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#length === undefined) {
      if (this.#bytes < PREFIX_BYTES) return;
      const length = this.#joined().readUInt32BE(1);
      if (length > this.#limit) {
        this.#stream.pause(); // until the answer is out; then what still comes is thrown away
        this.fail(tooLarge(length, this.#limit));
        return;
      }
      this.#length = PREFIX_BYTES + length;
    }
    if (this.#bytes > this.#length) this.fail(cardinality("received extra input message"));
  }

  #end(): void {
    if (this.#bytes === 0) this.fail(cardinality("missing input message"));
    else if (this.#bytes !== this.#length) this.fail(incomplete());
    if (this.#isOver) return;
    this.#isOver = true;
    this.#receiver.received(this.#joined());
  }

  #joined(): Buffer {
    const [first] = this.#chunks;
    return first !== undefined && this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks);
  }
}

function tooLarge(bytes: number, limit: number): ConnectError {
  const text = `message size ${bytes} is larger than configured readMaxBytes ${limit}`;
  return new ConnectError(text, Code.ResourceExhausted);
}

const incomplete = () => new ConnectError("protocol error: incomplete envelope", Code.InvalidArgument);

const cardinality = (text: string) => new ConnectError(`protocol error: ${text} for unary method`, Code.Unimplemented);
