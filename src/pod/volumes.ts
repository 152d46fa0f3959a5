import { invalid } from "../errors.ts";
import { VolumeKind, type VolumeSpec } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Claim, Volume } from "../kube/types.ts";
import { claimLabels, type Labels } from "./labels.ts";
import { INLINE_FILES_VOLUME } from "./names.ts";
import { blank, dnsLabelProblems, invalidText, requireNone, trim } from "./validate.ts";

export interface VolumeSettings {
  readonly namespace: string;
  /** The StorageClass of new claims; left out of them when unset, so that the cluster's default holds. */
  readonly storageClass?: string;
  /** A Kubernetes quantity. */
  readonly storageSize: string;
}

export interface Volumes {
  /** In request order; the names that containers may mount. */
  readonly volumes: readonly Volume[];
  /** To be found or created, each name once, in request order. */
  readonly claims: readonly NamedClaim[];
}

/**
 * The volumes of the Pod and their claims (runner-api.md 6.2.5). Labels of a named volume are checked whether or not its
 * claim exists already: that is not known here, and nothing may be written before everything is checked (ruling 6).
 * When there are inline files, their volume's name is taken.
 */
export function volumesFor(
  specs: readonly VolumeSpec[],
  parts: { labels: Labels; inlineFiles: boolean; settings: VolumeSettings },
): Volumes {
  const names = new Set(parts.inlineFiles ? [INLINE_FILES_VOLUME] : []);
  const claims = new Map<string, NamedClaim>();
  const volumes: Volume[] = [];
  for (const spec of specs) {
    const name = trim(spec.name);
    if (name === "") throw invalid("volume_name_required");
    requireNone(dnsLabelProblems(name), "invalid_volume_name");
    if (names.has(name)) throw invalidText("duplicate_volume_name", name);
    names.add(name);
    if (spec.kind === VolumeKind.EPHEMERAL) {
      volumes.push({ name, emptyDir: {} });
    } else if (spec.kind === VolumeKind.NAMED) {
      const claim = claimFor(spec, name, parts);
      const claimName = claim.metadata.name;
      volumes.push({ name, persistentVolumeClaim: { claimName } });
      if (!claims.has(claimName)) claims.set(claimName, claim); // two volumes may share a claim: the first one's labels hold
    } else {
      throw invalid("volume_kind_required");
    }
  }
  return { volumes, claims: [...claims.values()] };
}

export type NamedClaim = ReturnType<typeof claimFor>;

function claimFor(spec: VolumeSpec, volumeName: string, parts: { labels: Labels; settings: VolumeSettings }) {
  const name = blank(spec.persistentName) ? volumeName : trim(spec.persistentName);
  requireNone(dnsLabelProblems(name), "invalid_pvc_name");
  const labels = claimLabels(spec, parts.labels);
  const { storageClass, size } = storageFor(spec, parts.settings);
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name, namespace: parts.settings.namespace, labels },
    spec: {
      accessModes: ["ReadWriteOnce"],
      ...(storageClass === undefined ? {} : { storageClassName: storageClass }),
      resources: { requests: { storage: size } },
    },
  } satisfies Claim;
}

/**
 * What storage a new claim asks for: the process-wide settings. The volume is not looked at yet: the protobuf has no
 * field for a class of the catalog or a size (runner-api.md 6.2.5); this is where they will be looked up.
 */
function storageFor(_volume: VolumeSpec, settings: VolumeSettings): { storageClass: string | undefined; size: string } {
  return { storageClass: settings.storageClass, size: settings.storageSize };
}
