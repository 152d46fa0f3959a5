import { createContextValues } from "@connectrpc/connect";
import type { UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { Chunks } from "../chunks.ts";
import { type Answer, callerGone, type Exchange, type HeaderFields } from "../exchange.ts";
import { connectionKey } from "../limits.ts";
import { lasting } from "../memory.ts";
import { ErrorCode } from "./frame.ts";
import { encodeHeaders } from "./hpack.ts";
import type { Http2Stream } from "./stream.ts";

/** Bytes of a request that wait to be read, above which its client is held back. */
const WAITING_BYTES = 64 * 1024;

/** A request over HTTP/2, for all but gRPC, which takes the stream as it is. */
export class Http2Exchange implements Exchange {
  readonly isHttp2 = true;
  readonly method: string;
  readonly path: string;
  readonly #stream: Http2Stream;
  readonly #body: Body;
  readonly #abort = new AbortController();
  /** Who waits for room to go on with the answer. */
  #writer: PromiseWithResolvers<void> | undefined;

  constructor(stream: Http2Stream) {
    this.#stream = stream;
    this.#body = new Body(stream);
    this.method = stream.head.method;
    this.path = stream.head.path.split("?", 1)[0] ?? "";
    stream.onRoom = () => this.#writer?.resolve();
    stream.onLost = (code) => {
      const reason = callerGone(code);
      this.#body.fail(reason);
      this.#writer?.reject(reason);
      this.#abort.abort(reason);
    };
  }

  get headers(): HeaderFields {
    return this.#stream.head.headers;
  }

  get connection(): object {
    return this.#stream.connection;
  }

  answer({ status, headers, body }: Answer): void {
    if (this.#stream.hasHead) {
      this.cut();
      return;
    }
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    this.#begin(status, Object.entries(headers), bytes.length === 0);
    if (bytes.length > 0) this.#stream.write(bytes);
    this.#stream.end(null);
  }

  request(): UniversalServerRequest {
    const { method, scheme, authority, path, headers } = this.#stream.head;
    return {
      httpVersion: "2.0",
      method,
      url: new URL(`${scheme}://${authority}${path}`).toString(),
      header: new Headers(Object.entries(headers)),
      body: this.#body,
      signal: this.#abort.signal,
      contextValues: createContextValues().set(connectionKey, this.connection),
    };
  }

  async respond({ status, header, body, trailer }: UniversalServerResponse): Promise<void> {
    const chunks = body?.[Symbol.asyncIterator]();
    try {
      let chunk = await chunks?.next();
      this.#begin(status, header ?? []); // only now: until it answers, a handler may add to it
      for (; chunk !== undefined && chunk.done !== true; chunk = await chunks?.next()) await this.#write(chunk.value);
      this.#stream.end(trailer === undefined ? null : encodeHeaders(trailer));
    } catch (error) {
      chunks?.throw?.(error).catch(() => undefined); // it may wait in there, for a caller who has gone
      throw error;
    } finally {
      this.#abort.abort(); // a handler may have left something that waits for it
    }
  }

  cut(): void {
    this.#stream.reset(ErrorCode.INTERNAL_ERROR);
  }

  #begin(status: number, fields: Iterable<[string, string]>, isAll = false): void {
    const date: [string, string] = ["date", new Date().toUTCString()];
    this.#stream.respond(encodeHeaders([[":status", String(status)], ...fields, date]), isAll);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (this.#stream.isClosed) throw callerGone(ErrorCode.CANCEL);
    if (bytes.length === 0 || this.#stream.write(bytes)) return;
    this.#writer = Promise.withResolvers();
    await this.#writer.promise;
  }
}

/** The content of a request. */
class Body implements AsyncIterable<Uint8Array> {
  readonly #stream: Http2Stream;
  readonly #chunks = new Chunks();
  #isComplete = false;
  #failure: { reason: unknown } | undefined;
  #reader: PromiseWithResolvers<void> | undefined;

  constructor(stream: Http2Stream) {
    this.#stream = stream;
    stream.onData = (chunk) => {
      this.#chunks.add(lasting(chunk));
      if (this.#chunks.bytes > WAITING_BYTES) stream.pause();
      this.#reader?.resolve();
    };
    stream.onEnd = () => {
      this.#isComplete = true;
      this.#reader?.resolve();
    };
  }

  /** For who reads now, or later. */
  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#reader?.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      if (this.#chunks.bytes > 0) {
        const bytes = this.#chunks.take(this.#chunks.bytes);
        this.#stream.resume();
        yield bytes;
      } else if (this.#failure !== undefined) throw this.#failure.reason;
      else if (this.#isComplete) return;
      else {
        this.#reader = Promise.withResolvers();
        await this.#reader.promise;
      }
    }
  }
}
