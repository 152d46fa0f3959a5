import type { Message } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext, type Interceptor, type MethodImplSpec } from "@connectrpc/connect";
import { transformInvokeImplementation } from "@connectrpc/connect/protocol";
import { parseTimeout } from "@connectrpc/connect/protocol-grpc";
import type { Bag, Member } from "../bag.ts";
import { callerGone, type HeaderFields } from "../exchange.ts";
import { ErrorCode } from "../http2/frame.ts";
import type { Http2Stream } from "../http2/stream.ts";
import { connectionKey, type Usage } from "../limits.ts";
import type { Log } from "../log.ts";
import { startTimer } from "../time.ts";
import type { Codec } from "./codec.ts";
import { type Compressions, negotiated } from "./compression.ts";
import { CallContext } from "./context.ts";
import { COMPRESSED, Envelopes, OnlyEnvelope, PREFIX_BYTES, type Receiver } from "./envelopes.ts";
import { Response } from "./response.ts";
import { type Invoke, messageOf } from "./unary.ts";

/** Calls under way are looked at this often, at least; in ms. */
export const LOOK_MS = 1_000;
/** A deadline further away is left to the looks: most calls end long before, and a timer is dear for a short one. */
const TIMER_MS = 2 * LOOK_MS;

/** Why the signal of a call that has ended fires: handlers may have left something that waits for it. */
const OVER = new ConnectError("the call is over", Code.Canceled);

/** All that calls of one method have in common. */
export interface Served {
  readonly spec: MethodImplSpec;
  /** Of a unary method. */
  readonly invoke: Invoke | undefined;
  readonly codec: Codec;
  readonly path: string;
  readonly interceptors: Interceptor[];
  /** Largest message received, in bytes, before and after decompression. */
  readonly maxMessageBytes: number;
  readonly usage: Usage;
  readonly log: Log;
  /** Told of each call that no interceptor has seen. */
  readonly refused: (method: MethodImplSpec["method"], code: Code) => void;
  /** Calls under way. */
  readonly calls: Bag<Call>;
}

/** One call of gRPC on its HTTP/2 stream, from its head to its status. */
export class Call implements Member, Receiver {
  place: number | undefined;
  readonly #stream: Http2Stream;
  readonly #served: Served;
  readonly #context: CallContext;
  readonly #compressions: Compressions;
  readonly #envelopes: OnlyEnvelope | Envelopes;
  readonly #response: Response;
  /** Whether its interceptors know of it, and tell the log. */
  #isSeen = false;
  /** When the first message of the request, or its only one, must have arrived whole; Infinity once it has. */
  #arrivesBy: number;
  /** The caller's deadline; Infinity: none. */
  readonly #endsBy: number;
  /** Fires at the deadline, once that is near. */
  #timer: Disposable | undefined;

  constructor(stream: Http2Stream, origin: string, served: Served) {
    this.#stream = stream;
    this.#served = served;
    const { spec, invoke, codec, maxMessageBytes, usage, calls } = served;
    const { headers } = stream.head;
    const isStream = invoke === undefined;
    this.#compressions = negotiated(headers["grpc-encoding"], headers["grpc-accept-encoding"], isStream);
    const { timeoutMs, error } = timeoutOf(headers);
    this.#context = new CallContext(spec.method, origin, stream.head, timeoutMs);
    const now = performance.now();
    this.#arrivesBy = now + usage.limits.requestMs;
    this.#endsBy = now + (timeoutMs ?? Number.POSITIVE_INFINITY);
    if (invoke !== undefined) this.#envelopes = new OnlyEnvelope(stream, maxMessageBytes, this);
    else {
      this.#envelopes = new Envelopes(stream, maxMessageBytes);
      this.#context.values.set(connectionKey, stream.connection);
    }
    this.#response = new Response(stream, codec, this.#compressions.response, this.#context);
    calls.add(this);
    stream.onLost = (code) => {
      if (!this.#context.isAborted) this.abort(callerGone(code));
    };
    const failure = this.#compressions.error ?? error;
    if (failure !== undefined) this.#envelopes.fail(failure);
    if (this.#endsBy <= now) this.abort(expired());
    else this.#watchDeadline(now);
  }

  /** Answers, a unary call once its message is there. Throws nothing. */
  serve(): void {
    if (this.#envelopes instanceof Envelopes) void this.#answerStream(this.#envelopes);
  }

  /** The message of a unary call has come. */
  received(frame: Buffer): void {
    const { invoke } = this.#served;
    if (invoke !== undefined) void this.#answerUnary(invoke, frame);
  }

  /** No message of a unary call has come that could be answered. */
  failed(reason: unknown): void {
    this.#refuse(reason);
    this.#end();
  }

  async #answerUnary(invoke: Invoke, frame: Buffer): Promise<void> {
    try {
      const input =
        (frame.readUInt8() & COMPRESSED) === 0
          ? this.#served.codec.parse(frame, PREFIX_BYTES) // not cut: a view of so few bytes is dear
          : await this.#decompressed(frame.subarray(PREFIX_BYTES));
      this.#isSeen = true;
      this.#arrivesBy = Number.POSITIVE_INFINITY;
      const ended = this.#response.end(messageOf(await invoke(this.#context, input)));
      if (ended !== undefined) await ended; // a short call notices a promise
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.#end();
    }
  }

  async #answerStream(envelopes: Envelopes): Promise<void> {
    const { spec, interceptors } = this.#served;
    this.#isSeen = true;
    try {
      const context = this.#context.whole();
      for await (const message of await answers(spec, context, interceptors, this.#messages(envelopes))) {
        context.signal.throwIfAborted();
        const waits = this.#response.write(message);
        if (waits !== undefined) await waits;
      }
      await this.#response.end();
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.#end();
    }
  }

  #end(): void {
    this.abort(OVER);
    this.#served.calls.delete(this);
  }

  /** Ends the answer with an error. */
  #refuse(error: unknown): void {
    const { spec, path, log, refused } = this.#served;
    const failure =
      error instanceof ConnectError
        ? error
        : new ConnectError("internal error", Code.Internal, undefined, undefined, error);
    try {
      if (!this.#stream.isClosed) this.#response.fail(failure);
    } catch (cause) {
      log.debug({ rpc: path, error: cause }, "response failed");
      this.#stream.reset(ErrorCode.INTERNAL_ERROR); // half of an answer must not look like a whole one
      return;
    }
    if (this.#isSeen) return;
    this.#countTooLarge(failure);
    log.debug({ rpc: path, error: failure }, "request refused");
    refused(spec.method, failure.code);
  }

  /** Ends it at its deadline, and when its request has not arrived in time. To be called every LOOK_MS. */
  look(now: number): void {
    this.#watchDeadline(now);
    if (now < this.#arrivesBy) return;
    this.#arrivesBy = Number.POSITIVE_INFINITY;
    this.#served.usage.refuse("requestMs");
    this.#envelopes.fail(new ConnectError("the request did not arrive in time", Code.DeadlineExceeded));
  }

  #watchDeadline(now: number): void {
    const leftMs = this.#endsBy - now;
    if (leftMs <= TIMER_MS && !this.#context.isAborted) this.#timer ??= startTimer(leftMs, () => this.abort(expired()));
  }

  /** For a failure to receive a message. */
  #countTooLarge(error: unknown): void {
    const isTooLarge = error instanceof ConnectError && error.code === Code.ResourceExhausted;
    if (isTooLarge) this.#served.usage.refuse("messageBytes");
  }

  /** Fires the signal of the call and wakes it wherever it waits for its caller. The first reason counts. */
  abort(reason: unknown): void {
    if (this.#context.isAborted) return;
    this.#timer?.[Symbol.dispose]();
    this.#context.abort(reason);
    this.#envelopes.fail(reason);
    this.#response.interrupt(reason);
  }

  /** Not by a generator, which makes some promises more for each of them. */
  #messages(envelopes: Envelopes): AsyncIterable<Message> {
    return { [Symbol.asyncIterator]: () => ({ next: () => this.#next(envelopes) }) };
  }

  /** The next message; one that is too large is counted. */
  async #next(envelopes: Envelopes): Promise<IteratorResult<Message, undefined>> {
    try {
      const envelope = await envelopes.next();
      this.#arrivesBy = Number.POSITIVE_INFINITY;
      if (envelope === undefined) return { done: true, value: undefined };
      const { compressed, data } = envelope;
      return { done: false, value: compressed ? await this.#decompressed(data) : this.#served.codec.parse(data) };
    } catch (error) {
      this.#countTooLarge(error);
      throw error;
    }
  }

  async #decompressed(data: Buffer): Promise<Message> {
    const { request } = this.#compressions;
    if (request === undefined)
      throw new ConnectError("received compressed envelope, but do not know how to decompress", Code.Internal);
    const { buffer, byteOffset, length } = await request.decompress(data, this.#served.maxMessageBytes);
    return this.#served.codec.parse(Buffer.from(buffer, byteOffset, length));
  }
}

/**
 * What the handler answers, through the interceptors. By Connect, but for the generators that it puts around the messages
 * (2.2.0), which make some ten promises for each: an interceptor in front of all takes these as they are.
 */
async function answers(
  spec: MethodImplSpec,
  context: HandlerContext,
  interceptors: readonly Interceptor[],
  requests: AsyncIterable<Message>,
): Promise<AsyncIterable<Message>> {
  let messages: AsyncIterable<Message> = NONE;
  const taken: Interceptor = (next) => async (request) => {
    const response = await next(request);
    if (!response.stream) return response;
    messages = response.message;
    return { ...response, message: NONE };
  };
  for await (const _ of transformInvokeImplementation(spec, context, [taken, ...interceptors])(requests));
  return messages;
}

const NONE: AsyncIterable<never> = { async *[Symbol.asyncIterator]() {} };

const NO_TIMEOUT: ReturnType<typeof parseTimeout> = {};

const timeoutOf = (headers: HeaderFields): ReturnType<typeof parseTimeout> => {
  const value = headers["grpc-timeout"];
  return value === undefined ? NO_TIMEOUT : parseTimeout(value, Number.POSITIVE_INFINITY);
};

const expired = () => new ConnectError("the operation timed out", Code.DeadlineExceeded);
