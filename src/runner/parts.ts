import type { Kube } from "../kube/client.ts";
import type { Log } from "../log.ts";
import type { PlanSettings } from "../pod/spec.ts";
import type { PodWatcher } from "../watcher.ts";
import type { Executions } from "./execution.ts";
import type { Traffic } from "./traffic.ts";
import type { Underway } from "./underway.ts";

/** What the handlers work with; wired once, in app.ts. */
export interface Parts {
  readonly kube: Kube;
  /** The informer cache: every read of Pods goes through it. */
  readonly pods: PodWatcher;
  readonly executions: Executions;
  readonly traffic: Traffic;
  /** What the process waits for before it ends. */
  readonly underway: Underway;
  readonly settings: Omit<PlanSettings, "newWorkloadId" | "nonce">;
  readonly log: Log;
}
