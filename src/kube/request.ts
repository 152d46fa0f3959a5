import manifest from "../../package.json" with { type: "json" };
import { Backoff, boundedSignal } from "../time.ts";
import type { Access, Credentials } from "./access.ts";
import { utf8 } from "./answer.ts";
import { Connections } from "./connections.ts";
import { fromAnswer, KubeError, noAnswer } from "./error.ts";

/** A unary request, retries included, is over by then (promises, I4). */
const REQUEST_MS = 30_000;
/** How often a request that may be repeated is tried again. */
const RETRIES = 2;
/** A Retry-After longer than this is the caller's matter, in seconds. */
const MAX_RETRY_AFTER_SECONDS = 5;
/** Larger bodies are an attack or a mistake: a LIST page of 500 Pods is about 5 MiB. */
const MAX_BODY_BYTES = 64 * 1024 * 1024;
/** A Status is some hundred bytes; what a proxy writes instead is not read to its end. */
export const MAX_ERROR_BODY_BYTES = 64 * 1024;
/** An idle connection older than this is not used again, in seconds: proxies drop them without a word. */
const IDLE_CONNECTION_SECONDS = 60;

export const USER_AGENT = `k8s-runner/${manifest.version}`;

/**
 * What one request was, for metrics. `resource` is e.g. `pods` or `pods/log`; `status` is 0 without an answer; `date` is the
 * answer's Date header, of unary requests.
 */
export interface RequestInfo {
  readonly verb: string;
  readonly resource: string;
  readonly status: number;
  readonly seconds: number;
  readonly date?: string;
}

export interface TransportOptions {
  readonly access: Access;
  readonly onRequest?: ((info: RequestInfo) => void) | undefined;
  /** Bound of a unary request, in ms. */
  readonly requestMs?: number | undefined;
}

export interface UnaryRequest {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  /** What it is for metrics, where the method does not say so. */
  readonly verb?: "LIST";
  readonly path: ResourcePath;
  readonly query?: Query;
  readonly body?: unknown;
  readonly contentType?: string;
  /** Whether carrying it out twice is the same as once: true for GET. */
  readonly repeatable?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export type Query = readonly (readonly [name: string, value: string])[];

/**
 * A path under the API server's own, every part of it escaped: made by `resourcePath` for objects of the workload namespace,
 * so that no text from outside gets into a URL.
 */
export interface ResourcePath {
  readonly path: string;
  readonly resource: string;
}

/** RFC 1123 subdomain: what every name of ours must be. */
const NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/**
 * `/api/v1/namespaces/<namespace>/<resource>[/<name>[/<subresource>]]`. A name that no object can have is answered as
 * the API server would, with NotFound, and no request is made (promises, threat 1).
 */
export function resourcePath(namespace: string, resource: string, name?: string, subresource?: string): ResourcePath {
  if (name !== undefined && (name.length > 253 || !NAME.test(name)))
    throw new KubeError(404, "NotFound", `${resource} ${JSON.stringify(name.slice(0, 253))} not found`);
  const parts = [namespace, resource, name, subresource].filter((part) => part !== undefined);
  return {
    path: `/api/v1/namespaces/${parts.map(encodeURIComponent).join("/")}`,
    resource: subresource === undefined ? resource : `${resource}/${subresource}`,
  };
}

/** The URL of a request; what the server's own URL has as a path stays in front. */
export function urlOf(access: Access, { path }: ResourcePath, query: Query = []): URL {
  const url = new URL(access.server);
  url.pathname = url.pathname.replace(/\/$/, "") + path;
  url.search = new URLSearchParams(query.map(([name, value]): [string, string] => [name, value])).toString();
  return url;
}

/** Unary requests over fetch: authenticated, bounded in time and size, never following a redirect with our token. */
export class Transport {
  readonly access: Access;
  /** Of streams; unary requests keep theirs in a session of fetch. */
  readonly connections = new Connections(IDLE_CONNECTION_SECONDS * 1000);
  readonly #requestMs: number;
  readonly #onRequest: ((info: RequestInfo) => void) | undefined;
  readonly #session = new Bun.FetchSession({ keepAlive: { idleTimeout: IDLE_CONNECTION_SECONDS }, proxy: false });

  constructor({ access, onRequest, requestMs = REQUEST_MS }: TransportOptions) {
    this.access = access;
    this.#onRequest = onRequest;
    this.#requestMs = requestMs;
  }

  /**
   * The parsed JSON body of a 2xx answer. What may be repeated is tried again when the connection was lost or the server
   * failed, everything when it was told to come back soon (429: nothing was done), and once with new credentials after a 401.
   * Throws KubeError; `signal.reason` when aborted.
   */
  async json(request: UnaryRequest): Promise<unknown> {
    using bound = boundedSignal(this.#requestMs, request.signal);
    const backoff = new Backoff({ minMs: 50, maxMs: 500 });
    for (let retries = 0; ; retries++) {
      try {
        return await this.#authenticated(request, bound.signal);
      } catch (error) {
        if (request.signal?.aborted) throw request.signal.reason;
        if (bound.timedOut) {
          this.dropIdleConnections(); // whatever swallowed this request would swallow the next one too
          throw noAnswer(`no answer within ${this.#requestMs} ms`);
        }
        if (!(error instanceof KubeError) || retries >= RETRIES || !mayRepeat(request, error)) throw error;
        await backoff.wait(bound.signal, (error.retryAfterSeconds ?? 0) * 1000).catch(() => {
          throw request.signal?.aborted ? request.signal.reason : error;
        });
      }
    }
  }

  /** Connections that wait for work are closed: the next request makes a new one. */
  dropIdleConnections(): void {
    this.#session.close();
    this.connections.drop();
  }

  /** Whether the API server answers anything at all, on a new connection. */
  async reachable(signal: AbortSignal): Promise<boolean> {
    this.dropIdleConnections();
    try {
      await this.json({ method: "GET", path: { path: "/version", resource: "version" }, signal });
      return true;
    } catch (error) {
      return error instanceof KubeError && error.status !== 0;
    }
  }

  /** Reports a request that another transport made (a stream, a WebSocket). */
  report(info: RequestInfo): void {
    this.#onRequest?.(info);
  }

  async #authenticated(request: UnaryRequest, signal: AbortSignal): Promise<unknown> {
    try {
      return await this.#once(request, await credentialsOf(this.access), signal);
    } catch (error) {
      if (!(error instanceof KubeError) || error.status !== 401) throw error;
      return await this.#once(request, await credentialsOf(this.access, { renew: true }), signal);
    }
  }

  async #once(request: UnaryRequest, { headers, tls }: Credentials, signal: AbortSignal): Promise<unknown> {
    const startedAt = performance.now();
    let status = 0;
    let date: string | null = null;
    try {
      const { method, path, query, body, contentType = "application/json" } = request;
      const response = await this.#session.fetch(urlOf(this.access, path, query).href, {
        method,
        headers: {
          ...headers,
          accept: "application/json",
          // Not compressed: on a cluster's own network that costs more than it saves, and the size can be bounded.
          "accept-encoding": "identity",
          "user-agent": USER_AGENT,
          ...(body === undefined ? {} : { "content-type": contentType }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        redirect: "manual",
        signal,
        timeout: false,
        tls,
      });
      status = response.status;
      date = response.headers.get("date");
      if (!response.ok) {
        const body = await boundedBody(response, MAX_ERROR_BODY_BYTES, "cut");
        throw fromAnswer(status, body.toString("utf8"), response.headers.get("retry-after"));
      }
      return parsed(await boundedBody(response, MAX_BODY_BYTES, "refuse"), status);
    } catch (error) {
      if (error instanceof KubeError || signal.aborted) throw error;
      throw noAnswer("the Kubernetes API cannot be reached", error);
    } finally {
      const seconds = (performance.now() - startedAt) / 1000;
      const told = date === null ? {} : { date };
      const { verb = request.method, path } = request;
      this.#onRequest?.({ verb, resource: path.resource, status, seconds, ...told });
    }
  }
}

/** The access's credentials; KubeError (status 0) when they cannot be had, e.g. because an exec plugin failed. */
export async function credentialsOf(access: Access, options?: { renew?: boolean }): Promise<Credentials> {
  try {
    return await access.credentials(options);
  } catch (error) {
    throw new KubeError(0, "", "no credentials for the Kubernetes API", { cause: error });
  }
}

function mayRepeat(
  { method, repeatable = method === "GET" }: UnaryRequest,
  { status, retryAfterSeconds = 0 }: KubeError,
): boolean {
  if (retryAfterSeconds > MAX_RETRY_AFTER_SECONDS) return false;
  return status === 429 || (repeatable && (status === 0 || status >= 500));
}

function parsed(body: Uint8Array, status: number): unknown {
  try {
    return JSON.parse(utf8(body));
  } catch {
    throw new KubeError(status, "", "the Kubernetes API answered something that is not JSON");
  }
}

async function boundedBody(response: Response, limit: number, beyond: "cut" | "refuse"): Promise<Buffer> {
  if (response.body === null) return Buffer.alloc(0);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body) {
    chunks.push(chunk);
    size += chunk.length;
    if (size <= limit) continue;
    if (beyond === "cut") break;
    throw new KubeError(response.status, "", `the Kubernetes API answered more than ${limit} bytes`);
  }
  return Buffer.concat(chunks, Math.min(size, limit));
}
