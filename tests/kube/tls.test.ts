import { expect, test } from "bun:test";
import https from "node:https";
import type { AddressInfo } from "node:net";
import type { Tls } from "../../src/kube/access.ts";
import { Kube } from "../../src/kube/client.ts";
import { createLog } from "../../src/log.ts";
import { tlsMaterial } from "../support/cluster/tls.ts";
import { collect, failureOf, podObject, statusObject } from "./server.ts";

/** An API server over TLS that knows one Pod and no exec; `port` 0 is any. */
async function serve({ certPem, keyPem }: { certPem: string; keyPem: string }, port = 0) {
  const server = https.createServer({ cert: certPem, key: keyPem }, (request, response) => {
    const text = `${JSON.stringify({ type: "ADDED", object: podObject("p", "1") })}\n`;
    response.writeHead(request.url?.includes("/exec") ? 403 : 200, { "content-type": "application/json" });
    if (request.url?.includes("/exec")) response.end(JSON.stringify(statusObject(403, "Forbidden", "not that")));
    else response.end(request.url?.includes("watch") ? text : JSON.stringify(podObject("p", "1")));
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port, // a TCP server's address is an object
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** What each of the three transports makes of this server: a request, a stream, a WebSocket. */
async function outcomes(kube: Kube): Promise<unknown[]> {
  const { signal } = new AbortController();
  const ways = [
    async () => (await kube.pods.get("p")).metadata?.name,
    async () => (await collect(kube.pods.watch({}))).length,
    async () => kube.exec("p", { container: "c", command: ["c"], signal }),
  ];
  return Promise.all(ways.map((way) => way().catch((error) => error.status)));
}

const over = (port: number, tls: Tls): Kube =>
  new Kube({
    namespace: "work",
    log: createLog({ level: "silent" }),
    access: {
      server: new URL(`https://127.0.0.1:${port}`),
      source: "test",
      credentials: async () => ({ headers: {}, tls: { ...tls } }),
    },
  });

test("only a server whose certificate is of our CA is talked to", async () => {
  const [ours, other] = [tlsMaterial(Date.now()), tlsMaterial(Date.now())];
  await using server = await serve(ours);
  expect(await outcomes(over(server.port, { ca: ours.caPem }))).toEqual(["p", 1, 403]);
  expect(await outcomes(over(server.port, { ca: other.caPem }))).toEqual([0, 0, 0]);
  expect(await outcomes(over(server.port, {}))).toEqual([0, 0, 0]);
  expect(await outcomes(over(server.port, { rejectUnauthorized: false }))).toEqual(["p", 1, 403]);
});

test("the name in the certificate counts, or the one that the kubeconfig gives", async () => {
  const material = tlsMaterial(Date.now());
  await using server = await serve(material);
  const tls = { ca: material.caPem };
  expect(await outcomes(over(server.port, { ...tls, serverName: "elsewhere.example" }))).toEqual([0, 0, 0]);
  expect(await outcomes(over(server.port, { ...tls, serverName: "localhost" }))).toEqual(["p", 1, 403]);
});

test("a rotated CA is used from the next connection on, by the same client", async () => {
  const [before, after] = [tlsMaterial(Date.now()), tlsMaterial(Date.now())];
  const tls: Tls = { ca: before.caPem };
  let port = 0;
  {
    await using server = await serve(before);
    port = server.port;
    expect(await outcomes(over(port, tls))).toEqual(["p", 1, 403]);
  }
  const kube = over(port, tls);
  await using _ = await serve(after, port);
  expect(await failureOf(kube.pods.get("p"))).toMatchObject({ status: 0 });
  tls.ca = after.caPem;
  expect(await outcomes(kube)).toEqual(["p", 1, 403]);
});
