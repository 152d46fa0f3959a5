import { expect, test } from "bun:test";
import { KubeError } from "../../src/kube/error.ts";
import type { Pod } from "../../src/kube/types.ts";
import { Backoff } from "../../src/time.ts";
import { Reflector } from "../../src/watcher/reflector.ts";
import { json, statusObject } from "../kube/server.ts";
import { PodApi, verbOf } from "./pods.ts";
import { until } from "./running.ts";

/** Runs a reflector until `rounds` delays have been asked for; returns them, with the resets in between. */
async function delaysOf(
  api: PodApi,
  rounds: number,
  { lifeMs = 60_000, unprovenMs = () => 0 }: { lifeMs?: number; unprovenMs?: () => number } = {},
) {
  await using server = await api.start();
  const stopping = new AbortController();
  const waits: (number | "reset")[] = [];
  const failures: unknown[] = [];
  const nothing = () => undefined;
  const reflector = new Reflector({
    kube: server.kube(),
    relistAfterMs: 1000,
    unprovenMs,
    timing: { lifeMs },
    backoff: {
      wait: async (_, atLeastMs = 0) => {
        waits.push(atLeastMs);
        if (waits.filter((wait) => wait !== "reset").length >= rounds) stopping.abort(new Error("enough"));
      },
      reset: () => void waits.push("reset"),
    },
    sink: {
      beforeList: nothing,
      listed: nothing,
      event: nothing,
      reached: nothing,
      proven: nothing,
      failed: (error) => failures.push(error),
    },
  });
  await reflector.run(stopping.signal);
  return { waits, failures, lists: api.count("list"), watches: api.count("watch") };
}

/** Every watch tells one event and is closed. */
const closingWatches = (): PodApi => {
  const api = new PodApi();
  api.put("a");
  api.intercept = (seen, response) => {
    if (verbOf(seen) !== "watch") return false;
    response.end(`${JSON.stringify({ type: "MODIFIED", object: { ...api.put("a"), kind: "Pod" } })}\n`);
    return true;
  };
  return api;
};

test("watches that end early are failures even when they told something: each waits, none lists", async () => {
  const { waits, failures, lists, watches } = await delaysOf(closingWatches(), 5);
  expect([waits.length, failures.length, lists, watches]).toEqual([5, 5, 1, 5]);
});

test("an event some time after the start of its watch is a sign of life", async () => {
  const { waits } = await delaysOf(closingWatches(), 2, { lifeMs: 0 });
  expect(waits).toEqual(["reset", 0, "reset", 0]);
});

test("when nothing is proven for long, watching on is given up for a list", async () => {
  const { lists, watches } = await delaysOf(closingWatches(), 4, { unprovenMs: () => 1000 });
  expect([lists, watches]).toEqual([4, 4]);
});

test("a Retry-After is waited for before the next list, and before the next watch, which stays a watch", async () => {
  const api = new PodApi();
  let lists = 0;
  api.intercept = (seen, response) => {
    if (verbOf(seen) === "list" && lists++ > 0) return false;
    json(response, 429, statusObject(429, "TooManyRequests", "later", { retryAfterSeconds: 30 }));
    return true;
  };
  const { waits, failures } = await delaysOf(api, 4);
  expect(waits).toEqual([30_000, 30_000, 30_000, 30_000]);
  expect(failures.every((error) => error instanceof KubeError && error.status === 429)).toBe(true);
  expect([api.count("stream"), api.count("list"), api.count("watch")]).toEqual([1, 2, 2]);
});

test("an event that comes late makes the next round a list: it may not be the only one", async () => {
  const api = new PodApi();
  api.intercept = (seen, response) => {
    if (verbOf(seen) !== "watch") return false;
    const early = { ...api.put("a"), kind: "Pod" };
    const late = { ...api.put("b"), kind: "Pod" };
    for (const object of [late, early]) response.write(`${JSON.stringify({ type: "ADDED", object })}\n`);
    response.end();
    return true;
  };
  const { lists, watches } = await delaysOf(api, 3);
  expect([lists, watches]).toEqual([3, 3]);
});

test("a watch is asked for 25 to 30 s, from the version of the list", async () => {
  const api = new PodApi();
  api.put("a");
  const queries: string[] = [];
  api.intercept = (seen, response) => {
    if (verbOf(seen) !== "watch") return false;
    queries.push(
      `${seen.query.get("resourceVersion")} ${seen.query.get("timeoutSeconds")} ${seen.query.get("labelSelector")}`,
    );
    response.end();
    return true;
  };
  await delaysOf(api, 20);
  for (const query of queries) expect(query).toMatch(/^101 (2[5-9]|30) app\.kubernetes\.io\/managed-by=k8s-runner$/);
});

test("where the server offers it, the list is the beginning of a watch", async () => {
  const api = new PodApi();
  api.streaming = true;
  for (const id of ["a", "b"]) api.put(id);
  const { told, run } = recorder(api);
  await run(async () => {
    await until(() => told.length === 1);
    api.put("c");
    await until(() => told.length === 2);
  });
  expect(told).toEqual(["listed workload-a,workload-b@102", "applied workload-c@103"]);
  expect([api.count("stream"), api.count("list"), api.count("watch")]).toEqual([1, 0, 0]);
});

test("what happens while the list is streamed is in it", async () => {
  const api = new PodApi();
  api.intercept = (seen, response) => {
    if (verbOf(seen) !== "stream") return false;
    const [a, b] = [api.put("a"), api.put("b")];
    const changed = { ...api.put("a", { phase: "Failed" }), kind: "Pod" };
    const end = { resourceVersion: "104", annotations: { "k8s.io/initial-events-end": "true" } };
    for (const event of [
      { type: "ADDED", object: a },
      { type: "ADDED", object: b },
      { type: "BOOKMARK", object: { metadata: { resourceVersion: "102" } } },
      { type: "MODIFIED", object: changed },
      { type: "DELETED", object: { ...b, metadata: { ...b.metadata, resourceVersion: "104" } } },
      { type: "BOOKMARK", object: { metadata: end } },
    ])
      response.write(`${JSON.stringify(event)}\n`);
    return true;
  };
  const { told, run } = recorder(api);
  await run(() => until(() => told.length === 1));
  expect(told).toEqual(["listed workload-a@104"]);
});

test("a streamed list that is cut is told in no part; pages come in its place, and the next list is streamed again", async () => {
  const api = new PodApi();
  api.streaming = true;
  for (const id of ["a", "b"]) api.put(id);
  let streams = 0;
  api.intercept = (seen, response) => {
    if (verbOf(seen) === "watch") {
      json(response, 410, statusObject(410, "Expired", "too old"));
      return true;
    }
    if (verbOf(seen) !== "stream" || streams++ > 0) return false;
    response.end(`${JSON.stringify({ type: "ADDED", object: api.pods.get("workload-a") })}\n`);
    return true;
  };
  const { told, run } = recorder(api);
  await run(() => until(() => told.length === 2));
  expect(told).toEqual(["listed workload-a,workload-b@102", "listed workload-a,workload-b@102"]);
  expect([api.count("stream"), api.count("list"), api.count("watch")]).toEqual([2, 1, 1]);
});

test("a server that refuses to stream a list is not asked again, and nobody waits for it", async () => {
  const api = new PodApi();
  api.intercept = (seen, response) => {
    if (verbOf(seen) === "watch") json(response, 410, statusObject(410, "Expired", "too old"));
    return verbOf(seen) === "watch";
  };
  const { waits, failures, lists } = await delaysOf(api, 3);
  expect([waits.length, failures.length, lists, api.count("stream")]).toEqual([3, 3, 3, 1]);
});

test("a watch that told nothing proves something only if the cluster has not gone back: a restored etcd is listed", async () => {
  const api = new PodApi();
  api.version = 1000;
  const { told, run } = recorder(api);
  await run(async () => {
    for (const [index, restored] of [false, true].entries()) {
      await until(() => api.count("watch") === index + 1 && api.watches.size === 1);
      if (restored) api.version = 500;
      api.endWatches();
      await until(() => api.watches.size === 0 || api.count("watch") > index + 1);
    }
    await until(() => told.length === 2);
  });
  expect(told).toEqual(["listed @1000", "listed @500"]);
  expect(api.count("list")).toBe(4); // two questions for the version among them
});

test("a watch that trickles on beyond its time is given up", async () => {
  const api = new PodApi();
  await using server = await api.start();
  api.intercept = (seen, response) => {
    if (verbOf(seen) !== "watch") return false;
    response.writeHead(200, { "transfer-encoding": "chunked" });
    const timer = setInterval(() => response.write(" "), 5);
    response.once("close", () => clearInterval(timer));
    return true;
  };
  const watch = server.kube().pods.watch({ resourceVersion: "1", totalMs: 40 });
  const failure = await watch.next().catch((error: unknown) => error);
  expect(failure).toMatchObject({ status: 0, message: "not ended after 40 ms" });
});

/** Runs a reflector while `work` lasts; `told` has what it told. */
function recorder(api: PodApi) {
  const told: string[] = [];
  const nothing = () => undefined;
  const of = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata?.name).join();
  const run = async (work: () => Promise<void>) => {
    await using server = await api.start();
    const stopping = new AbortController();
    const reflector = new Reflector({
      kube: server.kube(),
      relistAfterMs: Number.POSITIVE_INFINITY,
      unprovenMs: () => 0,
      timing: { shortWatchMs: 0 },
      backoff: new Backoff({ minMs: 1, maxMs: 1 }),
      sink: {
        beforeList: nothing,
        listed: (pods, version) => void told.push(`listed ${of(pods)}@${version}`),
        event: (type, pod) => void told.push(`${type} ${of([pod])}@${pod.metadata?.resourceVersion}`),
        reached: nothing,
        proven: nothing,
        failed: nothing,
      },
    });
    const running = reflector.run(stopping.signal);
    await work().finally(() => stopping.abort(new Error("the test is over")));
    await running;
  };
  return { told, run };
}
