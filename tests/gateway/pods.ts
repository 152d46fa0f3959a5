import type { Pod } from "../../src/kube/types.ts";
import { MANAGED_BY_LABEL, MANAGER, podName, WORKLOAD_ID_LABEL } from "../../src/pod/names.ts";
import type { Change, PodChanges } from "../../src/watcher.ts";

type Metadata = NonNullable<Pod["metadata"]>;

export const id = (index: number): string => `00000000-0000-4000-8000-${String(index).padStart(12, "0")}`;

type Status = NonNullable<Pod["status"]>;

/** A workload's Pod in one of the states that reports tell apart; `status` and `metadata` add to it. */
export function podIn(
  state: "pending" | "unready" | "ready" | "failed" | "succeeded",
  workload: string,
  more: { uid?: string; status?: Partial<Status>; metadata?: Partial<Metadata> } = {},
): Pod {
  const phases = { pending: "Pending", unready: "Running", ready: "Running", failed: "Failed", succeeded: "Succeeded" };
  return {
    metadata: {
      name: podName(workload),
      uid: more.uid ?? `uid-${workload}`,
      labels: { [MANAGED_BY_LABEL]: MANAGER, [WORKLOAD_ID_LABEL]: workload },
      ...more.metadata,
    },
    spec: { containers: [{ name: "main", image: "alpine:3.19" }] },
    status: {
      phase: phases[state],
      conditions: [{ type: "Ready", status: state === "ready" ? "True" : "False" }],
      ...more.status,
    },
  };
}

/** Pods as a watcher tells of them. */
export class Pods implements PodChanges {
  readonly present = new Map<string, Pod>();
  readonly #listeners = new Set<(change: Change) => void>();

  put(pod: Pod): void {
    this.present.set(pod.metadata?.name ?? "", pod);
    this.#tell({ type: "applied", pod });
  }

  remove(workload: string): void {
    const pod = this.present.get(podName(workload));
    if (pod === undefined) throw new Error(`no Pod of ${workload}`);
    this.present.delete(podName(workload));
    this.#tell({ type: "deleted", pod });
  }

  follow(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    for (const pod of this.present.values()) listener({ type: "applied", pod });
    return () => void this.#listeners.delete(listener);
  }

  #tell(change: Change): void {
    for (const listener of this.#listeners) listener(change);
  }
}
