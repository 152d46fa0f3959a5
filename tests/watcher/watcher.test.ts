import { expect, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import type { CachedPod } from "../../src/watcher.ts";
import { failureOf, json, statusObject } from "../kube/server.ts";
import { PodApi, verbOf } from "./pods.ts";
import { ids, startWatcher, until, version } from "./running.ts";

const isUnreachable = (error: unknown) =>
  error instanceof ConnectError && error.code === Code.Unavailable && error.rawMessage === "cluster_unreachable";

test("the cache fills from all pages and follows the watch", async () => {
  const api = new PodApi();
  api.pageSize = 2;
  for (const id of ["e", "d", "c", "b", "a"]) api.put(id, { labels: { n: id }, claims: [`claim-${id}`] });
  api.put("foreign", { managed: false });
  await using running = await startWatcher({ api });
  expect(ids(await running.watcher.pods())).toEqual(["a", "b", "c", "d", "e"]);
  expect(ids(await running.watcher.withLabels({ n: "c" }))).toEqual(["c"]);
  expect(ids(await running.watcher.withClaim("claim-d"))).toEqual(["d"]);
  expect(running.watcher.live).toBe(true);
  const put = api.put("c", { phase: "Failed" });
  await running.seen("c", (pod) => pod?.status?.phase === "Failed");
  expect(version(await running.watcher.pod("c"))).toBe(version(put));
  api.remove("c");
  await running.seen("c", (pod) => pod === undefined);
  expect(ids(await running.watcher.pods())).toEqual(["a", "b", "d", "e"]);
  expect([api.count("list"), api.count("watch"), api.count("get")]).toEqual([3, 1, 0]);
  expect(running.lines.filter(({ msg }) => msg === "cache synced")).toMatchObject([{ pods: 5 }]);
});

test("reads wait for the first sync, and are UNAVAILABLE when it does not come", async () => {
  const api = new PodApi();
  api.put("a");
  const held: (() => void)[] = [];
  api.intercept = (seen, response) => {
    if (verbOf(seen) !== "list" || held.length > 0) return false;
    held.push(() => json(response, 500, statusObject(500, "InternalError", "not yet")));
    return true;
  };
  await using running = await startWatcher({ api, tuning: { syncWaitMs: 20 } });
  for (const read of [
    () => running.watcher.pod("a"),
    () => running.watcher.pods(),
    () => running.watcher.withClaim("c"),
  ])
    expect(isUnreachable(await failureOf(read()))).toBe(true);
  expect([running.watcher.live, api.count("get")]).toEqual([false, 0]);
  held[0]?.();
  await running.seen("a", (pod) => pod !== undefined);
  expect(ids(await running.watcher.pods())).toEqual(["a"]);
});

test("a list that expires between two pages is begun anew, never shown in part", async () => {
  const api = new PodApi();
  api.pageSize = 2;
  for (const id of ["a", "b", "c"]) api.put(id);
  let expired = 0;
  api.intercept = (seen, response) => {
    if (!seen.query.has("continue") || expired++ > 0) return false;
    json(response, 410, statusObject(410, "Expired", "The provided continue parameter is too old"));
    return true;
  };
  await using running = await startWatcher({ api });
  expect(ids(await running.watcher.pods())).toEqual(["a", "b", "c"]);
  expect([expired, api.count("list")]).toEqual([2, 4]);
});

test("a watch that ends, is reset or sends half a line goes on where it was, without a list", async () => {
  const api = new PodApi();
  api.put("a");
  await using running = await startWatcher({ api });
  await running.seen("a", (pod) => pod !== undefined);
  for (const [index, ending] of (["end", "reset", "half"] as const).entries()) {
    const put = api.put("a", { phase: `before ${ending}` });
    await running.seen("a", (pod) => version(pod) === version(put));
    if (ending === "half") api.send('{"type":"MODIFIED","object":{"kind":"Po');
    api.telling = false; // what happens meanwhile is told by the next watch
    api.endWatches(ending === "reset" ? "reset" : "end");
    const missed = api.put("a", { phase: `after ${ending}` });
    api.put(`new-${index}`);
    await running.seen("a", (pod) => version(pod) === version(missed));
    await running.seen(`new-${index}`, (pod) => pod !== undefined);
    api.telling = true;
  }
  expect(api.count("list")).toBe(1);
});

for (const where of ["answer", "stream"] as const)
  test(`an expired version in the ${where} leads to a list, which finds what was deleted and made again`, async () => {
    const api = new PodApi();
    for (const id of ["a", "b", "c"]) api.put(id, { uid: `old-${id}` });
    await using running = await startWatcher({ api });
    await running.seen("c", (pod) => pod !== undefined);
    const changes: string[] = [];
    running.watcher.subscribe(({ type, pod }) => changes.push(`${type} ${pod.metadata?.uid}`));
    api.telling = false;
    api.remove("a");
    api.remove("b");
    api.put("b", { uid: "new-b" });
    api.history.length = 0; // compacted
    let expired = 0;
    api.intercept = (seen, response) => {
      if (verbOf(seen) !== "watch" || expired++ > 0) return false;
      const status = statusObject(410, "Expired", "too old resource version");
      if (where === "answer") json(response, 410, status);
      else response.end(`${JSON.stringify({ type: "ERROR", object: status })}\n`);
      return true;
    };
    api.endWatches();
    await running.seen("b", (pod) => pod?.metadata?.uid === "new-b");
    expect(ids(await running.watcher.pods())).toEqual(["b", "c"]);
    expect(changes).toEqual(["deleted old-a", "deleted old-b", "applied new-b"]);
    expect(running.watcher.stats.failures.get("gone")).toBe(1);
  });

test("a miss asks the API once, and only its NotFound is absence", async () => {
  const api = new PodApi();
  await using running = await startWatcher({ api });
  await running.watcher.pods();
  await running.watching();
  expect(await running.watcher.pod("a")).toBeUndefined();
  expect(api.count("get")).toBe(1);
  api.telling = false;
  api.put("foreign", { managed: false });
  expect(await running.watcher.pod("foreign")).toBeUndefined();
  const put = api.put("b");
  expect(version(await running.watcher.pod("b"))).toBe(version(put));
  api.intercept = (seen, response) => {
    if (verbOf(seen) !== "get") return false;
    json(response, 503, statusObject(503, "ServiceUnavailable", "not now", { retryAfterSeconds: 60 }));
    return true;
  };
  expect(await failureOf(running.watcher.pod("c"))).toMatchObject({ name: "KubeError", status: 503 });
});

test("many who miss the same Pod at once cost two requests at most", async () => {
  const api = new PodApi();
  await using running = await startWatcher({ api });
  await running.watcher.pods();
  const answers = await Promise.all(Array.from({ length: 50 }, () => running.watcher.pod("a")));
  expect(answers.every((pod) => pod === undefined)).toBe(true);
  expect(api.count("get")).toBeLessThanOrEqual(2);
});

test("a cache that nothing proves any more does not answer: the API does, or nobody", async () => {
  const api = new PodApi();
  api.put("a");
  await using running = await startWatcher({
    api,
    tuning: { staleMs: 30, relistAfterMs: 60_000 },
    timing: { requestMs: 50 },
  });
  await running.watcher.pods();
  await running.watching();
  api.telling = false;
  api.remove("a");
  await until(() => !running.watcher.live);
  expect(await running.watcher.pod("a")).toBeUndefined();
  expect(ids(await running.watcher.pods())).toEqual([]);
  api.intercept = () => true; // silence
  expect(await failureOf(running.watcher.pod("a"))).toMatchObject({ status: 0 });
  expect(await failureOf(running.watcher.pods())).toMatchObject({ status: 0 });
});

test("a dead watch is found by its silence, and a list over a new connection replaces it", async () => {
  const api = new PodApi();
  api.put("a");
  const tuning = { relistAfterMs: 20 };
  await using running = await startWatcher({ api, tuning, timing: { watchIdleMs: 30 } });
  await running.seen("a", (pod) => pod !== undefined);
  await running.watching();
  api.telling = false;
  const missed = api.put("a", { phase: "Failed" });
  await running.seen("a", (pod) => version(pod) === version(missed));
  expect(api.count("list")).toBeGreaterThan(1);
  expect(running.watcher.stats.failures.get("connection")).toBeGreaterThan(0);
});

test("nonsense in a watch is an error of that watch alone", async () => {
  const api = new PodApi();
  await using running = await startWatcher({ api });
  await running.watcher.pods();
  const odd = [
    "no json\n",
    { type: "ADDED", object: { kind: "Pod", metadata: { resourceVersion: "5" } } },
    { type: "ADDED", object: { kind: "Pod", metadata: { name: "workload-x", uid: "u", resourceVersion: "new" } } },
    { type: "BOOKMARK", object: { kind: "Pod", metadata: {} } },
    { type: "ERROR", object: statusObject(500, "InternalError", "etcd") },
  ];
  for (const [index, event] of odd.entries()) {
    await until(() => api.watches.size === 1);
    api.send(event);
    await until(() => running.watcher.requests.watches === index + 2);
    api.put(`a-${index}`);
    await running.seen(`a-${index}`, (pod) => pod !== undefined);
  }
});

test("a listener that throws disturbs nobody, and one that left hears nothing", async () => {
  const api = new PodApi();
  await using running = await startWatcher({ api });
  await running.watcher.pods();
  const heard: string[] = [];
  const leave = running.watcher.subscribe(() => {
    throw new Error("mine");
  });
  const listener = ({ type, pod }: { type: string; pod: CachedPod }) => heard.push(`${type} ${version(pod)}`);
  const first = running.watcher.subscribe(listener);
  running.watcher.subscribe(listener);
  const one = api.put("a");
  await running.seen("a", (pod) => pod !== undefined);
  leave();
  first();
  api.remove("a");
  await running.seen("a", (pod) => pod === undefined);
  expect(heard).toEqual([`applied ${version(one)}`, `applied ${version(one)}`, `deleted ${version(one)}`]);
  expect(running.lines.filter(({ msg }) => msg === "a listener of Pod changes failed").length).toBe(1);
});

test("until tells of absence only what is proven, and hands on what pick throws", async () => {
  const api = new PodApi();
  await using running = await startWatcher({ api });
  await running.watcher.pods();
  await running.watching();
  const { signal } = new AbortController();
  api.telling = false;
  const before = api.version;
  running.watcher.wrote(api.put("a"));
  const phases: unknown[] = [];
  const found = running.watcher.until(
    "a",
    (pod) => {
      phases.push(pod?.status?.phase);
      return pod?.metadata?.uid;
    },
    signal,
  );
  api.tellAll(before);
  expect(await found).toBe("uid-a");
  expect(phases).toEqual(["Running"]); // never undefined: our own write was known
  const reason = new Error("mine");
  const throws = () => {
    throw reason;
  };
  expect(await failureOf(running.watcher.until("a", throws, signal))).toBe(reason);
  const controller = new AbortController();
  const waiting = running.watcher.until("a", () => undefined, controller.signal);
  controller.abort(reason);
  expect(await failureOf(waiting)).toBe(reason);
  expect(await failureOf(running.watcher.until("a", () => true, controller.signal))).toBe(reason);
});

test("after a restored etcd, with lower versions, reads come from the cache again", async () => {
  const api = new PodApi();
  api.version = 1000;
  const put = api.put("a");
  await using running = await startWatcher({ api, tuning: { freshWaitMs: 10 } });
  await running.seen("a", (pod) => pod !== undefined);
  await running.watching();
  running.watcher.wrote({ ...put, metadata: { ...put.metadata, resourceVersion: "2000" } }); // a write that the restore undid
  api.version = 500;
  const restored = api.put("a", { phase: "Pending" });
  api.history.length = 0;
  api.send({ type: "ERROR", object: statusObject(410, "Expired", "too old") });
  await running.seen("a", (pod) => version(pod) === version(restored));
  const asked = api.count("get") + api.count("list");
  expect(version(await running.watcher.pod("a"))).toBe(version(restored));
  expect(ids(await running.watcher.pods())).toEqual(["a"]);
  expect(api.count("get") + api.count("list")).toBe(asked);
});
