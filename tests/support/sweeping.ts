import { Kube } from "../../src/kube/client.ts";
import { createLog } from "../../src/log.ts";
import { sweep } from "../../src/runner/sweep.ts";
import { PodWatcher } from "../../src/watcher.ts";
import type { Backend } from "./backend.ts";

/** Works while a sweep runs that takes Pods for old after times that a test can wait for. */
export async function sweeping(
  { access, namespace }: Backend,
  times: { gatedMs?: number; finishedMs?: number },
  work: () => Promise<void>,
): Promise<void> {
  const log = createLog({ level: "error" });
  const kube = new Kube({ access, namespace, log });
  const pods = new PodWatcher({ kube, log });
  const over = new AbortController();
  const running = [pods.run(over.signal), sweep({ kube, pods, log }, over.signal, { ...times, periodMs: 20 })];
  await work().finally(() => over.abort());
  await Promise.all(running);
}
