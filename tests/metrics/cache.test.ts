import { describe, expect, test } from "bun:test";
import { ABSENT, QUICK, type Rig, sharedCluster, THERE, told, untilTold, WARY } from "../faults/rig.ts";
import { type Fault, GONE, NO_STREAM, tooMany } from "../support/faults/fault.ts";
import { scripted } from "../support/faults/script.ts";
import { freshId } from "../support/runner.ts";
import { refusal, until } from "../support/wait.ts";
import { moved, type Scrape, scrape } from "./scrape.ts";

/* What the cache and the requests to the Kubernetes API tell about themselves, also while these go wrong. */
const cluster = sharedCluster();

const untilScraped = (rig: Rig, what: string, holds: (page: Scrape) => boolean): Promise<Scrape> =>
  until(what, async () => {
    const page = await scrape(rig);
    return holds(page) ? page : undefined;
  });

test("the cache tells its size, that it is live, and when a Pod last changed", async () => {
  const id = await cluster.make();
  await using rig = await cluster.rig();
  await untilTold(rig, id, THERE);
  const size = async () => (await scrape(rig)).sum("cache_pods");
  const before = await scrape(rig);
  expect(before.sum("cache_pods")).toBe(rig.watcher.size);
  expect(before.sum("cache_live")).toBe(1);
  expect(before.sum("cache_unproven_seconds")).toBeWithin(0, 45);
  const at = Date.now() / 1000;
  expect(before.sum("cache_last_event_timestamp_seconds")).toBeLessThanOrEqual(at);
  const other = await cluster.make();
  await untilTold(rig, other, THERE);
  const after = await scrape(rig);
  expect(after.sum("cache_pods")).toBe(before.sum("cache_pods") + 1);
  expect(after.sum("cache_last_event_timestamp_seconds")).toBeWithin(at - 0.01, Date.now() / 1000 + 0.01);
  await cluster.remove(other);
  await untilTold(rig, other, ABSENT);
  expect(await size()).toBe(before.sum("cache_pods"));
});

test("before the first list the cache is not live, and nothing was ever proven; it tells when that is over", async () => {
  await using rig = await cluster.rig((gate) => {
    gate.fault = scripted({ on: ["stream", "list"], fault: "reset before", times: Number.POSITIVE_INFINITY });
  });
  const before = await scrape(rig);
  expect(before.sum("cache_live")).toBe(0);
  expect(before.sum("cache_unproven_seconds")).toBe(Number.POSITIVE_INFINITY);
  expect(before.of("cache_last_event_timestamp_seconds")).toEqual([]);
  const failing = await untilScraped(
    rig,
    "failures are counted",
    (page) => page.sum("cache_watch_failures_total", { cause: "connection" }) > 1,
  );
  expect(failing.sum("kube_requests_total", { code: "none" })).toBeGreaterThan(1);
  rig.gate.fault = () => undefined;
  await untilScraped(rig, "it is live", (page) => page.sum("cache_live") === 1);
});

test("the cache is no longer live when nothing is heard of the cluster, and is again afterwards", async () => {
  await using rig = await cluster.rig(undefined, WARY);
  await untilScraped(rig, "it is live", (page) => page.sum("cache_live") === 1);
  rig.gate.fault = () => "silence";
  rig.link.cut("silence");
  const page = await untilScraped(rig, "it is not live", (page) => page.sum("cache_live") === 0);
  expect(page.sum("cache_unproven_seconds")).toBeGreaterThan(WARY.watcher.staleMs / 1000);
  rig.gate.fault = () => undefined;
  await untilScraped(rig, "it is live again", (page) => page.sum("cache_live") === 1);
});

/** All that was started through it. */
async function remove({ client, ledger }: Rig): Promise<void> {
  for (const workloadId of ledger.workloads) await client.removeWorkload({ workloadId, force: true });
  ledger.workloads.clear();
}

const CAUSES: [cause: string, fault: Fault][] = [
  ["connection", { body: { cut: "reset", afterMs: 0 } }],
  ["connection", "reset before"],
  ["gone", { answer: GONE }],
  ["gone", { body: { event: GONE } }],
  ["short", { body: { cut: "end", afterMs: 0 } }],
  ["429", { answer: tooMany(0) }],
  ["500", "error before"],
  ["503", { answer: { status: 503, reason: "ServiceUnavailable" } }],
  ["4xx", { answer: { status: 418, reason: "Teapot" } }],
];

test.each(CAUSES)("a watch that fails is counted by its cause: %s", async (cause, fault) => {
  const id = await cluster.make();
  const tuning = { watcher: { ...QUICK.watcher, shortWatchMs: 60_000 } };
  await using rig = await cluster.rig(undefined, tuning);
  await untilTold(rig, id, THERE);
  const figures = await moved(
    rig,
    {
      failures: ["cache_watch_failures_total", { cause }],
      others: ["cache_watch_failures_total"],
      lists: ["cache_lists_total"],
      watches: ["cache_watches_total"],
    },
    async () => {
      // The cut ends the watch that is open now, which is a lost connection of its own.
      const after = rig.gate.fired.length;
      rig.gate.fault = scripted({ on: "stream", fault: { answer: NO_STREAM } }, { on: "watch", fault });
      rig.link.cut();
      await until(
        "the fault fired",
        () => rig.gate.fired.slice(after).some(({ kind }) => kind === "watch") || undefined,
      );
      await cluster.label(id, { n: "told" });
      await until("the next watch tells", async () => {
        const { labels } = await rig.client.getWorkloadLabels({ workloadId: id });
        return labels.n === "told" || undefined;
      });
    },
  );
  expect(figures.failures).toBe(cause === "connection" ? 2 : 1);
  expect(figures.others).toBe(2);
  expect(figures.lists).toBe(cause === "gone" ? 1 : 0);
  expect(figures.watches).toBe(2);
});

describe("reads that find the cache behind a write of ours are counted by what came of it:", () => {
  const outcome = (outcome: string) => ["cache_freshness_waits_total", { outcome }] as const;
  const asked = { told: outcome("told"), late: outcome("late"), skipped: outcome("skipped"), left: outcome("left") };
  const NEVER_MS = 3_600_000;

  /** A runner whose watch tells so late, and whose reads wait so long for it. */
  async function behind(lateMs: number, freshWaitMs: number): Promise<Rig> {
    const watches = { on: "watch", fault: { body: { lateMs } }, times: Number.POSITIVE_INFINITY } as const;
    const tuning = { watcher: { ...QUICK.watcher, freshWaitMs } };
    const rig = await cluster.rig((gate) => {
      gate.fault = scripted({ on: "stream", fault: { answer: NO_STREAM } }, watches);
    }, tuning);
    await untilScraped(rig, "it watches", (page) => page.sum("cache_watches_total") > 0);
    return rig;
  }

  test("the watch tells in time", async () => {
    await using rig = await behind(200, NEVER_MS);
    const { told, ...others } = await moved(rig, asked, () =>
      until("a read came before the watch", async () => {
        const { id: workloadId } = await rig.start();
        await rig.client.inspectWorkload({ workloadId });
        return (await scrape(rig)).sum(...outcome("told")) > 0 || undefined;
      }),
    );
    expect(told).toBeGreaterThan(0);
    expect(others).toEqual({ late: 0, skipped: 0, left: 0 });
    await remove(rig);
  });

  test("the watch is late; it is known to be late, and not waited for", async () => {
    await using rig = await behind(NEVER_MS, 1_000);
    let reads = 0;
    const { late, skipped, live, ...others } = await moved(
      rig,
      { ...asked, live: ["cache_live_reads_total"] },
      async () => {
        const { id: workloadId } = await rig.start();
        // An answer may tell of a newer state, with which the watch is late only after a second.
        await until("a read was not made to wait", async () => {
          reads++;
          await rig.client.inspectWorkload({ workloadId });
          return (await scrape(rig)).sum(...outcome("skipped")) > 0 || undefined;
        });
      },
    );
    expect(others).toEqual({ told: 0, left: 0 });
    expect([late + skipped, live]).toEqual([reads, reads]);
    expect(late).toBeGreaterThan(0);
    await remove(rig);
  });

  test("the caller leaves", async () => {
    await using rig = await behind(NEVER_MS, NEVER_MS);
    const figures = await moved(rig, asked, async () => {
      const { id: workloadId } = await rig.start();
      const { code } = await refusal(rig.client.inspectWorkload({ workloadId }, { timeoutMs: 50 }));
      expect(code).toBe("DeadlineExceeded");
      await untilScraped(rig, "it has left", (page) => page.sum(...outcome("left")) > 0);
    });
    expect(figures).toEqual({ told: 0, late: 0, skipped: 0, left: 1 });
    await remove(rig);
  });
});

test("requests to the Kubernetes API are counted by verb, resource and status, each try for itself", async () => {
  await using rig = await cluster.rig();
  await until("the cache is live", () => rig.watcher.live || undefined);
  const request = (verb: string, resource: string, code: string) =>
    ["kube_requests_total", { verb, resource, code }] as const;
  const figures = await moved(
    rig,
    {
      created: request("POST", "pods", "201"),
      absent: request("GET", "pods", "404"),
      listed: request("LIST", "persistentvolumeclaims", "200"),
      failed: request("LIST", "persistentvolumeclaims", "503"),
      patched: request("PATCH", "pods", "200"),
      execs: request("EXEC", "pods/exec", "101"),
      logs: request("GET", "pods/log", "200"),
      durations: ["kube_request_duration_seconds_count", { verb: "LIST", resource: "persistentvolumeclaims" }],
    },
    async () => {
      const { id } = await rig.run();
      await told(rig, freshId());
      rig.gate.fault = scripted({
        on: "list",
        resource: "persistentvolumeclaims",
        fault: { answer: { status: 503, reason: "ServiceUnavailable" } },
      });
      await rig.client.listVolumes({});
      await rig.client.touchWorkload({ workloadId: id });
      await rig.client.putArchive({ workloadId: id, path: "/tmp", tarPayload: new Uint8Array(1024) });
      for await (const _ of rig.client.streamWorkloadLogs({ workloadId: id, containerName: "main" }));
    },
  );
  expect(figures).toMatchObject({ created: 1, listed: 1, failed: 1, patched: 1, execs: 1, logs: 1, durations: 2 });
  expect(figures.absent).toBeGreaterThan(0);
  await remove(rig);
});
