import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { refusal } from "../support/wait.ts";
import { sharedCluster, THERE, told } from "./rig.ts";

const cluster = sharedCluster();

/** How many a second, and how many at once after quiet: docs/watcher.md. */
const RATE = 100;
/** How long one waits for its turn, in seconds. */
const TURN = 2;

test("a caller that asks for what is not there again and again does not flood the API server", async () => {
  await using rig = await cluster.rig();
  const id = await cluster.make();
  const gets = () => rig.gate.requests.filter((each) => each.includes("/pods/workload-")).length;
  const startedAt = performance.now();
  const misses = Array.from({ length: 1_000 }, () => refusal(rig.client.inspectWorkload({ workloadId: randomUUID() })));
  // Others are answered meanwhile, from the cache.
  expect(await told(rig, id)).toEqual(THERE);
  const answers = await Promise.all(misses);
  const seconds = (performance.now() - startedAt) / 1_000;

  const by = (code: string) => answers.filter((each) => each.code === code).length;
  expect(by("NotFound")).toBe(gets()); // each told from a proof
  expect(by("NotFound") + by("Unavailable")).toBe(1_000);
  expect(by("NotFound")).toBeGreaterThanOrEqual(RATE);
  // All that came while calls were taken in, however slowly that went, and one turn's wait after it.
  expect(by("NotFound")).toBeLessThanOrEqual(RATE + RATE * Math.max(seconds, TURN) + 1);
  expect(by("Unavailable")).toBeGreaterThan(0);
});

test("who asks for the same absent workload at once shares the API server's answers", async () => {
  await using rig = await cluster.rig();
  await cluster.make();
  await told(rig, randomUUID()); // synced
  const before = rig.gate.requests.length;
  const workloadId = randomUUID();
  const answers = await Promise.all(
    Array.from({ length: 50 }, () => refusal(rig.client.inspectWorkload({ workloadId }))),
  );
  expect(new Set(answers.map(({ code }) => code))).toEqual(new Set(["NotFound"]));
  expect(rig.gate.requests.slice(before).filter((each) => each.includes("/pods/workload-")).length).toBeLessThan(50);
});
