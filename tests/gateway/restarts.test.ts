import { expect, setDefaultTimeout, test } from "bun:test";
import { Code } from "@connectrpc/connect";
import { statusOf } from "../../src/gateway/state.ts";
import { WorkloadStatus } from "../../src/gen/agynio/api/runners/v1/runners_pb.ts";
import type { Pod } from "../../src/kube/types.ts";
import { createLog } from "../../src/log.ts";
import { podName } from "../../src/pod/names.ts";
import { sleep } from "../../src/time.ts";
import { PodWatcher } from "../../src/watcher.ts";
import { FakeGateway, refused } from "../support/gateway.ts";
import { until } from "../support/wait.ts";
import { PodApi } from "../watcher/pods.ts";
import { id, podIn } from "./pods.ts";
import { reporting } from "./reporting.ts";

setDefaultTimeout(30_000);
const STEPS = 400;
const WORKLOADS = 30;
const STATES = ["pending", "unready", "ready", "ready", "failed", "succeeded"] as const;

/** Numbers from 0 to 1, the same ones for a seed (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const wordOf = (pod: Pod) => {
  const status = statusOf(pod);
  return status === WorkloadStatus.RUNNING ? "RUNNING" : status === WorkloadStatus.FAILED ? "FAILED" : undefined;
};

test.each([1, 2, 3, 4, 5])(
  "runners that die and start during churn leave the platform with the cluster's states, seed %d",
  async (seed) => {
    const random = randomOf(seed);
    const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] ?? expect.unreachable();
    const api = new PodApi();
    await using server = await api.start();
    let faulty = true;
    await using gateway = await FakeGateway.start({
      state: async () => {
        if (!faulty) return undefined;
        const chance = random();
        await sleep(chance * 8); // so that calls of a runner that died arrive among those of the next one
        if (chance < 0.2) throw refused("not now", pick([Code.Unavailable, Code.Internal, Code.DeadlineExceeded]));
        return undefined;
      },
    });

    async function runner() {
      const log = createLog({ level: "silent" });
      const pods = new PodWatcher({
        kube: server.kube(),
        log,
        tuning: { shortWatchMs: 0, backoff: { minMs: 1, maxMs: 5 } },
      });
      const stopping = new AbortController();
      const running = pods.run(stopping.signal);
      const link = await reporting({ pods, gateway, timing: { callMs: 50, waitsMs: [1, 1], replayMs: 20 } });
      return {
        pods,
        link,
        /** As by SIGKILL: nothing is waited for or sent any more. */
        die: async () => {
          link.stop();
          stopping.abort();
          await link[Symbol.asyncDispose]();
          await running;
        },
      };
    }

    let current = await runner();
    let deaths = 0;
    for (let step = 0; step < STEPS; step++) {
      const workload = id(Math.floor(random() * WORKLOADS));
      if (random() < 0.15) api.remove(workload);
      else {
        const { status = {} } = podIn(pick(STATES), workload);
        api.put(workload, { uid: api.pods.get(podName(workload))?.metadata?.uid ?? `uid-${step}`, status });
      }
      if (random() < 0.3) await sleep(random() * 4);
      if (random() < 0.03) {
        await current.die();
        deaths++;
        current = await runner();
      }
    }
    faulty = false;
    const wanted = new Map(
      [...api.pods.values()].flatMap((pod) => (wordOf(pod) ? [[pod.metadata?.name?.slice(9), wordOf(pod)]] : [])),
    );
    expect([deaths > 3, wanted.size > 5]).toEqual([true, true]);
    const told = () =>
      new Map<string | undefined, string | undefined>(
        [...wanted.keys()].map((workload) => [workload, gateway.record.get(workload ?? "")?.status]),
      );
    await until(
      "the platform knows every state",
      () => (Bun.deepEquals(told(), wanted) ? true : undefined),
      10_000,
    ).catch(() => undefined);
    expect(told()).toEqual(wanted);
    await current.die();
  },
);
