import { beforeAll, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { sleep } from "../../src/time.ts";
import { type Fault, GONE, NO_STREAM, nameOf, tooMany } from "../support/faults/fault.ts";
import { type Rule, scripted } from "../support/faults/script.ts";
import type { RunnerClient } from "../support/runner.ts";
import { refusal, until } from "../support/wait.ts";
import { Happenings } from "./happenings.ts";
import { count, QUICK, sharedCluster, THERE, told, UNAVAILABLE, untilTold, whileAsked } from "./rig.ts";

/* Faults of the list that a cache begins with, or begins anew with: it is never shown in part, and absence is never guessed. */
const cluster = sharedCluster();
const id = randomUUID();
beforeAll(async () => {
  await cluster.make(id);
});

const ALWAYS = Number.POSITIVE_INFINITY;
const PAGES: Rule = { on: "stream", fault: { answer: NO_STREAM }, times: ALWAYS };

/** Whether a list is short of a workload that is there: the lie that costs most. */
async function isShort(client: RunnerClient, ids: ReadonlySet<string>): Promise<boolean> {
  const { workloads } = await client.listWorkloads({});
  const listed = new Set(workloads.map(({ workloadKey }) => workloadKey));
  return [...ids].some((each) => !listed.has(each));
}

const faults: [name: string, fault: Fault][] = [
  ["reset before the response", "reset before"],
  ["no response (half-open)", "silence"],
  ["410", { answer: GONE }],
  ["429", { answer: tooMany(0) }],
  ["500", { answer: { status: 500, reason: "InternalError" } }],
  ["503", { answer: { status: 503, reason: "ServiceUnavailable" } }],
  ["403", { answer: { status: 403, reason: "Forbidden" } }],
  ["a redirect", { answer: { status: 302, headers: { location: "http://127.0.0.1:9/" } } }],
  ["an empty object", { answer: { status: 200, body: "{}" } }],
  [
    "a list of another kind",
    { answer: { status: 200, body: '{"kind":"SecretList","metadata":{"resourceVersion":"5"},"items":[]}' } },
  ],
  ["a list without a version", { answer: { status: 200, body: '{"kind":"PodList","metadata":{},"items":[]}' } }],
  ["no JSON", { answer: { status: 200, body: "<html>hello</html>" } }],
  ["half an answer", { body: { cut: "half", afterLines: 0 } }],
  ["a connection lost in the answer", { body: { cut: "reset", afterLines: 0 } }],
  ["a slow body", { body: { trickle: 20 } }],
];

describe.each(faults)("the first list meets %s", (_, fault) => {
  for (const [how, rules] of [
    ["in pages", [PAGES, { on: "list", fault, times: 2 }]],
    [
      "streamed",
      [
        { on: "stream", fault, times: 1 },
        { on: "list", fault, times: 2 },
      ],
    ],
  ] as const)
    test(`READ, ${how}: UNAVAILABLE until a whole one is there, then right`, async () => {
      // What has no answer, or no end, costs the time that is allowed; the rest takes what time it needs.
      const endless = fault === "silence" || (typeof fault === "object" && "body" in fault && "trickle" in fault.body);
      const watcher = { ...QUICK.watcher, watchSeconds: { min: 1, spread: 0 }, overtimeMs: 0 };
      const tuning = endless ? { watcher, kube: { requestMs: 400, watchOpenMs: 400 } } : QUICK;
      await using rig = await cluster.rig((gate) => {
        gate.fault = scripted(...rules);
      }, tuning);
      const words = new Set<string>();
      await until("all is told", async () => {
        const now = await told(rig, id);
        for (const word of Object.values(now)) words.add(word);
        return Bun.deepEquals(now, THERE) || undefined;
      });
      expect([...words].filter((word) => word !== "there" && word !== "Unavailable")).toEqual([]);
      expect(count(rig, nameOf(fault))).toBeGreaterThan(0);
    });
});

test("slow body: nothing is told until the list is complete, but Ready is; then all at once", async () => {
  const fault: Fault = { body: { trickle: 4_000 } };
  await using rig = await cluster.rig(
    (gate) => {
      gate.fault = scripted({ on: "stream", fault, times: ALWAYS });
    },
    { watcher: { ...QUICK.watcher, syncWaitMs: 10 } },
  );
  await until("the list trickles", () => count(rig, "trickle") > 0 || undefined);
  expect(await told(rig, id)).toEqual(UNAVAILABLE);
  expect((await rig.client.ready({})).status).toBe("ok");
  expect(rig.watcher.live).toBe(false);
  await untilTold(rig, id, THERE);
  expect(rig.watcher.live).toBe(true);
});

/** A watch that is only just asked for may have its answer cut off: then the next one has to get it. */
const MAYBE_CUT = 2;

describe("410 on continue", () => {
  const many = new Set<string>();
  beforeAll(async () => {
    for (let n = 0; n < 501; n++) many.add(await cluster.make());
  });

  test("READ: the first list is begun anew, never shown in part", async () => {
    await using rig = await cluster.rig((gate) => {
      gate.fault = scripted(PAGES, { on: "page", fault: { answer: GONE }, times: 5 });
    });
    await until("all is told", () =>
      isShort(rig.client, many).then(
        (short) => {
          expect(short).toBe(false);
          return true;
        },
        () => undefined, // UNAVAILABLE: not yet
      ),
    );
    expect(count(rig, "410", "page")).toBe(5);
  });

  test("READ: a later list is begun anew too, and answers are the old ones meanwhile", async () => {
    await using rig = await cluster.rig((gate) => {
      gate.fault = scripted(PAGES);
    });
    await untilTold(rig, id, THERE);
    const { lists } = rig.watcher.requests;
    rig.gate.fault = scripted(
      PAGES,
      { on: "watch", fault: { answer: GONE }, times: MAYBE_CUT },
      { on: "page", fault: { answer: GONE }, times: 2 },
      { on: "page", fault: { holdMs: 200 } },
    );
    rig.link.cut();
    let short = false;
    const { lies } = await whileAsked(rig, id, () =>
      until("the list was held", async () => {
        short ||= await isShort(rig.client, many);
        return (count(rig, "hold", "page") > 0 && rig.watcher.requests.lists > lists) || undefined;
      }),
    );
    expect([lies, short, count(rig, "410", "page")]).toEqual([[], false, 2]);
  });
});

describe("410 on a watch", () => {
  test("READ: the new list is swapped in at once, with old answers until then", async () => {
    const happenings = new Happenings(cluster);
    await happenings.prepare();
    await using rig = await cluster.rig();
    await untilTold(rig, happenings.still, THERE);
    rig.gate.fault = scripted(
      { on: "watch", fault: { answer: GONE }, times: MAYBE_CUT },
      { on: ["list", "stream"], fault: { holdMs: 300 } },
    );
    rig.link.cut();
    await until("the list is held", () => count(rig, "hold") > 0 || undefined);
    const since = rig.changes.length;
    await happenings.happen();
    expect((await told(rig, happenings.removed)).list).toBe("there"); // the old answer
    expect(await told(rig, happenings.still)).toEqual(THERE);
    await happenings.expectTold(rig, since);
  });
});

test.each([
  ["no Status", { status: 404, body: "<html>not found</html>" }, "Unavailable"],
  ["a Status of the API server", { status: 404, reason: "NotFound", message: "pods not found" }, "NotFound"],
] as const)("a miss whose GET is answered 404 with %s", async (_, answer, code) => {
  await using rig = await cluster.rig();
  await untilTold(rig, id, THERE);
  rig.gate.fault = scripted({ on: "get", fault: { answer }, times: ALWAYS });
  expect((await refusal(rig.client.inspectWorkload({ workloadId: randomUUID() }))).code).toBe(code);
  expect(count(rig, "404", "get")).toBeGreaterThan(0);
});

test("no list and no watch that begins with one takes what a stale replica may have", async () => {
  await using rig = await cluster.rig((gate) => {
    gate.fault = scripted({ on: "stream", fault: { answer: NO_STREAM } });
  });
  await untilTold(rig, id, THERE);
  rig.gate.fault = scripted({ on: "watch", fault: { answer: GONE }, times: MAYBE_CUT });
  rig.link.cut();
  await until("the list came anew", () => rig.watcher.requests.lists > 1 || undefined);
  await sleep(0);
  const lists = rig.gate.requests.filter((each) => !/[?&]resourceVersion=[1-9]/.test(each));
  expect(lists.length).toBeGreaterThan(1);
  for (const each of lists) expect(each).not.toContain("resourceVersion=");
});

test("who asks before the first list is told that it is not known, and the same call succeeds with patience", async () => {
  await using rig = await cluster.rig(
    (gate) => {
      gate.fault = scripted({ on: "stream", fault: { holdMs: 150 } });
    },
    { watcher: { ...QUICK.watcher, syncWaitMs: 20_000 } },
  );
  expect(await told(rig, id)).toEqual(THERE);
  expect(count(rig, "hold")).toBe(1);
  await using hasty = await cluster.rig(
    (gate) => {
      gate.fault = scripted({ on: "stream", fault: { holdMs: 1_000 } });
    },
    { watcher: { ...QUICK.watcher, syncWaitMs: 1 } },
  );
  expect(await refusal(hasty.client.inspectWorkload({ workloadId: id }))).toEqual({
    code: "Unavailable",
    message: "cluster_unreachable",
  });
});
