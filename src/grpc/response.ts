import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Message } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { type Codec, framed, writeFrame } from "./codec.ts";
import type { Compression } from "./compression.ts";
import type { CallContext } from "./context.ts";
import { COMPRESSED, PREFIX_BYTES } from "./envelopes.ts";
import { Memory } from "./memory.ts";

/** Smaller messages are not worth compressing, in bytes; as Connect's own handlers have it. */
const COMPRESS_FROM_BYTES = 1024;

/**
 * So many large messages may be on their way, the last of them included, when another one is made: none waits for the last,
 * and node:http2 of Bun 1.4.5 has never two at hand, which it would join into one buffer more.
 */
const AHEAD = 2;

/** A message of output or log, of 32 KiB, with all that stands around these. */
const FRAME_BYTES = 32 * 1024 + 256;
/** Frames kept while no message is in them: enough for 16 calls that write at once. */
const SPARE_FRAMES = 32;

/** Of large messages, for all calls. */
const frames = new Memory(FRAME_BYTES, SPARE_FRAMES);

const OK = { "grpc-status": "0" };
function sendOk(this: ServerHttp2Stream): void {
  this.sendTrailers(OK);
}

/** The answer to one call: head, messages and status, on the stream that asked. */
export class Response {
  readonly #stream: ServerHttp2Stream;
  readonly #codec: Codec;
  readonly #compression: Compression | undefined;
  readonly #context: Pick<CallContext, "metadata">;
  /** Who waits for room in the stream. */
  #writer: PromiseWithResolvers<void> | undefined;
  /** Large messages that have not left. */
  #underWay = 0;
  #interruption: { reason: unknown } | undefined;

  /** `context` holds what the handler adds to the head of the answer, and to its end. */
  constructor(
    stream: ServerHttp2Stream,
    codec: Codec,
    compression: Compression | undefined,
    context: Pick<CallContext, "metadata">,
  ) {
    this.#stream = stream;
    this.#codec = codec;
    this.#compression = compression;
    this.#context = context;
  }

  /** Writes a message and resolves when there is room for another: at once, or when the caller has read enough. */
  async write(message: Message): Promise<void> {
    const parts = this.#compression === undefined ? this.#codec.split(message) : undefined;
    if (parts !== undefined) {
      this.#begin();
      this.#underWay += 1;
      const frame = frames.take(PREFIX_BYTES + parts.head.length + parts.data.length);
      writeFrame(frame, 0, parts.head, parts.data);
      this.#stream.write(frame, () => {
        frames.give(frame);
        this.#underWay -= 1;
        this.#goOn();
      });
      if (this.#underWay >= AHEAD) await this.#wait();
      return;
    }
    const frame = await this.#framed(message);
    this.#begin();
    if (this.#stream.write(frame)) return;
    this.#stream.once("drain", () => this.#goOn());
    await this.#wait();
  }

  /** Rejects who waits for room, now or later. */
  interrupt(reason: unknown): void {
    this.#interruption = { reason };
    this.#writer?.reject(reason);
  }

  #wait(): Promise<void> {
    if (this.#interruption !== undefined) return Promise.reject(this.#interruption.reason);
    this.#writer = Promise.withResolvers();
    return this.#writer.promise;
  }

  #goOn(): void {
    this.#writer?.resolve();
  }

  /** Ends the answer with OK, after one more message where there is one: at once, unless that is compressed. */
  end(message?: Message): Promise<void> | undefined {
    const frame = message === undefined ? undefined : this.#framed(message);
    if (frame instanceof Promise) return frame.then((compressed) => this.#succeed(compressed));
    this.#succeed(frame);
    return undefined;
  }

  #succeed(frame: Uint8Array | undefined): void {
    this.#begin();
    const { trailer } = this.#context.metadata;
    if (trailer !== undefined) {
      this.#finish({ ...plain(trailer), ...OK }, frame);
      return;
    }
    this.#stream.on("wantTrailers", sendOk);
    this.#stream.end(frame);
  }

  /** Ends the answer with an error: by its head alone ("trailers-only") where nothing has to go before. */
  fail(error: ConnectError): void {
    const { header, trailer = new Headers() } = this.#context.metadata;
    const status = plain(setTrailerStatus(trailer, wellFormed(error)));
    if (this.#stream.headersSent || (header !== undefined && Object.keys(plain(header)).length > 0)) {
      this.#begin();
      this.#finish(status);
    } else {
      this.#stream.respond({ ":status": 200, ...status, "content-type": this.#codec.contentType }, { endStream: true });
    }
  }

  #begin(): void {
    if (this.#stream.headersSent) return;
    const { contentType } = this.#codec;
    const { header } = this.#context.metadata;
    const head: OutgoingHttpHeaders = { ":status": 200, "content-type": contentType };
    if (header !== undefined) Object.assign(head, plain(header), { "content-type": contentType });
    if (this.#compression !== undefined) head["grpc-encoding"] = this.#compression.name;
    this.#stream.respond(head, { waitForTrailers: true });
  }

  #finish(status: OutgoingHttpHeaders, frame?: Uint8Array): void {
    this.#stream.on("wantTrailers", () => this.#stream.sendTrailers(status));
    this.#stream.end(frame);
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

function plain(headers: Headers): OutgoingHttpHeaders {
  const result: OutgoingHttpHeaders = {};
  headers.forEach((value, name) => {
    result[name] = value;
  });
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
