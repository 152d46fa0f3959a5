import { describe, expect, test } from "bun:test";
import { type Fault, GONE, NO_STREAM, nameOf, tooMany } from "../support/faults/fault.ts";
import { scripted } from "../support/faults/script.ts";
import { until } from "../support/wait.ts";
import { Happenings } from "./happenings.ts";
import { count, labelOf, sharedCluster, THERE, untilTold, whileAsked } from "./rig.ts";

/*
 * Faults of a watch that pass: columns READ and REPORT of the fault table (docs/watcher.md). Whatever a watch suffers, what
 * is there is told all the time, what happened meanwhile is right afterwards, and each change is told once.
 */
const cluster = sharedCluster();

const EVENT_500 = { status: 500, reason: "InternalError", message: "etcdserver: no leader" };
/** The fault of several watches in a row, and whether each of them costs a list. */
const rows: [name: string, fault: Fault, lists: "none" | "each" | "any"][] = [
  ["reset before the response", "reset before", "none"],
  ["reset after the response began", { body: { cut: "reset", afterMs: 0 } }, "none"],
  ["reset after one event", { body: { cut: "reset", afterLines: 1 } }, "none"],
  ["410 in the answer", { answer: GONE }, "each"],
  ["410 in the stream", { body: { event: GONE } }, "each"],
  ["429 with Retry-After", { answer: tooMany(0) }, "none"],
  ["429 in the stream", { body: { event: tooMany(0) } }, "none"],
  ["500", { answer: { status: 500, reason: "InternalError" } }, "none"],
  ["503", { answer: { status: 503, reason: "ServiceUnavailable" } }, "none"],
  [
    "504 too large resource version",
    { answer: { status: 504, reason: "Timeout", message: "Too large resource version" } },
    "none",
  ],
  ["an ERROR event that is no 410", { body: { event: EVENT_500 } }, "none"],
  ["a truncated line", { body: { cut: "half", afterLines: 0 } }, "none"],
  ["a truncated line after a whole one", { body: { cut: "half", afterLines: 1 } }, "none"],
  ["a line that is no JSON", { body: { garbage: "no json\n" } }, "none"],
  ["a line that is no event", { body: { garbage: '{"type":"ADDED","object":{"kind":"Pod"}}\n' } }, "none"],
  ["an answer that is no watch", { answer: { status: 200, body: "<html>hello</html>" } }, "none"],
  ["a redirect", { answer: { status: 302, headers: { location: "http://127.0.0.1:9/" } } }, "none"],
  ["closed at once", { body: { cut: "end", afterMs: 0 } }, "none"],
  ["closed after one event", { body: { cut: "end", afterLines: 1 } }, "none"],
  ["repeated events", { body: { repeat: true } }, "none"],
  ["reordered events", { body: { reorderMs: 40 } }, "any"],
  ["late events", { body: { lateMs: 100 } }, "none"],
];
const TIMES = 2;

/** Spoils the next watches; what happens meanwhile happens while none of them tells it, or under the fault itself. */
async function suffer(fault: Fault) {
  const happenings = new Happenings(cluster);
  await happenings.prepare();
  const rig = await cluster.rig();
  await untilTold(rig, happenings.still, THERE);
  const { lists } = rig.watcher.requests;
  const since = rig.changes.length;
  // So that a list is followed by a watch of its own, and does not bring one with it.
  const pages = { on: "stream", fault: { answer: NO_STREAM }, times: TIMES } as const;
  rig.gate.fault = scripted(pages, { on: "watch", fault, times: TIMES });
  rig.link.cut();
  const fired = () => count(rig, nameOf(fault));
  return { rig, happenings, since, lists, fired };
}

/** Those that spoil a watch for good leave it to the cut to end it. */
const once = (fault: Fault) =>
  typeof fault === "object" &&
  "body" in fault &&
  !("cut" in fault.body || "event" in fault.body || "garbage" in fault.body);

describe.each(rows)("%s", (_, fault, lists) => {
  const wanted = once(fault) ? 1 : TIMES;

  test("READ: what is there is told all the time, and what changed is right afterwards", async () => {
    const { rig, happenings, lists: before, fired } = await suffer(fault);
    await using _rig = rig;
    const { asked, lies } = await whileAsked(rig, happenings.still, async () => {
      await until("the fault fired", async () => {
        await cluster.label(happenings.changed, { n: `${performance.now()}` }); // so that every watch has something to tell
        return fired() >= wanted || undefined;
      });
      await cluster.label(happenings.changed, { n: "last" });
      await until("the last change", async () => (await labelOf(rig, happenings.changed)) === "last" || undefined);
    });
    expect(lies).toEqual([]);
    expect(asked).toBeGreaterThan(1);
    expect(fired()).toBeGreaterThanOrEqual(wanted);
    const more = rig.watcher.requests.lists - before;
    if (lists === "none") expect(more).toBe(0);
    if (lists === "each") expect(more).toBe(TIMES);
  });

  test("REPORT: missed transitions are told once, and each missed delete once", async () => {
    const { rig, happenings, since, fired } = await suffer(fault);
    await using _rig = rig;
    await happenings.happen();
    await until("the fault fired", () => fired() >= wanted || undefined);
    await happenings.expectTold(rig, since);
  });
});
