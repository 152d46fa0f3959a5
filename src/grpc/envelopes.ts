import type { ServerHttp2Stream } from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";

/** What goes before each message on the wire: a byte of flags, four of length. */
export const PREFIX_BYTES = 5;
/** The flag of a compressed message. */
export const COMPRESSED = 0b1;
/** Bytes of messages that wait for their handler, above which the caller is held back. */
const WAITING_BYTES = 64 * 1024;

/** One message as it travels. */
export interface Envelope {
  readonly compressed: boolean;
  readonly data: Uint8Array;
}

/**
 * The messages of a request, as whole ones. Their sender is held back while enough of them wait to be taken.
 * A message that is announced as larger than `limit` bytes is RESOURCE_EXHAUSTED, and nothing after it is read.
 */
export class Envelopes {
  readonly #stream: ServerHttp2Stream;
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
  /** Who waits for the only message of all. */
  #whole: PromiseWithResolvers<Envelope> | undefined;
  #only: Envelope | undefined;

  constructor(stream: ServerHttp2Stream, limit: number) {
    this.#stream = stream;
    this.#limit = limit;
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("end", () => this.#end());
  }

  /** The next message, undefined after the last. One call at a time. */
  next(): Promise<Envelope | undefined> {
    const envelope = this.#ready.shift();
    if (envelope !== undefined) {
      this.#readyBytes -= envelope.data.length;
      if (this.#ready.length === 0 && this.#stream.isPaused()) this.#stream.resume();
      return Promise.resolve(envelope);
    }
    if (this.#failure !== undefined) return Promise.reject(this.#failure.reason);
    if (this.#ended) return Promise.resolve(undefined);
    this.#waiter = Promise.withResolvers();
    return this.#waiter.promise;
  }

  /**
   * The message of a request that has to have one, once the request has ended; to be called before anything of it has come,
   * and without `next`. Rejects with UNIMPLEMENTED when there is none, or more of them.
   */
  single(): Promise<Envelope> {
    this.#whole = Promise.withResolvers();
    if (this.#failure !== undefined) this.#whole.reject(this.#failure.reason);
    return this.#whole.promise;
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
    if (this.#whole !== undefined) {
      if (this.#only !== undefined) this.#break(cardinality("received extra input message"));
      this.#only = envelope;
      return;
    }
    this.#ready.push(envelope);
    this.#readyBytes += envelope.data.length;
    if (this.#readyBytes > WAITING_BYTES) this.#stream.pause();
  }

  #end(): void {
    if (this.#bytes > 0) this.#break(new ConnectError("protocol error: incomplete envelope", Code.InvalidArgument));
    this.#ended = true;
    if (this.#only !== undefined) this.#whole?.resolve(this.#only);
    else this.#whole?.reject(cardinality("missing input message"));
    this.#waiter?.resolve(undefined);
    this.#waiter = undefined;
  }

  #break(reason: unknown): void {
    this.#failure ??= { reason };
    this.#chunks = [];
    this.#bytes = 0;
    this.#waiter?.reject(reason);
    this.#waiter = undefined;
    this.#whole?.reject(reason);
  }
}

function tooLarge(bytes: number, limit: number): ConnectError {
  const text = `message size ${bytes} is larger than configured readMaxBytes ${limit}`;
  return new ConnectError(text, Code.ResourceExhausted);
}

const cardinality = (text: string) => new ConnectError(`protocol error: ${text} for unary method`, Code.Unimplemented);
