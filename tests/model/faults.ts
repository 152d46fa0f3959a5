import { sleep } from "../../src/time.ts";
import type { Rig } from "../faults/rig.ts";
import { aboutOf, type Fault, GONE, NO_STREAM, type ProxiedRequest, tooMany } from "../support/faults/fault.ts";

/** How often a request of the cache is spoiled, and how often something happens to all connections, in ms on average. */
const SPOILED = { watch: 0.6, list: 0.25, get: 0.3 };
const CUT_EVERY_MS = 700;
const DOWN_MS = 300;

const ofWatches: Fault[] = [
  "reset before",
  "silence",
  { answer: GONE },
  { body: { event: GONE } },
  { answer: tooMany(0) },
  { answer: { status: 500, reason: "InternalError" } },
  { body: { event: { status: 500, reason: "InternalError" } } },
  { answer: { status: 302, headers: { location: "http://127.0.0.1:9/" } } },
  { answer: { status: 200, body: "<html>" } },
  { body: { garbage: "no json\n" } },
  { body: { repeat: true } },
  { body: { repeat: true } },
  { body: { reorderMs: 20 } },
  { body: { lateMs: 50 } },
  { body: { cut: "half", afterLines: 2 } },
  { body: { cut: "reset", afterLines: 3 } },
  { body: { cut: "end", afterLines: 5 } },
  { body: { cut: "end", afterMs: 0 } },
  { body: { cut: "silence", afterLines: 4 } },
];
const ofLists: Fault[] = [
  "reset before",
  "reset after",
  "silence",
  { answer: GONE },
  { answer: tooMany(0) },
  { answer: { status: 503, reason: "ServiceUnavailable" } },
  { answer: { status: 200, body: '{"kind":"PodList","metadata":{},"items":[]}' } },
  { holdMs: 100 },
  { body: { cut: "half", afterLines: 0 } },
  { body: { cut: "reset", afterLines: 3 } },
  { body: { trickle: 20_000 } },
];
const ofStreams: Fault[] = [...ofLists, { answer: NO_STREAM }];
const ofGets: Fault[] = [
  "reset before",
  "reset after",
  { answer: { status: 500, reason: "InternalError" } },
  { answer: { status: 404, body: "<html>not found</html>" } },
  { answer: { status: 200, body: "{}" } },
  { holdMs: 50 },
];

/** Faults by lot, each as often as the others of its kind. */
export function faultsByLot(random: () => number): (request: ProxiedRequest) => Fault | undefined {
  const one = (faults: readonly Fault[]) => faults[Math.floor(random() * faults.length)];
  return (request) => {
    const { kind, resource } = aboutOf(request);
    const lot = random();
    if (resource !== "pods") return undefined;
    if (kind === "watch") return lot < SPOILED.watch ? one(ofWatches) : undefined;
    if (kind === "list" || kind === "page") return lot < SPOILED.list ? one(ofLists) : undefined;
    if (kind === "stream") return lot < SPOILED.list ? one(ofStreams) : undefined;
    return kind === "get" && lot < SPOILED.get ? one(ofGets) : undefined;
  };
}

/** What happens to connections, and to etcd, until the signal. Tells what it did. */
export async function outagesByLot(
  rig: Rig,
  random: () => number,
  signal: AbortSignal,
): Promise<Record<string, number>> {
  const done: Record<string, number> = {};
  const { compact } = rig.backend;
  const outages: Record<string, () => Promise<void> | void> = {
    "cut reset": () => rig.link.cut("reset"),
    "cut fin": () => rig.link.cut("fin"),
    "cut silence": () => rig.link.cut("silence"),
    down: async () => {
      rig.link.down();
      await sleep(DOWN_MS * random(), signal).catch(() => undefined); // over: up again all the same
      rig.link.up();
    },
    ...(compact === undefined
      ? {}
      : {
          compacted: () => {
            compact();
            rig.link.cut("reset");
          },
        }),
  };
  const names = Object.keys(outages);
  while (!signal.aborted) {
    await sleep(2 * CUT_EVERY_MS * random(), signal).catch(() => undefined); // over: the loop ends
    const name = names[Math.floor(random() * names.length)] ?? "";
    await outages[name]?.();
    done[name] = (done[name] ?? 0) + 1;
  }
  return done;
}
