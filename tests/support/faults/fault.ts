/** One request as it came to the proxy. */
export interface ProxiedRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
}

/**
 * What a request asks for. A list comes as `list` and its further `page`s, or as a `stream`, a watch that begins with
 * what there is.
 */
export type Kind = "list" | "page" | "stream" | "watch" | "get" | "create" | "patch" | "delete" | "log" | "exec";

const WRITES: Record<string, Kind> = { POST: "create", PATCH: "patch", DELETE: "delete" };

/** The plural of what a request is about, and what it asks for. */
export function aboutOf({ method, path, query }: ProxiedRequest): { kind: Kind; resource: string; name: string } {
  const [, resource = "", name = "", subresource = ""] =
    /\/namespaces\/[^/]+\/([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(path) ?? [];
  const kind = (): Kind => {
    if (subresource === "log" || subresource === "exec") return subresource;
    if (method !== "GET") return WRITES[method] ?? "get";
    if (query.has("sendInitialEvents")) return "stream";
    if (query.has("watch")) return "watch";
    if (query.has("continue")) return "page";
    return name === "" ? "list" : "get";
  };
  return { kind: kind(), resource, name };
}

/** An answer in the API server's place, with a Status object as it would send unless `body` says otherwise. */
export interface Answer {
  readonly status: number;
  readonly reason?: string;
  readonly message?: string;
  readonly retryAfterSeconds?: number;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

/** What happens to the body of an answer, which for a watch is what the watch tells. */
export type BodyFault =
  /** After so long or so many lines it is ended well, or reset, or ended inside of a line, or nothing comes any more. */
  | { readonly cut: "end" | "reset" | "half" | "silence"; readonly afterMs?: number; readonly afterLines?: number }
  /** So many bytes a second; nothing is lost. */
  | { readonly trickle: number }
  /** Every line comes twice, and each fifth time an earlier one comes again. */
  | { readonly repeat: true }
  /** Two lines that come within so many ms change places. */
  | { readonly reorderMs: number }
  /** Every line comes so late. */
  | { readonly lateMs: number }
  /** An ERROR event with this Status is the first and last thing told. */
  | { readonly event: Answer }
  /** Something else in place of every line. */
  | { readonly garbage: string };

/**
 * What happens to one request: an error or a reset, before the API server sees it or after it has carried it out; no
 * answer at all, as on a half-open connection; another answer; a later one; or one whose body is spoiled.
 */
export type Fault =
  | "error before"
  | "error after"
  | "reset before"
  | "reset after"
  | "silence"
  | { readonly answer: Answer }
  | { readonly holdMs: number }
  | { readonly body: BodyFault };

/** A name for what was done, for the record. */
export function nameOf(fault: Fault): string {
  if (typeof fault === "string") return fault;
  if ("answer" in fault) return String(fault.answer.status);
  if ("holdMs" in fault) return "hold";
  const { body } = fault;
  if ("cut" in body) return `cut ${body.cut}`;
  if ("event" in body) return `event ${body.event.status}`;
  return Object.keys(body)[0]?.replace("Ms", "") ?? "";
}

export function statusText({ status, reason, message = "as the test wants it", retryAfterSeconds }: Answer): string {
  return JSON.stringify({
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Failure",
    message,
    ...(reason === undefined ? {} : { reason }),
    ...(retryAfterSeconds === undefined ? {} : { details: { retryAfterSeconds } }),
    code: status,
  });
}

export const GONE: Answer = { status: 410, reason: "Expired", message: "too old resource version" };
export const NO_STREAM: Answer = { status: 422, reason: "Invalid", message: "sendInitialEvents: Forbidden" };
export const tooMany = (retryAfterSeconds: number): Answer => ({
  status: 429,
  reason: "TooManyRequests",
  retryAfterSeconds,
  headers: { "retry-after": String(retryAfterSeconds) },
});
