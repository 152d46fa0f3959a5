import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Message } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createContextValues,
  type HandlerContext,
  type Interceptor,
  type MethodImplSpec,
} from "@connectrpc/connect";
import { invokeUnaryImplementation, transformInvokeImplementation } from "@connectrpc/connect/protocol";
import { parseTimeout } from "@connectrpc/connect/protocol-grpc";
import { connectionKey, type Usage } from "../limits.ts";
import { startTimer } from "../time.ts";
import type { Codec } from "./codec.ts";
import { type Compressions, negotiated } from "./compression.ts";
import { Envelopes } from "./envelopes.ts";
import { Response } from "./response.ts";

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
  readonly #abort = new AbortController();
  readonly #timer: Disposable | undefined;
  readonly #context: HandlerContext;
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
    const endsAt = timeoutMs === undefined ? undefined : Date.now() + timeoutMs;
    this.#context = {
      service: spec.method.parent,
      method: spec.method,
      requestMethod: "POST",
      protocolName: "grpc",
      url,
      signal: this.#abort.signal,
      timeoutMs: () => (endsAt === undefined ? undefined : endsAt - Date.now()),
      requestHeader: metadataOf(headers),
      responseHeader: new Headers(),
      responseTrailer: new Headers(),
      values: createContextValues(),
    };
    if (spec.kind !== "unary") this.#context.values.set(connectionKey, stream.session);
    this.#arrivesBy = performance.now() + options.usage.limits.requestMs;
    this.#envelopes = new Envelopes(stream, maxMessageBytes);
    this.#response = new Response(stream, {
      codec,
      compression: this.#compressions.response,
      metadata: { header: this.#context.responseHeader, trailer: this.#context.responseTrailer },
    });
    stream.on("close", () => {
      if (!this.#abort.signal.aborted) this.abort(gone(stream));
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
      if (!this.#isSeen) return failure;
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

  /** Fires the signal of the call and wakes it wherever it waits for its caller. The first reason counts. */
  abort(reason: unknown): void {
    if (this.#abort.signal.aborted) return;
    this.#timer?.[Symbol.dispose]();
    this.#abort.abort(reason);
    this.#envelopes.fail(reason);
    this.#response.interrupt(reason);
  }

  async #answer(): Promise<void> {
    const { spec, interceptors } = this.#options;
    if (spec.kind === "unary") {
      const input = await this.#single();
      this.#isSeen = true;
      const output = await invokeUnaryImplementation(spec, this.#context, input, interceptors);
      await this.#response.end(output);
      return;
    }
    this.#isSeen = true;
    const { signal } = this.#context;
    for await (const message of transformInvokeImplementation(spec, this.#context, interceptors)(this.#messages())) {
      signal.throwIfAborted();
      await this.#response.write(message);
    }
    await this.#response.end();
  }

  async #single(): Promise<Message> {
    const message = await this.#next();
    if (message === undefined) throw cardinality("missing input message");
    if ((await this.#envelopes.next()) !== undefined) throw cardinality("received extra input message");
    this.#arrivesBy = Number.POSITIVE_INFINITY;
    return message;
  }

  async *#messages(): AsyncGenerator<Message> {
    for (let message = await this.#next(); message !== undefined; message = await this.#next()) yield message;
  }

  /** The next message; one that is too large is counted. */
  async #next(): Promise<Message | undefined> {
    try {
      return await this.#parsed();
    } catch (error) {
      const isTooLarge = error instanceof ConnectError && error.code === Code.ResourceExhausted;
      if (isTooLarge) this.#options.usage.refuse("messageBytes");
      throw error;
    }
  }

  async #parsed(): Promise<Message | undefined> {
    const envelope = await this.#envelopes.next();
    if (this.#options.spec.kind !== "unary") this.#arrivesBy = Number.POSITIVE_INFINITY;
    if (envelope === undefined) return undefined;
    if (!envelope.compressed) return this.#options.codec.parse(envelope.data);
    const { request } = this.#compressions;
    if (request === undefined)
      throw new ConnectError("received compressed envelope, but do not know how to decompress", Code.Internal);
    return this.#options.codec.parse(await request.decompress(envelope.data, this.#options.maxMessageBytes));
  }
}

const expired = () => new ConnectError("the operation timed out", Code.DeadlineExceeded);

const cardinality = (text: string) => new ConnectError(`protocol error: ${text} for unary method`, Code.Unimplemented);

const gone = ({ rstCode }: ServerHttp2Stream) =>
  new ConnectError(`the caller has gone (HTTP/2 code ${rstCode})`, Code.Canceled);

/** The one value of a header that may stand there only once. */
const text = (value: string | string[] | undefined): string | undefined =>
  typeof value === "string" ? value : value?.join(",");

/** Everything but HTTP/2's own. */
function metadataOf(headers: IncomingHttpHeaders): Headers {
  const result = new Headers();
  for (const name in headers) {
    const value = headers[name];
    if (value === undefined || name.startsWith(":")) continue;
    if (typeof value === "string") result.append(name, value);
    else for (const each of value) result.append(name, each);
  }
  return result;
}
