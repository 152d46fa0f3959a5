import { beforeAll, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { GONE, tooMany } from "../support/faults/fault.ts";
import { scripted } from "../support/faults/script.ts";
import { refusal, until } from "../support/wait.ts";
import { Happenings } from "./happenings.ts";
import {
  all,
  count,
  labelOf,
  QUICK,
  type Rig,
  sharedCluster,
  THERE,
  told,
  UNAVAILABLE,
  untilTold,
  WARY,
  whileAsked,
} from "./rig.ts";

/* Times without an API server, or with one that does not answer, and how they end: columns READ and REPORT, Ready. */
const cluster = sharedCluster();
const id = randomUUID();
beforeAll(async () => {
  await cluster.make(id);
});

const ALWAYS = Number.POSITIVE_INFINITY;
const EVERYTHING = ["list", "page", "stream", "watch", "get"] as const;

/** Resolves when the cache is live, and what was true when the fault began or ended is told. */
const untilLive = (rig: Rig) => until("the cache is live", () => rig.watcher.live || undefined);

describe("half-open: the watch's connection is dead and nobody says so", () => {
  test("READ: the last state for a while, then a new connection brings the new one; never absence", async () => {
    await using rig = await cluster.rig(undefined, WARY);
    await untilTold(rig, id, THERE);
    await untilLive(rig);
    rig.link.cut("silence");
    const since = performance.now();
    await cluster.label(id, { n: "unseen" });
    const { lies } = await whileAsked(rig, id, () =>
      until("the change is told", async () => (await labelOf(rig, id)) === "unseen" || undefined),
    );
    expect(lies).toEqual([]);
    expect(performance.now() - since).toBeGreaterThan(50); // it was unseen at first
    expect(rig.watcher.stats.failures.get("connection")).toBeGreaterThan(0);
  });

  test("REPORT: what happened meanwhile is told once when the link lives again", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await cluster.rig(undefined, WARY);
    await untilTold(rig, happenings.still, THERE);
    const since = rig.changes.length;
    rig.link.cut("silence");
    await happenings.happen();
    await happenings.expectTold(rig, since);
  });

  test("READ: when nothing answers any more, the last state up to the bound, then UNAVAILABLE, and right after it", async () => {
    await using rig = await cluster.rig(undefined, WARY);
    await untilTold(rig, id, THERE);
    rig.gate.fault = scripted({ on: EVERYTHING, fault: "silence", times: ALWAYS });
    rig.link.cut("silence");
    expect(await told(rig, id)).toEqual(THERE);
    const { lies } = await whileAsked(rig, id, () => until("it is not live", () => !rig.watcher.live || undefined), [
      "Unavailable",
    ]);
    expect(lies).toEqual([]);
    await untilTold(rig, id, UNAVAILABLE);
    expect((await rig.client.ready({})).status).toBe("ok");
    expect(count(rig, "silence")).toBeGreaterThan(0);
    rig.gate.fault = () => undefined;
    await untilTold(rig, id, THERE);
  });

  test("Ready: the watcher is not live after its bound, and is again without a restart", async () => {
    await using rig = await cluster.rig(undefined, WARY);
    await untilLive(rig);
    rig.gate.fault = scripted({ on: EVERYTHING, fault: "silence", times: ALWAYS });
    rig.link.cut("silence");
    await until("it is not live", () => !rig.watcher.live || undefined);
    rig.gate.fault = () => undefined;
    await untilLive(rig);
    expect(rig.watcher.live).toBe(true);
  });
});

describe.each([
  ["500", { status: 500, reason: "InternalError" }, "Internal"],
  ["503", { status: 503, reason: "ServiceUnavailable" }, "Unavailable"],
] as const)("%s to everything", (_, answer, code) => {
  test("READ: from the cache until its bound, then a failure, never absence; right afterwards", async () => {
    await using rig = await cluster.rig(undefined, WARY);
    await untilTold(rig, id, THERE);
    rig.gate.fault = scripted({ on: EVERYTHING, fault: { answer }, times: ALWAYS });
    rig.link.cut();
    expect(await told(rig, id)).toEqual(THERE);
    const { lies } = await whileAsked(rig, id, () => untilTold(rig, id, all(code)), [code]);
    expect(lies).toEqual([]);
    rig.gate.fault = () => undefined;
    await untilTold(rig, id, THERE);
    expect(count(rig, String(answer.status))).toBeGreaterThan(0);
  });

  test("REPORT: retries come with growing, jittered pauses, and tell what was missed once", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await cluster.rig(undefined, {
      ...QUICK,
      watcher: { ...QUICK.watcher, backoff: { minMs: 20, maxMs: 160 } },
    });
    await untilTold(rig, happenings.still, THERE);
    const since = rig.changes.length;
    rig.gate.fault = scripted({ on: "watch", fault: { answer }, times: 6 });
    rig.link.cut();
    await happenings.happen();
    await until("it fired", () => count(rig, String(answer.status)) === 6 || undefined);
    await happenings.expectTold(rig, since);
    const times = rig.gate.fired.map(({ at }) => at);
    const pauses = times.slice(1).map((at, index) => at - (times[index] ?? 0));
    // 40, 80, 160, ...: each shortened by a quarter at most.
    for (const [index, pause] of pauses.entries()) expect(pause).toBeGreaterThan(0.7 * Math.min(160, 40 * 2 ** index));
  });
});

describe("429 with Retry-After", () => {
  test("READ: answers from the cache; the next watch comes not before it, and no list", async () => {
    await using rig = await cluster.rig();
    await untilTold(rig, id, THERE);
    const { lists } = rig.watcher.requests;
    const watched: number[] = [];
    const once = scripted({ on: "watch", fault: { answer: tooMany(3) } });
    rig.gate.fault = (request) => {
      if (request.query.has("watch")) watched.push(performance.now());
      return once(request);
    };
    rig.link.cut();
    const { lies, asked } = await whileAsked(rig, id, () =>
      until("the next watch", () => watched.length > 1 || undefined),
    );
    expect([lies, rig.watcher.requests.lists - lists, count(rig, "429")]).toEqual([[], 0, 1]);
    expect(asked).toBeGreaterThan(1);
    expect((watched[1] ?? 0) - (watched[0] ?? 0)).toBeGreaterThanOrEqual(2_990);
  });

  test("REPORT: so long nothing is told, then what was missed, once", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await cluster.rig();
    await untilTold(rig, happenings.still, THERE);
    const since = rig.changes.length;
    rig.gate.fault = scripted({ on: "watch", fault: { answer: tooMany(1) } });
    rig.link.cut();
    await until("it fired", () => count(rig, "429") === 1 || undefined);
    await happenings.happen();
    expect(rig.changes.length).toBe(since);
    await happenings.expectTold(rig, since);
  });
});

describe("the watch is closed every few ms", () => {
  // Twenty times faster than in production, over a twentieth of a minute.
  const fast = { watcher: { ...QUICK.watcher, backoff: { minMs: 12, maxMs: 150 }, shortWatchMs: 250, lifeMs: 50 } };
  const closing = scripted({ on: "watch", fault: { body: { cut: "end", afterMs: 10 } }, times: ALWAYS });

  test("READ: right all the time, with at most 40 watches and no list", async () => {
    await using rig = await cluster.rig(undefined, fast);
    await untilTold(rig, id, THERE);
    const before = rig.watcher.requests;
    rig.gate.fault = closing;
    rig.link.cut();
    const since = performance.now();
    let n = 0;
    const { lies } = await whileAsked(rig, id, async () => {
      while (performance.now() - since < 3_000) {
        await cluster.label(id, { n: `${++n}` });
        await until("the change is told", async () => (await labelOf(rig, id)) === `${n}` || undefined);
      }
    });
    expect(lies).toEqual([]);
    expect(n).toBeGreaterThan(5);
    const { lists, watches } = rig.watcher.requests;
    expect(lists - before.lists).toBe(0);
    expect(watches - before.watches).toBeLessThanOrEqual(40);
    expect(count(rig, "cut end")).toBeGreaterThan(5);
  });

  test("REPORT: at most one report for each change", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await cluster.rig(undefined, fast);
    await untilTold(rig, happenings.still, THERE);
    const since = rig.changes.length;
    rig.gate.fault = closing;
    rig.link.cut();
    await happenings.happen();
    await until("it fired", () => count(rig, "cut end") > 2 || undefined);
    await happenings.expectTold(rig, since);
  });
});

describe("the API server is down", () => {
  test("READ: from the cache, then UNAVAILABLE, never absence; right again at once", async () => {
    await using rig = await cluster.rig(undefined, WARY);
    await untilTold(rig, id, THERE);
    rig.link.down();
    const { lies } = await whileAsked(rig, id, () => untilTold(rig, id, UNAVAILABLE), ["Unavailable"]);
    expect(lies).toEqual([]);
    expect((await refusal(rig.client.inspectWorkload({ workloadId: randomUUID() }))).code).toBe("Unavailable");
    rig.link.up();
    await untilTold(rig, id, THERE, 5_000);
  });

  test("Ready: live flips, and is back within 5 s; REPORT: what was missed is told once", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await cluster.rig(undefined, WARY);
    await untilTold(rig, happenings.still, THERE);
    const since = rig.changes.length;
    rig.link.down();
    await happenings.happen();
    await until("it is not live", () => !rig.watcher.live || undefined);
    rig.link.up();
    await until("it is live", () => rig.watcher.live || undefined, 5_000);
    await happenings.expectTold(rig, since);
  });

  // The proxy's 410 stands in where etcd cannot be compacted from here; tests/long has the real one.
  test("etcd compacted meanwhile: READ and REPORT: 410, a new list finds what was deleted, each delete is told once", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await cluster.rig(undefined, QUICK);
    await untilTold(rig, happenings.still, THERE);
    const since = rig.changes.length;
    rig.link.down();
    await happenings.happen();
    const { compact } = cluster.backend();
    if (compact === undefined) rig.gate.fault = scripted({ on: "watch", fault: { answer: GONE } });
    else compact();
    rig.link.up();
    const { lies } = await whileAsked(rig, happenings.still, () => happenings.expectTold(rig, since));
    expect(lies).toEqual([]);
    expect(rig.watcher.stats.failures.get("gone")).toBe(1);
  });
});
