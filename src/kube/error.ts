/** API servers ask for seconds; whoever asks for more than this would stop us for good. */
const MAX_RETRY_AFTER_SECONDS = 300;

/** What the API server's Status object says, as far as callers look at it (meta/v1 Status). */
export interface KubeStatus {
  readonly status?: string;
  readonly reason?: string;
  readonly message?: string;
  readonly code?: number;
  readonly details?: {
    readonly retryAfterSeconds?: number;
    readonly causes?: readonly { readonly reason?: string; readonly message?: string }[];
  };
}

/**
 * A Kubernetes request that failed: refused by the API server, or never answered.
 * `status` is the HTTP status, 0 when no answer was had (connection refused or lost, timeout).
 * `reason` is Status.reason, empty when the answer held no Status object.
 * `message` is the trimmed Status.message, else a short text of our own; it never holds a header, token or body.
 */
export class KubeError extends Error {
  override readonly name = "KubeError";
  readonly status: number;
  readonly reason: string;
  readonly retryAfterSeconds: number | undefined;

  constructor(
    status: number,
    reason: string,
    message: string,
    options?: { retryAfterSeconds?: number | undefined; cause?: unknown },
  ) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.status = status;
    this.reason = reason;
    this.retryAfterSeconds = options?.retryAfterSeconds;
  }

  /** True when trying again may help: no answer, 429 or 5xx (ruling 19). */
  get retryable(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  /** True when the API could not be asked: no answer, 429, 503, or a timeout of it (ruling 5). */
  get unreachable(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 503 || this.status === 504;
  }

  get notFound(): boolean {
    return this.reason === "NotFound" || (this.reason === "" && this.status === 404);
  }

  get gone(): boolean {
    return this.status === 410 || this.reason === "Expired" || this.reason === "Gone";
  }
}

/** The error that a Status object tells. `httpStatus` stands in for a code it does not name. */
export function fromStatus(status: KubeStatus, httpStatus: number, retryAfter?: string | null): KubeError {
  const code = typeof status.code === "number" && status.code > 0 ? status.code : httpStatus;
  const reason = typeof status.reason === "string" ? status.reason : "";
  const message = typeof status.message === "string" ? status.message.trim() : "";
  const told = Number(status.details?.retryAfterSeconds ?? Number.NaN);
  return new KubeError(
    code,
    reason,
    message === "" ? `the Kubernetes API answered ${code} ${reason}`.trim() : message,
    {
      retryAfterSeconds: told >= 0 ? Math.min(told, MAX_RETRY_AFTER_SECONDS) : secondsOf(retryAfter),
    },
  );
}

/** The error that an answer other than 2xx tells; its body is a Status object, or whatever a proxy on the way wrote. */
export function fromAnswer(httpStatus: number, body: string, retryAfter?: string | null): KubeError {
  const status = asStatus(body);
  if (status !== undefined) return fromStatus(status, httpStatus, retryAfter);
  // Whoever said this on the way, it is no word of the API server about an object (ruling 5).
  if (httpStatus === 404) return noAnswer("HTTP 404 without a Status, so not from the Kubernetes API");
  const text =
    httpStatus >= 300 && httpStatus < 400
      ? `the Kubernetes API answered with a redirect (HTTP ${httpStatus}), which is not followed`
      : `the Kubernetes API answered HTTP ${httpStatus} without a Status`;
  return new KubeError(httpStatus, "", text, { retryAfterSeconds: secondsOf(retryAfter) });
}

/** No answer: the connection could not be made, or was lost. `code` is the system's, such as ECONNREFUSED. */
export function noAnswer(what: string, cause?: unknown): KubeError {
  const code = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? ` (${cause.code})` : "";
  return new KubeError(0, "", what + code, { cause });
}

function asStatus(body: string): KubeStatus | undefined {
  try {
    const value: unknown = JSON.parse(body);
    return isStatus(value) ? value : undefined;
  } catch {
    return undefined; // not JSON: not the API server's own words, and told as such
  }
}

/** Only `kind` is looked at: every field of a Status is optional, and checked where it is used. */
export const isStatus = (value: unknown): value is KubeStatus =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "Status";

/** Retry-After in seconds; the form with a date is not used by the API server. */
function secondsOf(retryAfter: string | null | undefined): number | undefined {
  if (retryAfter == null || !/^\d+$/.test(retryAfter.trim())) return undefined;
  return Math.min(Number(retryAfter), MAX_RETRY_AFTER_SECONDS);
}
