import type { Message } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { encodeHeaders } from "../http2/hpack.ts";
import type { Http2Stream } from "../http2/stream.ts";
import { type Codec, framed, prefixed } from "./codec.ts";
import type { Compression } from "./compression.ts";
import type { CallContext } from "./context.ts";
import { COMPRESSED, PREFIX_BYTES } from "./envelopes.ts";

/** Smaller messages are not worth compressing, in bytes; as Connect's own handlers have it. */
const COMPRESS_FROM_BYTES = 1024;

const STATUS = [":status", "200"] as const;
const OK = encodeHeaders([["grpc-status", "0"]]);

/** Heads of answers that say nothing but what they are, by their content type. */
const heads = new Map<string, Uint8Array>();

/** The answer to one call: head, messages and status, on the stream that asked. */
export class Response {
  readonly #stream: Http2Stream;
  readonly #codec: Codec;
  readonly #compression: Compression | undefined;
  readonly #context: Pick<CallContext, "metadata">;
  /** Who waits for room in the stream. */
  #writer: PromiseWithResolvers<void> | undefined;
  #interruption: { reason: unknown } | undefined;

  /** `context` holds what the handler adds to the head of the answer, and to its end. */
  constructor(
    stream: Http2Stream,
    codec: Codec,
    compression: Compression | undefined,
    context: Pick<CallContext, "metadata">,
  ) {
    this.#stream = stream;
    this.#codec = codec;
    this.#compression = compression;
    this.#context = context;
    stream.onRoom = () => this.#writer?.resolve();
  }

  /** Writes a message; returns a promise where that has to wait, until the caller has read enough. */
  write(message: Message): Promise<void> | undefined {
    const parts = this.#compression === undefined ? this.#codec.split(message) : undefined;
    if (parts !== undefined) return this.#send(prefixed(0, parts.head, parts.data.length), parts.data);
    const frame = this.#framed(message);
    return frame instanceof Promise ? frame.then((compressed) => this.#send(compressed)) : this.#send(frame);
  }

  #send(head: Uint8Array, data?: Uint8Array): Promise<void> | undefined {
    this.#begin();
    if (this.#stream.write(head, data)) return undefined;
    if (this.#interruption !== undefined) return Promise.reject(this.#interruption.reason);
    this.#writer = Promise.withResolvers();
    return this.#writer.promise;
  }

  /** Rejects who waits for room, now or later. */
  interrupt(reason: unknown): void {
    this.#interruption = { reason };
    this.#writer?.reject(reason);
  }

  /** Ends the answer with OK, after one more message where there is one: at once, unless that is compressed. */
  end(message?: Message): Promise<void> | undefined {
    const frame = message === undefined ? undefined : this.#framed(message);
    if (frame instanceof Promise) return frame.then((compressed) => this.#succeed(compressed));
    this.#succeed(frame);
    return undefined;
  }

  #succeed(frame: Uint8Array | undefined): void {
    const { trailer } = this.#context.metadata;
    const end = trailer === undefined ? OK : encodeHeaders(withField(trailer, "grpc-status", "0"));
    if (frame !== undefined && !this.#stream.hasHead) {
      this.#stream.answer(this.#head(), frame, end);
      return;
    }
    this.#begin();
    if (frame !== undefined) this.#stream.write(frame);
    this.#stream.end(end);
  }

  /** Ends the answer with an error: by its head alone ("trailers-only") where nothing has to go before. */
  fail(error: ConnectError): void {
    const { header, trailer = new Headers() } = this.#context.metadata;
    const status = [...setTrailerStatus(trailer, wellFormed(error))];
    if (this.#stream.hasHead || (header !== undefined && [...header].length > 0)) {
      this.#begin();
      this.#stream.end(encodeHeaders(status));
    } else {
      this.#stream.respond(encodeHeaders([STATUS, ["content-type", this.#codec.contentType], ...status]), true);
    }
  }

  #begin(): void {
    if (!this.#stream.hasHead) this.#stream.respond(this.#head());
  }

  /** As a whole block; the usual one is made once. */
  #head(): Uint8Array {
    const { contentType } = this.#codec;
    const { header } = this.#context.metadata;
    if (header === undefined && this.#compression === undefined) {
      const known = heads.get(contentType);
      const block = known ?? encodeHeaders([STATUS, ["content-type", contentType]]);
      if (known === undefined) heads.set(contentType, block);
      return block;
    }
    const fields = withField(header ?? new Headers(), "content-type", contentType);
    if (this.#compression !== undefined) fields.set("grpc-encoding", this.#compression.name);
    return encodeHeaders([STATUS, ...fields]);
  }

  /** At once where nothing is compressed: a short call notices a promise. */
  #framed(message: Message): Uint8Array | Promise<Uint8Array> {
    const frame = this.#codec.frame(message);
    const bytes = frame.length - PREFIX_BYTES;
    const compression = this.#compression;
    if (compression === undefined || bytes < COMPRESS_FROM_BYTES) return frame;
    return compression.compress(frame.subarray(PREFIX_BYTES)).then((compressed) => framed(COMPRESSED, compressed));
  }
}

function withField(headers: Headers, name: string, value: string): Headers {
  const result = new Headers(headers);
  result.set(name, value);
  return result;
}

/** A cut character would make the message impossible to encode, and the caller wait for ever. */
const wellFormed = (error: ConnectError): ConnectError => {
  if (error.rawMessage.isWellFormed()) return error;
  const { code, metadata, details, cause } = error;
  const result = new ConnectError(error.rawMessage.toWellFormed(), code, metadata, undefined, cause);
  result.details = details;
  return result;
};
