import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer, request as httpsRequest } from "node:https";
import type { AddressInfo } from "node:net";
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import type { Access } from "../../src/kube/access.ts";
import { tlsMaterial } from "./cluster/tls.ts";
import { pass, spoil } from "./faults/body.ts";
import { type Answer, type Fault, type ProxiedRequest, statusText } from "./faults/fault.ts";
import { type Fired, firedNow } from "./faults/script.ts";
import { relay } from "./relay.ts";

export interface Refusal {
  readonly method: string;
  /** Matched against the path of the request. */
  readonly path: RegExp;
  readonly status: number;
  readonly reason?: string;
  readonly message: string;
}

/**
 * A stand-in in front of any API server that counts requests, refuses those it is told to, with a Status object as the API
 * server would send, and spoils others (faults/). Asks the API server with its own rights. WebSockets pass as they are.
 */
export class Gate implements AsyncDisposable {
  readonly #over: Access;
  #server: Server;
  #tls: ReturnType<typeof tlsMaterial> | undefined;
  /** `METHOD path?query` of every request, in order of arrival. */
  readonly requests: string[] = [];
  /** What went wrong so far: a fault is here once it had its effect. */
  readonly fired: Fired[] = [];
  /** The exec connections that are open now. */
  readonly upgrades = new Set<Duplex>();
  /** What is refused now; change it at will. */
  refusals: Refusal[] = [];
  /** The one bearer token that is good; without it, nobody is asked for one. */
  token: string | undefined;
  /** How many requests came without it. */
  unauthorized = 0;
  /** Lists come in pages of so many at most, whatever the runner asks for. */
  pageLimit: number | undefined;
  /** What answers say the time is; without it they say what it is. */
  dates: (() => Date) | undefined;
  /** Asked for every request; the request waits for the answer. */
  fault: (request: ProxiedRequest) => Fault | undefined | Promise<undefined> = () => undefined;

  private constructor(over: Access, tls: boolean) {
    this.#over = over;
    this.#tls = tls ? tlsMaterial(Date.now()) : undefined;
    this.#server = this.#serve();
  }

  /** Speaks plain HTTP to the runner, or TLS with a CA of its own. */
  static async over(access: Access, { tls = false } = {}): Promise<Gate> {
    const gate = new Gate(access, tls);
    await gate.#listen(0);
    return gate;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port; // listening on TCP, so neither string nor null
  }

  get url(): string {
    return `${this.#tls === undefined ? "http" : "https"}://127.0.0.1:${this.port}`;
  }

  get caPem(): string {
    return this.#tls?.caPem ?? "";
  }

  get access(): Access {
    const tls = this.#tls === undefined ? {} : { ca: this.caPem };
    return { ...this.#over, server: new URL(this.url), credentials: async () => ({ headers: {}, tls }) };
  }

  /** As a crash of the server, or of the way to it, does. */
  dropConnections(): void {
    this.#server.closeAllConnections();
  }

  /** From now on another CA and certificate, on the same port; all connections are dropped. */
  async rotateCertificates(): Promise<void> {
    const { port } = this;
    await this.#close();
    this.#tls = tlsMaterial(Date.now());
    this.#server = this.#serve();
    await this.#listen(port);
  }

  #serve(): Server {
    const tls = this.#tls;
    const server = tls === undefined ? createServer() : createTlsServer({ cert: tls.certPem, key: tls.keyPem });
    server.on("request", (request, response) => {
      this.#answer(request, response).catch(() => response.destroy()); // the API server or the runner has gone
    });
    server.on("upgrade", (request, socket, head) => {
      this.#upgrade(request, socket, head).catch(() => socket.destroy());
    });
    return server;
  }

  #listen(port: number): Promise<void> {
    return new Promise((listening) => this.#server.listen(port, "127.0.0.1", listening));
  }

  async #close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  #arrive({ method = "GET", url = "/", headers }: IncomingMessage): ProxiedRequest & { refusal: Answer | undefined } {
    this.requests.push(`${method} ${url}`);
    const { pathname: path, searchParams: query } = new URL(url, this.url);
    const good = this.token === undefined || headers.authorization === `Bearer ${this.token}`;
    const refusal = this.refusals.find((each) => each.method === method && each.path.test(path));
    if (!good) this.unauthorized++;
    return { method, path, query, refusal: good ? refusal : UNAUTHORIZED };
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
    const lines = Object.entries({ ...request.headers, ...headers, host: server.host }).map((pair) => pair.join(": "));
    this.upgrades.add(near);
    near.on("close", () => this.upgrades.delete(near));
    far.write(`${method} ${url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
    far.write(head);
    relay(near, far);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { refusal, ...asked } = this.#arrive(request);
    const body = Buffer.concat(await Array.fromAsync<Buffer>(request));
    if (refusal !== undefined) return answer(response, refusal);
    const fault = await this.fault(asked);
    if (fault === undefined) return pass(await this.#forward(request, body, response), begun(response));
    const fired = once(() => this.fired.push(firedNow(asked, fault)));
    if (typeof fault === "object" && "body" in fault)
      return spoil(await this.#forward(request, body, response), begun(response), fault.body, fired);
    if (typeof fault === "object" && "holdMs" in fault) {
      fired();
      await new Promise((resolve) => setTimeout(resolve, fault.holdMs));
      return pass(await this.#forward(request, body, response), begun(response));
    }
    if (fault === "error after" || fault === "reset after")
      for await (const _ of await this.#forward(request, body, response)); // so that it was carried out
    fired();
    if (fault === "silence") return;
    if (fault === "reset before" || fault === "reset after") return void request.socket.resetAndDestroy();
    answer(response, typeof fault === "object" ? fault.answer : SPOILED);
  }

  /** The API server's answer; its head is made the response's. */
  async #forward(request: IncomingMessage, body: Buffer, response: ServerResponse): Promise<IncomingMessage> {
    const { method = "GET", url = "/", headers } = request;
    const { headers: credentials, tls } = await this.#over.credentials();
    const { serverName, ...material } = tls;
    const { server } = this.#over;
    const target = new URL(url, server);
    if (this.pageLimit !== undefined && target.searchParams.has("limit"))
      target.searchParams.set("limit", String(this.pageLimit));
    const outgoing = (server.protocol === "https:" ? httpsRequest : httpRequest)(target, {
      method,
      agent: false,
      ...material,
      ...(serverName === undefined ? {} : { servername: serverName }),
      headers: {
        ...credentials,
        accept: headers.accept ?? "",
        "content-type": headers["content-type"] ?? "",
        "content-length": body.length,
        "user-agent": headers["user-agent"] ?? "",
      },
    });
    response.once("close", () => outgoing.destroy());
    const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
      outgoing.once("response", resolve);
      outgoing.on("error", reject); // `on`: what comes after the answer ends the answer
      outgoing.end(body);
    });
    response.statusCode = incoming.statusCode ?? 502;
    if (this.dates !== undefined) response.setHeader("date", this.dates().toUTCString());
    for (const name of ["content-type", "retry-after"]) {
      const value = incoming.headers[name];
      if (value !== undefined) response.setHeader(name, value);
    }
    return incoming;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}

const SPOILED: Answer = { status: 500, reason: "InternalError", message: "spoiled on the way" };
const UNAUTHORIZED: Answer = { status: 401, reason: "Unauthorized", message: "Unauthorized" };

function answer(response: ServerResponse, told: Answer): void {
  const { status, headers = {}, body = statusText(told) } = told;
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(body);
}

/** The head goes out at once: a watch may be quiet for long. */
function begun(response: ServerResponse): ServerResponse {
  response.flushHeaders();
  return response;
}

function once(act: () => void): () => void {
  let done = false;
  return () => {
    if (!done) act();
    done = true;
  };
}
