import { Code, type ConnectError, createContextKey, type HandlerContext, type Interceptor } from "@connectrpc/connect";
import { toConnectError } from "../errors.ts";
import { KubeError } from "../kube/error.ts";
import type { Log } from "../log.ts";
import { type CallSpan, type CallTracer, type TraceContext, traceContextIn } from "../trace.ts";
import type { Calls, MethodFigures } from "./calls.ts";

/** What a handler adds to its request's log line. Ids and names only: never a value that a caller could keep secret. */
const logFields = createContextKey<Readonly<Record<string, string>> | undefined>(undefined);

export function annotate({ values }: Pick<HandlerContext, "values">, fields: Record<string, string>): void {
  const known = values.get(logFields);
  values.set(logFields, known === undefined ? fields : { ...known, ...fields });
}

type Request = Parameters<Parameters<Interceptor>[0]>[0];

/**
 * The one place where a handler's failure becomes a Connect error, where a call is counted, and where a request becomes a
 * log line: one at debug level when it is over, and `kubernetes api error` at error level for a failure that came from the
 * API (section 2 and 3). The line names the trace: of the span that `tracer` makes of the call, else of the caller's.
 */
export const observe =
  (log: Log, { calls, tracer }: { calls?: Calls; tracer?: CallTracer | undefined } = {}): Interceptor =>
  (next) =>
  async (request) => {
    const span = tracer?.start(request.method, parentOf(request));
    const observation = new Observation(log, request, calls, span);
    // A stream whose caller has gone may never be pulled again, so its end is told by the signal too.
    if (request.stream)
      request.signal.addEventListener("abort", () => observation.end(toConnectError(request.signal.reason)), {
        once: true,
      });
    try {
      const response = await (span === undefined ? next(request) : span.run(() => next(request)));
      if (!response.stream) {
        observation.end();
        return response;
      }
      const messages = span === undefined ? response.message : within(span, response.message);
      return { ...response, message: observed(messages, observation) };
    } catch (error) {
      throw observation.end(toConnectError(error));
    }
  };

const parentOf = (request: Request): TraceContext | undefined => traceContextIn(request.header.get("traceparent"));

/** One call, until it is over. */
class Observation {
  readonly #log: Log;
  readonly #request: Request;
  readonly #calls: Calls | undefined;
  readonly #span: CallSpan | undefined;
  readonly #counted: MethodFigures | undefined;
  readonly #startedAt = performance.now();
  #over = false;

  constructor(log: Log, request: Request, calls: Calls | undefined, span: CallSpan | undefined) {
    this.#log = log;
    this.#request = request;
    this.#calls = calls;
    this.#span = span;
    this.#counted = calls?.started(request.method);
  }

  /** Tells of its end, the first time; undefined is OK. Gives the error back. */
  end(error?: ConnectError): ConnectError | undefined {
    if (this.#over) return error;
    this.#over = true;
    const ms = performance.now() - this.#startedAt;
    if (this.#counted !== undefined) this.#calls?.ended(this.#counted, error?.code, ms);
    this.#span?.end(error?.code);
    const log = this.#log;
    const origin = error?.cause;
    if (origin instanceof KubeError) log.error({ ...this.#fields(), error: origin }, "kubernetes api error");
    else if (error?.code === Code.Internal) log.error({ ...this.#fields(), error }, "request failed");
    if (log.isLevelEnabled("debug")) log.debug(this.#line(ms, error), "request");
    return error;
  }

  #fields(): Record<string, string> {
    const context = this.#span?.context ?? parentOf(this.#request);
    const trace = context === undefined ? {} : { trace_id: context.traceId, span_id: context.spanId };
    return { rpc: this.#request.method.name, ...trace, ...this.#request.contextValues.get(logFields) };
  }

  #line(ms: number, error: ConnectError | undefined): Record<string, unknown> {
    const { rpc, ...fields } = this.#fields();
    const identity = this.#request.header.get("x-identity-id");
    return {
      rpc,
      code: error === undefined ? "ok" : Code[error.code],
      ms: Number(ms.toFixed(3)),
      ...(identity === null ? {} : { identity_id: identity.slice(0, 64) }),
      ...fields,
      ...(error === undefined ? {} : { error }),
    };
  }
}

/** The same messages; not by a generator, which makes five promises more for each of them. */
function observed<T>(messages: AsyncIterable<T>, observation: Observation): AsyncIterable<T> {
  const iterator = messages[Symbol.asyncIterator]();
  const passed = (step: IteratorResult<T>): IteratorResult<T> => {
    if (step.done) observation.end();
    return step;
  };
  const failed = (error: unknown): never => {
    throw observation.end(toConnectError(error));
  };
  const stopped = async () => (await iterator.return?.()) ?? { done: true as const, value: undefined };
  // Connect tells a generator of its caller's end by `throw`.
  const broken = async (error: unknown) => {
    if (iterator.throw === undefined) return failed(error);
    return await iterator.throw(error).then(passed, failed);
  };
  return {
    [Symbol.asyncIterator]: () => ({
      next: () => iterator.next().then(passed, failed),
      return: stopped,
      throw: broken,
    }),
  };
}

/** The same messages, each made as a part of this span: a generator works for whoever asks it for the next one. */
async function* within<T>(span: CallSpan, messages: AsyncIterable<T>): AsyncGenerator<T> {
  const iterator = messages[Symbol.asyncIterator]();
  try {
    for (let step = await span.run(() => iterator.next()); !step.done; step = await span.run(() => iterator.next()))
      yield step.value;
  } finally {
    await iterator.return?.();
  }
}
