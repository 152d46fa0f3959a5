import http from "node:http";
import type { AddressInfo } from "node:net";
import type { Access } from "../../src/kube/access.ts";
import { Kube, type KubeOptions } from "../../src/kube/client.ts";
import { createLog } from "../../src/log.ts";

/** One request as the scripted API server saw it. */
export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
  /** Which TCP connection it came over, counted from 1. */
  readonly connection: number;
  /** How many requests came before it. */
  readonly index: number;
}

export interface ScriptedServer extends AsyncDisposable {
  readonly access: Access;
  readonly seen: Seen[];
  /** How often credentials were asked for with `renew`. */
  readonly renewed: () => number;
  readonly kube: (options?: Partial<KubeOptions>) => Kube;
}

/** An API server that answers as the test says, over plain HTTP. Its token is `token-<times renewed>`. */
export async function scriptedServer(
  answer: (seen: Seen, response: http.ServerResponse) => unknown,
): Promise<ScriptedServer> {
  const seen: Seen[] = [];
  const connections = new Map<object, number>();
  const server = http.createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const url = new URL(request.url ?? "", "http://server");
    if (!connections.has(request.socket)) connections.set(request.socket, connections.size + 1);
    const one: Seen = {
      method: request.method ?? "",
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      body,
      connection: connections.get(request.socket) ?? 0,
      index: seen.length,
    };
    seen.push(one);
    await answer(one, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // a TCP server's address is an object
  let renewed = 0;
  const access: Access = {
    server: new URL(`http://127.0.0.1:${port}`),
    source: "test",
    credentials: async (options) => {
      if (options?.renew) renewed++;
      return { headers: { authorization: `Bearer token-${renewed}` }, tls: {} };
    },
  };
  return {
    access,
    seen,
    renewed: () => renewed,
    kube: (options = {}) => new Kube({ access, namespace: "work", log: createLog({ level: "silent" }), ...options }),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export function json(
  response: http.ServerResponse,
  status: number,
  body: unknown,
  headers: http.OutgoingHttpHeaders = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

export const statusObject = (code: number, reason: string, message: string, details?: object) => ({
  kind: "Status",
  apiVersion: "v1",
  metadata: {},
  status: "Failure",
  message,
  reason,
  code,
  ...(details === undefined ? {} : { details }),
});

/** A Pod as the API server sends it. */
export const podObject = (
  name: string,
  version: string,
  more: { uid?: string; labels?: Record<string, string> } = {},
) => ({
  kind: "Pod",
  apiVersion: "v1",
  metadata: { name, uid: more.uid ?? `uid-${name}`, resourceVersion: version, labels: more.labels ?? {} },
  spec: { containers: [{ name: "main", image: "alpine:3.21" }] },
});

export const listObject = (items: readonly object[], version: string, token?: string) => ({
  kind: "PodList",
  apiVersion: "v1",
  metadata: { resourceVersion: version, ...(token === undefined ? {} : { continue: token }) },
  items,
});

/** What the promise rejects with; fails when it does not. */
export async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
