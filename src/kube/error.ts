/** What the API server's Status object says, as far as callers look at it (meta/v1 Status). */
export interface KubeStatus {
  readonly reason?: string;
  readonly message?: string;
  readonly code?: number;
  readonly details?: { readonly retryAfterSeconds?: number };
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
    options?: { retryAfterSeconds?: number; cause?: unknown },
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
