import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import type { Access } from "../../src/kube/access.ts";

export interface Refusal {
  readonly method: string;
  /** Matched against the path of the request. */
  readonly path: RegExp;
  readonly status: number;
  readonly reason?: string;
  readonly message: string;
}

/** What happens to one request: an error or a reset, before the API server sees it or after it has carried it out. */
export type Fault = "error before" | "error after" | "reset before" | "reset after";

export interface GateRequest {
  readonly method: string;
  readonly path: string;
}

/**
 * A stand-in in front of the API server that counts requests, refuses those it is told to, with a Status object as the API
 * server would send, and spoils others. Speaks plain HTTP to the runner; WebSockets pass as they are.
 */
export class Gate implements AsyncDisposable {
  readonly #over: Access;
  readonly #server: Server;
  /** `METHOD path?query` of every request, in order of arrival. */
  readonly requests: string[] = [];
  /** The exec connections that are open now. */
  readonly upgrades = new Set<Duplex>();
  /** What is refused now; change it at will. */
  refusals: Refusal[] = [];
  /** Asked for every request; the request waits for the answer. */
  fault: (request: GateRequest) => Fault | undefined | Promise<undefined> = () => undefined;

  private constructor(over: Access) {
    this.#over = over;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy()); // the API server or the runner has gone
    });
    this.#server.on("upgrade", (request, socket, head) => {
      this.#upgrade(request, socket, head).catch(() => socket.destroy());
    });
  }

  #arrive({ method = "GET", url = "/" }: IncomingMessage): { pathname: string; refusal: Refusal | undefined } {
    this.requests.push(`${method} ${url}`);
    const { pathname } = new URL(url, this.url);
    return { pathname, refusal: this.refusals.find((each) => each.method === method && each.path.test(pathname)) };
  }

  /** Counts and refuses as it does other requests, then passes bytes on. */
  async #upgrade(request: IncomingMessage, near: Duplex, head: Buffer): Promise<void> {
    const { method = "GET", url = "/" } = request;
    const { refusal } = this.#arrive(request);
    if (refusal !== undefined) return void near.end(`HTTP/1.1 ${refusal.status} Refused\r\ncontent-length: 0\r\n\r\n`);
    const { server } = this.#over;
    const { headers, tls } = await this.#over.credentials();
    const to = { host: server.hostname, port: Number(server.port || 443) };
    const far = server.protocol === "https:" ? connectTls({ ...to, ...tls }) : connect(to);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      socket.on("error", () => other.destroy());
      socket.on("close", () => other.destroy());
    }
    const lines = Object.entries({ ...request.headers, ...headers, host: server.host }).map((pair) => pair.join(": "));
    this.upgrades.add(near);
    near.on("close", () => this.upgrades.delete(near));
    far.write(`${method} ${url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
    far.write(head);
    near.pipe(far).pipe(near);
  }

  static async over(access: Access): Promise<Gate> {
    const gate = new Gate(access);
    await new Promise<void>((listening) => gate.#server.listen(0, "127.0.0.1", listening));
    return gate;
  }

  get url(): string {
    const { port } = this.#server.address() as AddressInfo; // listening on TCP, so neither string nor null
    return `http://127.0.0.1:${port}`;
  }

  get access(): Access {
    return { ...this.#over, server: new URL(this.url), credentials: async () => ({ headers: {}, tls: {} }) };
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "GET" } = request;
    const { pathname, refusal } = this.#arrive(request);
    const body = Buffer.concat(await Array.fromAsync<Buffer>(request));
    if (refusal !== undefined) return refuse(response, refusal);
    const fault = await this.fault({ method, path: pathname });
    if (fault === "reset before") return void request.socket.resetAndDestroy();
    if (fault === "error before") return refuse(response, SPOILED);
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const answer = await this.#forward(request, body, gone.signal);
    if (fault === undefined) return send(answer, response);
    await answer.body?.cancel();
    if (fault === "error after") return refuse(response, SPOILED);
    request.socket.resetAndDestroy();
  }

  async #forward(request: IncomingMessage, body: Buffer, signal: AbortSignal): Promise<Response> {
    const { method = "GET", url = "/", headers } = request;
    const { headers: credentials, tls } = await this.#over.credentials();
    return fetch(new URL(url, this.#over.server), {
      method,
      headers: { ...credentials, accept: headers.accept ?? "", "content-type": headers["content-type"] ?? "" },
      tls,
      body: body.length === 0 ? null : body,
      signal,
      timeout: false,
    } as RequestInit);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }
}

const SPOILED = { status: 500, reason: "InternalError", message: "spoiled on the way" };

function refuse(response: ServerResponse, refusal: Pick<Refusal, "status" | "reason" | "message">): void {
  const { status, reason, message } = refusal;
  const body = {
    kind: "Status",
    apiVersion: "v1",
    status: "Failure",
    code: status,
    message,
    ...(reason && { reason }),
  };
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

async function send(answer: Response, response: ServerResponse): Promise<void> {
  response.writeHead(answer.status, { "content-type": answer.headers.get("content-type") ?? "" });
  response.flushHeaders();
  for await (const data of answer.body ?? []) response.write(data);
  response.end();
}
