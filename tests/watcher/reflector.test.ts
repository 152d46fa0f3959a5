import { expect, test } from "bun:test";
import { KubeError } from "../../src/kube/error.ts";
import { Reflector } from "../../src/watcher/reflector.ts";
import { json, statusObject } from "../kube/server.ts";
import { PodApi, verbOf } from "./pods.ts";

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
    lifeMs,
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
      applied: nothing,
      deleted: nothing,
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
  const { waits, failures } = await delaysOf(api, 3);
  expect(waits).toEqual([30_000, 30_000, 30_000]);
  expect(failures.every((error) => error instanceof KubeError && error.status === 429)).toBe(true);
  expect([api.count("list"), api.count("watch")]).toEqual([2, 2]);
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
