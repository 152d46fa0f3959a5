import type { KubeOptions } from "../../src/kube/client.ts";
import type { Pod } from "../../src/kube/types.ts";
import { createLog } from "../../src/log.ts";
import { type CachedPod, PodWatcher, type WatcherOptions } from "../../src/watcher.ts";
import { PodApi } from "./pods.ts";

interface Options {
  api?: PodApi;
  tuning?: WatcherOptions["tuning"];
  timing?: KubeOptions["timing"];
}

/** A running watcher over a scripted API; stops both at the end of the test. */
export async function startWatcher({ api = new PodApi(), tuning = {}, timing = {} }: Options = {}) {
  const server = await api.start();
  const lines: { msg: string }[] = [];
  const log = createLog({ level: "debug", stream: { write: (line) => void lines.push(JSON.parse(line)) } });
  // A watch of a millisecond is as good as one of five seconds, and nobody waits between two of them.
  const quick = { shortWatchMs: 0, lifeMs: 0, backoff: { minMs: 1, maxMs: 5 } };
  const watcher = new PodWatcher({ kube: server.kube({ timing }), log, tuning: { ...quick, ...tuning } });
  const stopping = new AbortController();
  const running = watcher.run(stopping.signal);
  const { signal } = new AbortController();
  return {
    api,
    watcher,
    lines,
    /** Resolves when a watch is open: what happens from then on is told by it. */
    watching: () => until(() => api.watches.size === 1),
    /** Resolves when the cache has the workload's Pod like this. */
    seen: (id: string, holds: (pod: CachedPod | undefined) => boolean) =>
      watcher.until(id, (pod) => (holds(pod) ? true : undefined), signal),
    [Symbol.asyncDispose]: async () => {
      stopping.abort(new Error("the test is over"));
      await running;
      await server[Symbol.asyncDispose]();
    },
  };
}

/** A watcher that is up to date, and whose watch tells nothing more until `api.tellAll(before)`. */
export async function startLate(freshWaitMs: number) {
  const running = await startWatcher({ tuning: { freshWaitMs } });
  await running.watcher.pods();
  await running.watching();
  running.api.telling = false;
  return { ...running, before: running.api.version };
}

export const ids = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata?.name?.replace("workload-", ""));
export const version = (pod: Pod | undefined) => pod?.metadata?.resourceVersion;

/** Resolves when `holds`, looked at every millisecond. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
}
