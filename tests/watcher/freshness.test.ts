import { expect, test } from "bun:test";
import { PodApi } from "./pods.ts";
import { ids, startLate, startWatcher, until, version } from "./running.ts";

/* Our own writes: seen by every read at once, however late the watch is. */

test("our own writes are seen at once: from the watch, or asked for once", async () => {
  await using running = await startLate(10);
  const { api, before } = running;
  // The watch is late: every read proves what it tells.
  const put = api.put("a", { labels: { n: "a" }, claims: ["c"] });
  running.watcher.wrote(put);
  expect(version(await running.watcher.pod("a"))).toBe(version(put));
  expect(ids(await running.watcher.pods())).toEqual(["a"]);
  expect(ids(await running.watcher.withLabels({ n: "a" }))).toEqual(["a"]);
  expect(ids(await running.watcher.withClaim("c"))).toEqual(["a"]);
  expect([api.count("get"), api.count("list")]).toEqual([1, 4]);
  // Then the watch tells, and nothing is asked any more.
  api.tellAll(before);
  await running.seen("a", (pod) => version(pod) === version(put));
  await Promise.all([running.watcher.pod("a"), running.watcher.pods(), running.watcher.withLabels({ n: "a" })]);
  expect([api.count("get"), api.count("list")]).toEqual([1, 4]);
  expect(Object.fromEntries(running.watcher.stats.freshnessWaits)).toMatchObject({ told: 0, left: 0 });
  expect(running.watcher.stats.freshnessWaits.total).toBe(4);
});

test("a read waits a moment for the watch before it asks", async () => {
  await using running = await startLate(60_000);
  const { api, before } = running;
  running.watcher.wrote(api.put("a"));
  const reads = Promise.all([running.watcher.pod("a"), running.watcher.pods()]);
  api.tellAll(before);
  const [pod, pods] = await reads;
  expect([ids(pod === undefined ? [] : [pod]), ids(pods)]).toEqual([["a"], ["a"]]);
  expect([api.count("get"), api.count("list")]).toEqual([0, 1]);
});

/** So long that nobody takes it for the time of a request. */
const LONG_MS = 1_000;

test("a watch that is known to be late is not waited for, until it brings a write in time again", async () => {
  await using running = await startLate(LONG_MS);
  const { api, before } = running;
  running.watcher.wrote(api.put("a"));
  await running.watcher.pod("a"); // waits in vain, then asks
  const waits = async (id: string) => {
    const since = performance.now();
    expect(await running.watcher.pod(id)).toBeDefined();
    return performance.now() - since;
  };
  running.watcher.wrote(api.put("b"));
  const late = await Promise.all(Array.from({ length: 20 }, () => waits("b")));
  expect(Math.min(...late)).toBeLessThan(LONG_MS);
  api.tellAll(before);
  await running.seen("b", (pod) => pod !== undefined);
  running.watcher.wrote(api.put("c", { uid: "c" }));
  await running.seen("c", (pod) => pod !== undefined);
  const asked = api.count("get");
  running.watcher.wrote(api.put("c", { uid: "c", phase: "Failed" }));
  expect((await running.watcher.pod("c"))?.status?.phase).toBe("Failed");
  expect(api.count("get")).toBe(asked);
});

test("our write is not taken for seen because another Pod's later event came before it", async () => {
  await using running = await startLate(10);
  const { api, before } = running;
  const ours = api.put("a");
  const later = api.put("b");
  api.send({ type: "ADDED", object: later });
  await running.seen("b", (pod) => pod !== undefined);
  running.watcher.wrote(ours);
  expect(ids(await running.watcher.pods())).toEqual(["a", "b"]); // asked
  expect(api.count("list")).toBe(2);
  api.tellAll(before);
  await running.seen("a", (pod) => pod !== undefined);
  expect(ids(await running.watcher.pods())).toEqual(["a", "b"]);
  expect(api.count("list")).toBe(2);
});

test("a bookmark tells of all Pods: what it has reached is waited for no more", async () => {
  await using running = await startLate(10);
  const { api } = running;
  running.watcher.wrote(api.put("a", { managed: false })); // not selected: no event will ever come
  await running.watcher.pods();
  expect(api.count("list")).toBe(2);
  api.bookmark();
  await until(() => running.watcher.peek("a") === undefined && running.watcher.live);
  await running.watcher.until("a", () => true, new AbortController().signal);
  expect(ids(await running.watcher.pods())).toEqual([]);
  expect(api.count("list")).toBe(2);
});

test("what an answer told is never taken back while the watch is late", async () => {
  const api = new PodApi();
  api.put("a");
  api.put("b");
  await using running = await startWatcher({ api, tuning: { freshWaitMs: 10 } });
  await running.seen("b", (pod) => pod !== undefined);
  await running.watching();
  api.telling = false;
  const patched = api.put("a", { phase: "Failed" });
  running.watcher.wrote(patched);
  api.remove("a");
  api.remove("b");
  expect(await running.watcher.pod("a")).toBeUndefined();
  expect(ids(await running.watcher.pods())).toEqual([]);
  api.send({ type: "MODIFIED", object: patched }); // the cache catches up with our write, and no further
  await Promise.resolve();
  expect(await running.watcher.pod("a")).toBeUndefined();
  expect(await running.watcher.pod("b")).toBeUndefined();
  expect(ids(await running.watcher.withLabels({}))).toEqual([]);
  // Made again, it is another Pod.
  api.telling = true;
  api.put("a", { uid: "again" });
  await running.seen("a", (pod) => pod?.metadata?.uid === "again");
  expect(ids(await running.watcher.pods())).toContain("a");
});
