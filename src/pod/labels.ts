import { invalid } from "../errors.ts";
import type { StartWorkloadRequest, VolumeSpec } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { MANAGED_BY_LABEL, MANAGER, PLATFORM_LABEL, PLATFORM_MANAGER, WORKLOAD_ID_LABEL } from "./names.ts";
import { quoted, requireLabel, sortedEntries } from "./validate.ts";

export type Labels = Record<string, string>;

const PROPERTY_PREFIX = "label.";
const RESERVED_PREFIXES = ["agyn.io/", "agyn.dev/"];

/** Ruling 8: these say whose a Pod is and which network policy holds it; a caller may only repeat the platform's own value. */
const isReserved = (key: string, value: string): boolean =>
  key === MANAGED_BY_LABEL ||
  (RESERVED_PREFIXES.some((prefix) => key.startsWith(prefix)) &&
    !(key === PLATFORM_LABEL && value === PLATFORM_MANAGER));

function requireSettable(entries: readonly [string, string][], token: string): void {
  for (const [key, value] of entries) {
    if (isReserved(key, value)) throw invalid(`${token}: reserved label key ${quoted(key)}`);
    requireLabel(key, value, token);
  }
}

/** The labels of a workload's Secrets, and the first ones of its Pod. */
export const ownLabels = (workloadId: string): Labels => ({
  [MANAGED_BY_LABEL]: MANAGER,
  [WORKLOAD_ID_LABEL]: workloadId,
});

/**
 * The labels of the Pod (runner-api.md 6.2.2): ours, then `label.*` properties, then `labels`, the later winning.
 * Throws `invalid_label: <cause>`.
 */
export function podLabels(request: StartWorkloadRequest, workloadId: string): Labels {
  const fromProperties = sortedEntries(request.additionalProperties)
    .filter(([key]) => key.startsWith(PROPERTY_PREFIX))
    .map(([key, value]): [string, string] => [key.slice(PROPERTY_PREFIX.length), value]);
  const fromLabels = sortedEntries(request.labels);
  requireSettable(fromProperties, "invalid_label");
  requireSettable(fromLabels, "invalid_label");
  const ours = Object.entries(ownLabels(workloadId));
  return Object.fromEntries([...ours, [PLATFORM_LABEL, PLATFORM_MANAGER], ...fromProperties, ...fromLabels]);
}

/**
 * The labels of a new claim (runner-api.md 6.2.5): those of the Pod but for the workload id, which a claim outlives,
 * and the volume's own on top. Throws `invalid_volume_label: <cause>`.
 */
export function claimLabels(volume: VolumeSpec, ofPod: Labels): Labels {
  const own = sortedEntries(volume.labels);
  requireSettable(own, "invalid_volume_label");
  return Object.fromEntries([...Object.entries(ofPod).filter(([key]) => key !== WORKLOAD_ID_LABEL), ...own]);
}
