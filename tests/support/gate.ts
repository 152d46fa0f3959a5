import type { Access } from "../../src/kube/access.ts";

export interface Refusal {
  readonly method: string;
  /** Matched against the path of the request. */
  readonly path: RegExp;
  readonly status: number;
  readonly reason?: string;
  readonly message: string;
}

/**
 * A stand-in in front of the API server that counts requests and refuses those it is told to, with a Status object as the
 * API server would send. Speaks plain HTTP to the runner; no WebSocket, so no exec.
 */
export class Gate implements AsyncDisposable {
  readonly #over: Access;
  readonly #server;
  /** `METHOD path?query` of every request, in order of arrival. */
  readonly requests: string[] = [];
  /** What is refused now; change it at will. */
  refusals: Refusal[] = [];

  constructor(over: Access) {
    this.#over = over;
    this.#server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 0,
      fetch: (request) => this.#answer(request),
    });
  }

  get access(): Access {
    return {
      ...this.#over,
      server: new URL(this.#server.url),
      credentials: async () => ({ headers: {}, tls: {} }),
    };
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    this.requests.push(`${request.method} ${pathname}${search}`);
    const refusal = this.refusals.find(({ method, path }) => method === request.method && path.test(pathname));
    if (refusal !== undefined) {
      const { status, reason, message } = refusal;
      const body = {
        kind: "Status",
        apiVersion: "v1",
        status: "Failure",
        code: status,
        message,
        ...(reason && { reason }),
      };
      return Response.json(body, { status });
    }
    const { headers, tls } = await this.#over.credentials();
    const forwarded = new Headers(request.headers);
    forwarded.delete("host");
    for (const [name, value] of Object.entries(headers)) forwarded.set(name, value);
    const answer = await fetch(new URL(pathname + search, this.#over.server), {
      method: request.method,
      headers: forwarded,
      tls,
      body: request.method === "GET" ? null : await request.arrayBuffer(),
      signal: request.signal,
      decompress: false,
    });
    return new Response(answer.body, { status: answer.status, headers: answer.headers });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}
