import { Code, type ConnectError, createContextKey, type HandlerContext, type Interceptor } from "@connectrpc/connect";
import { toConnectError } from "../errors.ts";
import { KubeError } from "../kube/error.ts";
import type { Log } from "../log.ts";

/** What a handler adds to its request's log line. Ids and names only: never a value that a caller could keep secret. */
const logFields = createContextKey<Record<string, string>>({});

export function annotate(context: Pick<HandlerContext, "values">, fields: Record<string, string>): void {
  Object.assign(context.values.get(logFields), fields);
}

/**
 * The one place where a handler's failure becomes a Connect error, and where a request becomes a log line: one at debug
 * level when it is over, and `kubernetes api error` at error level for a failure that came from the API (section 2 and 3).
 */
export const observe =
  (log: Log): Interceptor =>
  (next) =>
  async (request) => {
    const startedAt = performance.now();
    const fields: Record<string, string> = {};
    request.contextValues.set(logFields, fields);
    let over = false;
    const finish = (error?: ConnectError) => {
      if (over) return;
      over = true;
      const origin = error?.cause;
      if (origin instanceof KubeError)
        log.error({ rpc: request.method.name, ...fields, error: origin }, "kubernetes api error");
      else if (error?.code === Code.Internal)
        log.error({ rpc: request.method.name, ...fields, error }, "request failed");
      if (!log.isLevelEnabled("debug")) return;
      const identity = request.header.get("x-identity-id");
      log.debug(
        {
          rpc: request.method.name,
          code: error === undefined ? "ok" : Code[error.code],
          ms: Number((performance.now() - startedAt).toFixed(3)),
          ...(identity === null ? {} : { identity_id: identity.slice(0, 64) }),
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
      const response = await next(request);
      if (!response.stream) {
        finish();
        return response;
      }
      return { ...response, message: observed(response.message, finish) };
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
