import { Code, ConnectError } from "@connectrpc/connect";
import { WORKLOAD_KEY_LABEL } from "../../src/pod/names.ts";
import { sleep } from "../../src/time.ts";
import { compareVersions } from "../../src/watcher/cache.ts";
import { type Rig, WARY } from "../faults/rig.ts";
import type { PodChange } from "../support/backend.ts";
import { seeded } from "../support/faults/script.ts";
import { freshId, idling } from "../support/runner.ts";
import { until } from "../support/wait.ts";
import { faultsByLot, outagesByLot } from "./faults.ts";
import { World } from "./world.ts";

const WORKLOADS = 40;
const READERS = 4;
/** Writes a second of the one who is not the runner. */
const STEP_MS = 4;
/** A list from a cache that counts as live may be so old, and a busy process adds to that. */
const LAG_MS = WARY.watcher.staleMs + 1_000;
/** What is wrong so long after the last fault and write, stays wrong. */
const QUIET_MS = 5_000;

export interface Outcome {
  readonly seed: number;
  readonly steps: number;
  readonly answers: number;
  /** Answers that were failures: the truth could not be had. */
  readonly refused: number;
  readonly faults: Record<string, number>;
  readonly lies: readonly string[];
}

/** A model run behind `rig`, whose changes `recorded` tells as somebody else saw them. */
export async function runModel(rig: Rig, seed: number, ms: number, recorded: readonly PodChange[]): Promise<Outcome> {
  const world = new World(rig.backend, seeded(seed), WORKLOADS);
  const over = new AbortController();
  const { signal } = over;
  rig.gate.fault = faultsByLot(seeded(seed + 1));
  const outages = outagesByLot(rig, seeded(seed + 2), signal);
  const counts = { answers: 0, refused: 0 };
  const working = [
    writeOn(world, signal),
    ownWrites(rig, world, signal, counts),
    ...Array.from({ length: READERS }, (_, reader) => readOn(rig, world, seeded(seed + 3 + reader), signal, counts)),
  ];
  await Promise.race([sleep(ms), ...working]);
  over.abort();
  await Promise.all(working);
  const done = await outages;
  rig.gate.fault = () => undefined;
  rig.link.up();
  const faults = Object.fromEntries(Object.entries(done));
  for (const { kind, what } of rig.gate.fired) faults[`${kind} ${what}`] = (faults[`${kind} ${what}`] ?? 0) + 1;
  const lies = [...world.lies, ...(await divergences(rig, recorded))];
  await world.clear();
  return { seed, steps: world.steps, ...counts, faults, lies };
}

async function writeOn(world: World, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await world.step();
    await sleep(STEP_MS);
  }
}

interface Counts {
  answers: number;
  refused: number;
}

/** An answer, or undefined for NOT_FOUND; failures that say that nothing is known are counted. */
async function ask<T>(counts: Counts, call: Promise<T>): Promise<{ found: T | undefined } | undefined> {
  try {
    const found = await call;
    counts.answers++;
    return { found };
  } catch (error) {
    const { code } = ConnectError.from(error);
    counts.answers++;
    if (code === Code.NotFound) return { found: undefined };
    if (code !== Code.Unavailable && code !== Code.Internal) throw error;
    counts.refused++;
    return undefined;
  }
}

/** Asks all reads about workloads that others write. */
async function readOn({ client }: Rig, world: World, random: () => number, signal: AbortSignal, counts: Counts) {
  while (!signal.aborted) {
    const id = world.ids[Math.floor(random() * world.ids.length)] ?? "";
    const start = performance.now();
    const check = async <T>(read: string, call: Promise<T>, n: (answer: T) => string | undefined | true) => {
      const answer = await ask(counts, call);
      if (answer === undefined) return;
      const told = answer.found === undefined ? undefined : n(answer.found);
      const end = performance.now();
      const mayLagMs = read === "Inspect" || read === "Labels" ? 0 : LAG_MS;
      if (told === undefined) return world.absent(read, id, { start, end, mayLagMs });
      world.seen(id, start, end);
      if (told !== true) world.present(read, id, Number(told), start, end);
    };
    const listed = (has: boolean): true | undefined => has || undefined;
    await Promise.all([
      check("Inspect", client.inspectWorkload({ workloadId: id }), ({ configLabels }) => configLabels.n),
      check("Labels", client.getWorkloadLabels({ workloadId: id }), ({ labels }) => labels.n),
      check("List", client.listWorkloads({}), ({ workloads }) =>
        listed(workloads.some(({ workloadKey }) => workloadKey === id)),
      ),
      check("Find", client.findWorkloadsByLabels({ labels: { [WORKLOAD_KEY_LABEL]: id }, all: true }), (found) =>
        listed(found.targetIds.includes(id)),
      ),
      check("ByVolume", client.listWorkloadsByVolume({ volumeName: `c-${id}` }), (found) =>
        listed(found.targetIds.includes(id)),
      ),
    ]);
    await sleep(1);
  }
}

/** The runner's own writes are seen by its next answers: what it started is there, what it removed is not. */
async function ownWrites({ client, ledger }: Rig, world: World, signal: AbortSignal, counts: Counts): Promise<void> {
  while (!signal.aborted) {
    const workloadId = ledger.workload(freshId());
    const labels = { [WORKLOAD_KEY_LABEL]: workloadId };
    const seen = async (): Promise<(boolean | undefined)[]> => {
      const [inspected, listed, found] = await Promise.all([
        ask(counts, client.inspectWorkload({ workloadId })),
        ask(counts, client.listWorkloads({})),
        ask(counts, client.findWorkloadsByLabels({ labels, all: true })),
      ]);
      return [
        inspected && inspected.found !== undefined,
        listed?.found?.workloads.some(({ workloadKey }) => workloadKey === workloadId),
        found?.found?.targetIds.includes(workloadId),
      ];
    };
    const properties = { ...ledger.mark };
    const started = await ask(
      counts,
      client.startWorkload({ workloadId, main: idling(), labels, additionalProperties: properties }),
    );
    // A start that failed may have left its Pod, as nobody could be asked: it is removed as well.
    if (started !== undefined && (await seen()).includes(false))
      world.lies.push(`P3: ${workloadId} was started and is not there`);
    while ((await ask(counts, client.removeWorkload({ workloadId, force: true }))) === undefined) await sleep(5);
    if ((await seen()).includes(true)) world.lies.push(`P3: ${workloadId} was removed and is there`);
  }
}

/** After quiet: the cache against the cluster, and what was told of changes against what others saw. */
async function divergences(rig: Rig, recorded: readonly PodChange[]): Promise<string[]> {
  const versions = async () => {
    const { items } = await rig.backend.admin.pods.listAll({
      labelSelector: "app.kubernetes.io/managed-by=k8s-runner",
    });
    return items.map(({ metadata }) => `${metadata?.name} ${metadata?.uid} ${metadata?.resourceVersion}`).sort();
  };
  const cached = async () =>
    (await rig.watcher.pods())
      .map(({ metadata }) => `${metadata?.name} ${metadata?.uid} ${metadata?.resourceVersion}`)
      .sort();
  const right = async () => (rig.watcher.live && Bun.deepEquals(await cached(), await versions())) || undefined;
  const found = await until("the cache is as the cluster", right, QUIET_MS).then(
    () => [],
    (error: unknown) => [`end: ${error}`],
  );
  // The witness may be a little later than we are.
  const settled = () => untrue(rig.changes, recorded).length === 0 || undefined;
  await until("nothing is untrue", settled, QUIET_MS).catch(() => undefined); // what is, is told
  return [...found, ...untrue(rig.changes, recorded)];
}

/** What was told and never happened, told twice, told backwards, or not told of at all in the end. */
function untrue(told: readonly string[], recorded: readonly PodChange[]): string[] {
  const lies: string[] = [];
  const happened = new Set(recorded.map(({ uid, version }) => `${uid} ${version}`));
  const last = new Map<string, string>();
  const dead = new Set<string>();
  for (const line of told) {
    const [type = "", , uid = "", version = ""] = line.split(" ");
    if (dead.has(uid)) lies.push(`changes: ${line} after its end`);
    const before = last.get(uid);
    if (type === "deleted") dead.add(uid);
    else if (before !== undefined && compareVersions(before, version) >= 0)
      lies.push(`changes: ${line} after ${before}`);
    if (type === "applied") last.set(uid, version);
    if (!happened.has(`${uid} ${version}`)) lies.push(`changes: ${line} never happened`);
  }
  const deleted = new Set(recorded.filter(({ type }) => type === "DELETED").map(({ uid }) => uid));
  for (const uid of last.keys()) if (deleted.has(uid) !== dead.has(uid)) lies.push(`changes: the end of ${uid}`);
  return lies;
}
