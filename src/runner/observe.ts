import { Code, type ConnectError, createContextKey, type HandlerContext, type Interceptor } from "@connectrpc/connect";
import { toConnectError } from "../errors.ts";
import { KubeError } from "../kube/error.ts";
import type { Log } from "../log.ts";
import { type CallSpan, type CallTracer, traceContextIn } from "../trace.ts";
import type { Calls } from "./calls.ts";

/** What a handler adds to its request's log line. Ids and names only: never a value that a caller could keep secret. */
const logFields = createContextKey<Record<string, string>>({});

export function annotate(context: Pick<HandlerContext, "values">, fields: Record<string, string>): void {
  Object.assign(context.values.get(logFields), fields);
}

/**
 * The one place where a handler's failure becomes a Connect error, where a call is counted, and where a request becomes a
 * log line: one at debug level when it is over, and `kubernetes api error` at error level for a failure that came from the
 * API (section 2 and 3). The line names the trace: of the span that `tracer` makes of the call, else of the caller's.
 */
export const observe =
  (log: Log, { calls, tracer }: { calls?: Calls; tracer?: CallTracer | undefined } = {}): Interceptor =>
  (next) =>
  async (request) => {
    const startedAt = performance.now();
    const counted = calls?.started(request.method);
    const parent = () => traceContextIn(request.header.get("traceparent"));
    const span = tracer?.start(request.method, parent());
    const traced = () => {
      const context = span?.context ?? parent();
      return context === undefined ? {} : { trace_id: context.traceId, span_id: context.spanId };
    };
    const fields: Record<string, string> = {};
    request.contextValues.set(logFields, fields);
    let over = false;
    const finish = (error?: ConnectError) => {
      if (over) return;
      over = true;
      const ms = performance.now() - startedAt;
      if (counted !== undefined) calls?.ended(counted, error?.code, ms);
      span?.end(error?.code);
      const origin = error?.cause;
      if (origin instanceof KubeError)
        log.error({ rpc: request.method.name, ...traced(), ...fields, error: origin }, "kubernetes api error");
      else if (error?.code === Code.Internal)
        log.error({ rpc: request.method.name, ...traced(), ...fields, error }, "request failed");
      if (!log.isLevelEnabled("debug")) return;
      const identity = request.header.get("x-identity-id");
      log.debug(
        {
          rpc: request.method.name,
          code: error === undefined ? "ok" : Code[error.code],
          ms: Number(ms.toFixed(3)),
          ...(identity === null ? {} : { identity_id: identity.slice(0, 64) }),
          ...traced(),
          ...fields,
          ...(error === undefined ? {} : { error }),
        },
        "request",
      );
    };
    // A stream whose caller has gone may never be pulled again, so its end is told by the signal too.
    if (request.stream)
      request.signal.addEventListener("abort", () => finish(toConnectError(request.signal.reason)), { once: true });
    try {
      const response = await (span === undefined ? next(request) : span.run(() => next(request)));
      if (!response.stream) {
        finish();
        return response;
      }
      const messages = span === undefined ? response.message : within(span, response.message);
      return { ...response, message: observed(messages, finish) };
    } catch (error) {
      const failure = toConnectError(error);
      finish(failure);
      throw failure;
    }
  };

async function* observed<T>(messages: AsyncIterable<T>, finish: (error?: ConnectError) => void): AsyncGenerator<T> {
  try {
    yield* messages;
    finish();
  } catch (error) {
    const failure = toConnectError(error);
    finish(failure);
    throw failure;
  }
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
