import { expect, test } from "bun:test";
import type { ServerResponse } from "node:http";
import { KubeError } from "../../src/kube/error.ts";
import { collect, failureOf, json, listObject, podObject, scriptedServer, statusObject } from "./server.ts";

const BASE = "/api/v1/namespaces/work";

const failure = (status: number, reason: string, message: string) =>
  expect.objectContaining({ name: "KubeError", status, reason, message });

test("the verbs are sent as the API wants them", async () => {
  await using server = await scriptedServer(({ method, path }, response) =>
    json(
      response,
      200,
      method === "DELETE" && path.endsWith("-2") ? { kind: "Status", status: "Success" } : podObject("p", "7"),
    ),
  );
  const { pods } = server.kube();
  await pods.get("p");
  await pods.create(podObject("p", ""), { dryRun: true });
  await pods.patch("p", { metadata: { annotations: { a: null } } });
  expect((await pods.delete("p", { uid: "u", resourceVersion: "5", gracePeriodSeconds: 0 }))?.metadata?.name).toBe("p");
  expect(await pods.delete("p-2")).toBeUndefined();
  const [get, create, patch, remove, bare] = server.seen;
  expect(server.seen.map(({ method, path }) => `${method} ${path}`)).toEqual([
    `GET ${BASE}/pods/p`,
    `POST ${BASE}/pods`,
    `PATCH ${BASE}/pods/p`,
    `DELETE ${BASE}/pods/p`,
    `DELETE ${BASE}/pods/p-2`,
  ]);
  expect(get?.headers).toMatchObject({
    authorization: "Bearer token-0",
    accept: "application/json",
    "user-agent": expect.stringMatching(/^k8s-runner\/\d+\.\d+\.\d+$/),
  });
  expect(create?.query.get("dryRun")).toBe("All");
  expect(patch?.headers["content-type"]).toBe("application/merge-patch+json");
  expect(JSON.parse(remove?.body ?? "")).toEqual({
    apiVersion: "v1",
    kind: "DeleteOptions",
    gracePeriodSeconds: 0,
    preconditions: { uid: "u", resourceVersion: "5" },
  });
  expect(JSON.parse(bare?.body ?? "")).toEqual({ apiVersion: "v1", kind: "DeleteOptions" });
});

test("list parameters are encoded, and no resourceVersion is asked for", async () => {
  await using server = await scriptedServer((_, response) => json(response, 200, listObject([], "9", "more")));
  const page = await server.kube().pods.list({ labelSelector: "a=b,c=d&watch=true#", limit: 5, continue: "x/y?z" });
  expect(page.metadata).toEqual({ resourceVersion: "9", continue: "more" });
  expect(Object.fromEntries(server.seen[0]?.query ?? [])).toEqual({
    labelSelector: "a=b,c=d&watch=true#",
    limit: "5",
    continue: "x/y?z",
  });
});

test("a list that expires again and again before its end is given up as one that cannot be had, never cut short", async () => {
  await using server = await scriptedServer(({ query }, response) =>
    query.has("continue")
      ? json(response, 410, statusObject(410, "Expired", "too old"))
      : json(response, 200, listObject([podObject("a", "1")], "1", "more")),
  );
  expect(await failureOf(server.kube().pods.listAll({}))).toMatchObject({ status: 0, unreachable: true });
  expect(server.seen.length).toBe(6);
});

test("names that no object can have are answered NotFound, without a request", async () => {
  await using server = await scriptedServer((_, response) => json(response, 200, podObject("p", "1")));
  const kube = server.kube();
  const { signal } = new AbortController();
  const names = [
    "",
    ".",
    "..",
    "../secrets/s",
    "x/../../secrets/s?a=",
    "%2e%2e",
    "a%2fb",
    "a?b",
    "a#b",
    "A",
    "a b",
    "ä",
  ];
  for (const name of [...names, "a\0", "a\nb", "-a", "a-", "a..b", "a;b", "a\\b", "a".repeat(254), "__proto__"]) {
    const expected = expect.objectContaining({ status: 404, reason: "NotFound", notFound: true });
    expect(await failureOf(kube.pods.get(name))).toEqual(expected);
    expect(await failureOf(kube.pods.delete(name))).toEqual(expected);
    expect(await failureOf(kube.pods.patch(name, {}))).toEqual(expected);
    expect(await failureOf(kube.exec(name, { container: "c", command: ["c"], signal }))).toEqual(expected);
    expect(await failureOf((async () => collect(kube.log(name, { container: "c" })))())).toEqual(expected);
  }
  expect(server.seen).toEqual([]);
});

test("a refusal carries the Status: reason, message, Retry-After", async () => {
  await using server = await scriptedServer(({ path }, response) => {
    if (path.endsWith("/a")) return json(response, 404, statusObject(404, "NotFound", ' pods "a" not found '));
    if (path.endsWith("/b"))
      return json(response, 429, statusObject(429, "TooManyRequests", "slow down", { retryAfterSeconds: 60 }));
    if (path.endsWith("/c")) return json(response, 429, { nonsense: true }, { "retry-after": "70" });
    response.writeHead(502);
    response.end("<html>bad gateway with secrets");
  });
  const { pods } = server.kube();
  expect(await failureOf(pods.get("a"))).toEqual(failure(404, "NotFound", 'pods "a" not found'));
  expect(await failureOf(pods.get("b"))).toMatchObject({ status: 429, retryAfterSeconds: 60, unreachable: true });
  expect(await failureOf(pods.get("c"))).toMatchObject({ status: 429, reason: "", retryAfterSeconds: 70 });
  expect(await failureOf(pods.patch("d", {}))).toEqual(
    failure(502, "", "the Kubernetes API answered HTTP 502 without a Status"),
  );
});

test("an endless error body is not read to its end", async () => {
  await using server = await scriptedServer((_, response) => {
    response.writeHead(500);
    const more = () => {
      while (!response.destroyed && response.write(Buffer.alloc(65536, 120)));
    };
    response.on("drain", more);
    more();
  });
  expect(await failureOf(server.kube().pods.patch("p", {}))).toMatchObject({ status: 500, reason: "" });
});

test("what is not the object asked for is refused", async () => {
  const answers = ["no json", "[]", "null", "{}", '{"kind":"Pod"}', JSON.stringify({ kind: "Secret", metadata: {} })];
  await using server = await scriptedServer(({ query }, response) => {
    const list = query.has("limit");
    response.end(list ? answers[Number(query.get("limit"))]?.replace('"Secret"', '"PodList"') : answers.shift());
  });
  const { pods } = server.kube();
  const lists = await Promise.all([0, 1, 2, 3, 4, 5].map((limit) => failureOf(pods.list({ limit }))));
  for (const error of lists) expect(error).toMatchObject({ name: "KubeError", status: 200, reason: "" });
  for (const _ of [...answers])
    expect(await failureOf(pods.get("p"))).toMatchObject({ name: "KubeError", status: 200, reason: "" });
  expect(answers).toEqual([]);
});

test("a redirect is not followed, so the token goes nowhere else", async () => {
  await using other = await scriptedServer((_, response) => json(response, 200, podObject("p", "1")));
  await using server = await scriptedServer((_, response) => {
    response.writeHead(307, { location: new URL("/api/v1/namespaces/work/pods/p", other.access.server).href });
    response.end();
  });
  const { pods } = server.kube();
  const text = "the Kubernetes API answered with a redirect (HTTP 307), which is not followed";
  expect(await failureOf(pods.get("p"))).toEqual(failure(307, "", text));
  expect(await failureOf(collect(pods.watch({})))).toEqual(failure(307, "", text));
  expect(other.seen).toEqual([]);
});

test("after a 401 the credentials are renewed and the request is sent once more, and not again", async () => {
  await using server = await scriptedServer(({ headers, query }, response) => {
    if (headers.authorization !== "Bearer token-1")
      return json(response, 401, statusObject(401, "Unauthorized", "Unauthorized"));
    return query.has("watch") ? response.end() : json(response, 200, podObject("p", "1"));
  });
  const { pods } = server.kube();
  expect((await pods.create(podObject("p", ""))).metadata?.name).toBe("p");
  expect([server.seen.length, server.renewed()]).toEqual([2, 1]);

  await using strict = await scriptedServer((_, response) =>
    json(response, 401, statusObject(401, "Unauthorized", "Unauthorized")),
  );
  const kube = strict.kube();
  expect(await failureOf(kube.pods.get("p"))).toEqual(failure(401, "Unauthorized", "Unauthorized"));
  expect(await failureOf(collect(kube.pods.watch({})))).toEqual(failure(401, "Unauthorized", "Unauthorized"));
  expect([strict.seen.length, strict.renewed()]).toEqual([4, 2]);
});

test("a GET whose connection is lost is sent again, at most twice; a POST never", async () => {
  await using server = await scriptedServer(({ method, index }, response) =>
    method === "GET" && index >= 2 ? json(response, 200, podObject("p", "1")) : response.socket?.resetAndDestroy(),
  );
  const { pods } = server.kube();
  expect((await pods.get("p")).metadata?.name).toBe("p");
  expect(server.seen.length).toBe(3);
  expect(await failureOf(pods.create(podObject("p", "")))).toMatchObject({ status: 0, reason: "", unreachable: true });
  expect(server.seen.length).toBe(4);

  await using dead = await scriptedServer((_, response) => response.socket?.resetAndDestroy());
  expect(await failureOf(dead.kube().pods.get("p"))).toMatchObject({ status: 0, unreachable: true });
  expect(dead.seen.length).toBeGreaterThanOrEqual(3);
});

test("a PATCH, and a DELETE of one uid, are sent again when their answer was lost or bad", async () => {
  for (const lose of [
    (response: ServerResponse) => void response.socket?.resetAndDestroy(),
    (response: ServerResponse) => json(response, 500, statusObject(500, "InternalError", "etcd")),
  ]) {
    await using server = await scriptedServer(({ index }, response) =>
      index % 2 === 0 ? lose(response) : json(response, 200, podObject("p", "1")),
    );
    const { pods } = server.kube();
    expect((await pods.patch("p", {})).metadata?.name).toBe("p");
    expect((await pods.delete("p", { uid: "u" }))?.metadata?.name).toBe("p");
    expect(server.seen.map(({ method }) => method)).toEqual(["PATCH", "PATCH", "DELETE", "DELETE"]);
  }
  await using bad = await scriptedServer((_, response) =>
    json(response, 500, statusObject(500, "InternalError", "no")),
  );
  expect(await failureOf(bad.kube().pods.delete("p"))).toMatchObject({ status: 500 });
  expect(bad.seen.length).toBe(1);
});

test("a 429 is obeyed and sent again, whatever the method", async () => {
  await using server = await scriptedServer(({ index }, response) =>
    index === 0
      ? json(response, 429, statusObject(429, "TooManyRequests", "later"))
      : json(response, 201, podObject("p", "1")),
  );
  expect((await server.kube().pods.create(podObject("p", ""))).metadata?.name).toBe("p");
  expect(server.seen.length).toBe(2);
});

test("a server that is not there is told at once, without its address", async () => {
  const server = await scriptedServer(() => undefined);
  await server[Symbol.asyncDispose]();
  const error = await failureOf(server.kube().pods.get("p"));
  expect(error).toEqual(failure(0, "", "the Kubernetes API cannot be reached (ECONNREFUSED)"));
  expect(error instanceof KubeError && error.retryable).toBe(true);
});

test("a request that gets no answer ends by itself, and by its caller's signal with that reason", async () => {
  await using server = await scriptedServer(() => undefined);
  const { pods } = server.kube({ timing: { requestMs: 20 } });
  expect(await failureOf(pods.get("p"))).toEqual(failure(0, "", "no answer within 20 ms"));
  const controller = new AbortController();
  const patient = server.kube().pods.get("p", { signal: controller.signal });
  const reason = new Error("enough");
  controller.abort(reason);
  expect(await failureOf(patient)).toBe(reason);
  expect(await failureOf(collect(pods.watch({ signal: controller.signal })))).toBe(reason);
});

test("after a request without an answer the next one gets a new connection", async () => {
  await using server = await scriptedServer(({ index }, response) =>
    index === 1 ? undefined : json(response, 200, podObject("p", "1")),
  );
  const { pods } = server.kube({ timing: { requestMs: 50 } });
  await Promise.all([pods.get("p"), failureOf(pods.get("p")), pods.get("p")]); // two idle connections, one hung
  const known = new Set(server.seen.map(({ connection }) => connection));
  await pods.get("p");
  expect(known.has(server.seen.at(-1)?.connection ?? 0)).toBe(false);
});

test("every request is reported, with its verb, resource and status", async () => {
  await using server = await scriptedServer(({ method }, response) =>
    method === "GET"
      ? json(response, 404, statusObject(404, "NotFound", "no"))
      : json(response, 200, podObject("p", "1")),
  );
  const reports: unknown[] = [];
  const kube = server.kube({ onRequest: ({ verb, resource, status }) => reports.push([verb, resource, status]) });
  await failureOf(kube.pods.get("p"));
  await kube.pods.create(podObject("p", ""));
  await failureOf(collect(kube.log("p", { container: "c" })));
  await failureOf(collect(kube.pods.watch({})));
  expect(reports).toEqual([
    ["GET", "pods", 404],
    ["POST", "pods", 200],
    ["GET", "pods/log", 404],
    ["WATCH", "pods", 404],
  ]);
});
