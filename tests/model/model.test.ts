import { expect, test } from "bun:test";
import { sharedCluster, WARY } from "../faults/rig.ts";
import { startRecording } from "./recording.ts";
import { runModel } from "./run.ts";

/*
 * Random writes under random faults, against a recording of what happened that is not the runner's: after quiet the cache
 * is as the cluster, and in between no answer was a lie (docs/watcher.md). One seed for 20 s here; MODEL_SEED and
 * MODEL_SECONDS replay and lengthen, and tests/model/long.sh runs five seeds for ten minutes.
 */
const cluster = sharedCluster();
const SEED = Number(process.env.MODEL_SEED ?? 1 + Math.floor(Math.random() * 1_000_000));
const SECONDS = Number(process.env.MODEL_SECONDS ?? 20);

test(
  `no answer is a lie, and nothing is missed (MODEL_SEED=${SEED})`,
  async () => {
    await using recording = await startRecording(cluster.backend());
    await using rig = await cluster.rig(undefined, WARY, { WORKLOAD_POD_TEMPLATE: `${import.meta.dir}/template.yaml` });
    const { lies, ...outcome } = await runModel(rig, SEED, SECONDS * 1_000, recording.changes);
    console.log(JSON.stringify({ ...outcome, changes: rig.changes.length, recorded: recording.changes.length }));
    expect(lies).toEqual([]);
    expect(outcome.steps).toBeGreaterThan(SECONDS); // thousands, but on a machine with much else to do
    expect(Object.keys(outcome.faults).length).toBeGreaterThan(10); // they fired
  },
  SECONDS * 1_000 + 60_000,
);
