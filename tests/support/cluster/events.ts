import { newMetadata } from "./metadata.ts";
import type { JsonObject, StoredPod } from "./objects.ts";
import { microTimestamp, timestamp } from "./objects.ts";
import type { Store } from "./store.ts";

export interface Occurrence {
  readonly reason: string;
  readonly message: string;
  readonly type?: "Normal" | "Warning";
  /** The container that it is about. */
  readonly container?: string;
  readonly component?: "kubelet" | "default-scheduler";
}

/** Numbers the names of events, which must differ. */
let count = 0;

/** Writes a core/v1 Event about a Pod, as the kubelet (`source`) or the scheduler (`eventTime`) does. */
export function recordEvent(store: Store, pod: StoredPod, occurrence: Occurrence): void {
  const { reason, message, type = "Normal", container, component = "kubelet" } = occurrence;
  const { name, namespace, uid, resourceVersion } = pod.metadata;
  const byKubelet = component === "kubelet";
  const now = timestamp();
  const fields: JsonObject = {
    involvedObject: {
      kind: "Pod",
      namespace,
      name,
      uid,
      apiVersion: "v1",
      resourceVersion,
      ...(container === undefined ? {} : { fieldPath: `spec.containers{${container}}` }),
    },
    reason,
    message,
    source: byKubelet ? { component, host: NODE_NAME } : {},
    firstTimestamp: byKubelet ? now : null,
    lastTimestamp: byKubelet ? now : null,
    ...(byKubelet ? { count: 1 } : { action: "Binding" }),
    type,
    eventTime: byKubelet ? null : microTimestamp(),
    reportingComponent: component,
    reportingInstance: byKubelet ? NODE_NAME : `${component}-${NODE_NAME}`,
  };
  const metadata = newMetadata({
    sent: {},
    name: `${name}.${(Date.now() * 1000 + count++).toString(16)}`,
    namespace,
    finalizers: [],
    generation: false,
    manager: component,
    fields,
  });
  store.create("events", { apiVersion: "v1", kind: "Event", metadata, ...fields });
}

/** The one node. */
export const NODE_NAME = "embedded";
