import { Code, ConnectError } from "@connectrpc/connect";
import { KubeError } from "./kube/error.ts";

/** Bad input: INVALID_ARGUMENT with a stable token of the contract as its whole message. Thrown before any side effect. */
export const invalid = (token: string): ConnectError => new ConnectError(token, Code.InvalidArgument);

export const notFound = (message: string): ConnectError => new ConnectError(message, Code.NotFound);

export const failedPrecondition = (token: string): ConnectError => new ConnectError(token, Code.FailedPrecondition);

/** Neither the cache nor the API server can answer truthfully now (ruling 5). */
export const unreachable = (cause?: unknown): ConnectError =>
  new ConnectError("cluster_unreachable", Code.Unavailable, undefined, undefined, cause);

/** Longest message that reaches a caller, in characters: a status message is a line, not a dump (promises, threat 20). */
const MESSAGE_LIMIT = 4096;

/** Status.reason and, for answers without a known one, the HTTP status: runner-api.md section 3, in its order. */
const mappings: readonly { reason: string; status: number; code: Code; prefix: string }[] = [
  { reason: "NotFound", status: 404, code: Code.NotFound, prefix: "resource not found" },
  { reason: "AlreadyExists", status: 0, code: Code.AlreadyExists, prefix: "resource already exists" },
  { reason: "Invalid", status: 422, code: Code.InvalidArgument, prefix: "invalid kubernetes request" },
  { reason: "Unauthorized", status: 401, code: Code.Unauthenticated, prefix: "unauthenticated" },
  { reason: "Forbidden", status: 403, code: Code.PermissionDenied, prefix: "permission denied" },
  { reason: "Conflict", status: 409, code: Code.Aborted, prefix: "resource conflict" },
];

/** The one translation of a failed Kubernetes call to what the caller sees (runner-api.md section 3, ruling 5). */
export function fromKubeError(error: KubeError): ConnectError {
  if (error.unreachable) return unreachable(error);
  const known = mappings.some(({ reason }) => reason === error.reason);
  const found = mappings.find(({ reason, status }) =>
    known ? reason === error.reason : status !== 0 && status === error.status,
  );
  const { code, prefix } = found ?? { code: Code.Internal, prefix: "kubernetes request failed" };
  return new ConnectError(withDetail(prefix, error.message), code, undefined, undefined, error);
}

/** Any failure of a handler as a ConnectError; what is not ours to tell becomes INTERNAL without its text. */
export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof KubeError) return fromKubeError(error);
  if (error instanceof DOMException && error.name === "TimeoutError") return unreachable(error); // a bound of our own
  return new ConnectError("internal error", Code.Internal, undefined, undefined, error);
}

/** `prefix: detail`, or the prefix alone when there is nothing to add; bounded, and without line breaks or escapes. */
export function withDetail(prefix: string, detail: string): string {
  const text = detail
    .trim()
    .replace(/\p{Cc}+/gu, " ")
    .slice(0, MESSAGE_LIMIT)
    .toWellFormed(); // half of a character that was cut cannot be sent
  return text === "" ? prefix : `${prefix}: ${text}`;
}
