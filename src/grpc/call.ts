import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Message } from "@bufbuild/protobuf";
import { Code, ConnectError, type Interceptor, type MethodImplSpec } from "@connectrpc/connect";
import { transformInvokeImplementation } from "@connectrpc/connect/protocol";
import { parseTimeout } from "@connectrpc/connect/protocol-grpc";
import { connectionKey, type Usage } from "../limits.ts";
import { startTimer } from "../time.ts";
import type { Codec } from "./codec.ts";
import { type Compressions, negotiated } from "./compression.ts";
import { CallContext } from "./context.ts";
import { type Envelope, Envelopes } from "./envelopes.ts";
import { Response } from "./response.ts";
import { invokeUnary } from "./unary.ts";

/** Why the signal of a call that has ended fires: handlers may have left something that waits for it. */
const OVER = new ConnectError("the call is over", Code.Canceled);

export interface CallOptions {
  readonly spec: MethodImplSpec;
  readonly codec: Codec;
  readonly url: string;
  readonly interceptors: Interceptor[];
  /** Largest message received, in bytes, before and after decompression. */
  readonly maxMessageBytes: number;
  readonly usage: Usage;
}

/** One call of gRPC on its HTTP/2 stream, from its head to its status. */
export class Call {
  readonly #stream: ServerHttp2Stream;
  readonly #options: CallOptions;
  readonly #timer: Disposable | undefined;
  readonly #context: CallContext;
  readonly #compressions: Compressions;
  readonly #envelopes: Envelopes;
  readonly #response: Response;
  /** Whether its interceptors know of it, and tell the log. */
  #isSeen = false;
  /** When the first message of the request, or its only one, must have arrived whole; Infinity once it has. */
  #arrivesBy: number;

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, options: CallOptions) {
    this.#stream = stream;
    this.#options = options;
    const { spec, codec, url, maxMessageBytes } = options;
    this.#compressions = negotiated(text(headers["grpc-encoding"]), text(headers["grpc-accept-encoding"]));
    const { timeoutMs, error } = parseTimeout(text(headers["grpc-timeout"]) ?? null, Number.POSITIVE_INFINITY);
    this.#context = new CallContext({ method: spec.method, url, headers, timeoutMs });
    if (spec.kind !== "unary") this.#context.values.set(connectionKey, stream.session);
    this.#arrivesBy = performance.now() + options.usage.limits.requestMs;
    this.#envelopes = new Envelopes(stream, maxMessageBytes);
    this.#response = new Response(stream, {
      codec,
      compression: this.#compressions.response,
      context: this.#context,
    });
    stream.on("close", () => {
      if (!this.#context.isAborted) this.abort(gone(stream));
    });
    const failure = this.#compressions.error ?? error;
    if (failure !== undefined) this.#envelopes.fail(failure);
    if (timeoutMs !== undefined && timeoutMs <= 0) this.abort(expired());
    else if (timeoutMs !== undefined) this.#timer = startTimer(timeoutMs, () => this.abort(expired()));
  }

  /** Answers; resolves when the call is over, with why no interceptor has seen it, if that is so. */
  async serve(): Promise<ConnectError | undefined> {
    try {
      await this.#answer();
    } catch (error) {
      const failure =
        error instanceof ConnectError
          ? error
          : new ConnectError("internal error", Code.Internal, undefined, undefined, error);
      if (!this.#stream.destroyed && !this.#stream.closed) this.#response.fail(failure);
      if (this.#isSeen) return undefined;
      this.#countTooLarge(failure);
      return failure;
    } finally {
      this.abort(OVER);
    }
    return undefined;
  }

  /** Ends it when its request has not arrived in time. */
  look(now: number): void {
    if (now < this.#arrivesBy) return;
    this.#arrivesBy = Number.POSITIVE_INFINITY;
    this.#options.usage.refuse("requestMs");
    this.#envelopes.fail(new ConnectError("the request did not arrive in time", Code.DeadlineExceeded));
  }

  /** For a failure to receive a message. */
  #countTooLarge(error: unknown): void {
    const isTooLarge = error instanceof ConnectError && error.code === Code.ResourceExhausted;
    if (isTooLarge) this.#options.usage.refuse("messageBytes");
  }

  /** Fires the signal of the call and wakes it wherever it waits for its caller. The first reason counts. */
  abort(reason: unknown): void {
    if (this.#context.isAborted) return;
    this.#timer?.[Symbol.dispose]();
    this.#context.abort(reason);
    this.#envelopes.fail(reason);
    this.#response.interrupt(reason);
  }

  async #answer(): Promise<void> {
    const { spec, codec, interceptors } = this.#options;
    if (spec.kind === "unary") {
      const envelope = await this.#envelopes.single();
      const input = envelope.compressed ? await this.#decompressed(envelope) : codec.parse(envelope.data);
      this.#isSeen = true;
      this.#arrivesBy = Number.POSITIVE_INFINITY;
      await this.#response.end(await invokeUnary(spec, this.#context, input, interceptors));
      return;
    }
    this.#isSeen = true;
    const context = this.#context.whole();
    for await (const message of transformInvokeImplementation(spec, context, interceptors)(this.#messages())) {
      context.signal.throwIfAborted();
      await this.#response.write(message);
    }
    await this.#response.end();
  }

  async *#messages(): AsyncGenerator<Message> {
    for (let message = await this.#next(); message !== undefined; message = await this.#next()) yield message;
  }

  /** The next message; one that is too large is counted. */
  async #next(): Promise<Message | undefined> {
    try {
      const envelope = await this.#envelopes.next();
      this.#arrivesBy = Number.POSITIVE_INFINITY;
      if (envelope === undefined) return undefined;
      return envelope.compressed ? await this.#decompressed(envelope) : this.#options.codec.parse(envelope.data);
    } catch (error) {
      this.#countTooLarge(error);
      throw error;
    }
  }

  async #decompressed({ data }: Envelope): Promise<Message> {
    const { request } = this.#compressions;
    if (request === undefined)
      throw new ConnectError("received compressed envelope, but do not know how to decompress", Code.Internal);
    return this.#options.codec.parse(await request.decompress(data, this.#options.maxMessageBytes));
  }
}

const expired = () => new ConnectError("the operation timed out", Code.DeadlineExceeded);

const gone = ({ rstCode }: ServerHttp2Stream) =>
  new ConnectError(`the caller has gone (HTTP/2 code ${rstCode})`, Code.Canceled);

/** The one value of a header that may stand there only once. */
const text = (value: string | string[] | undefined): string | undefined =>
  typeof value === "string" ? value : value?.join(",");
