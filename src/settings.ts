import type { Config } from "./config.ts";
import type { PlanSettings } from "./pod/spec.ts";

/** What of the configuration every plan of a workload depends on. */
export function planSettingsFrom(config: Config): Omit<PlanSettings, "newWorkloadId" | "nonce"> {
  const { storageClass, docker, allowedLinuxCapabilities, podTemplate } = config;
  return {
    namespace: config.namespace,
    storageSize: config.storageSize,
    dockerImages: config.dockerImages,
    runtimeDefaultSeccomp: config.runtimeDefaultSeccomp,
    ...(podTemplate === undefined ? {} : { template: podTemplate }),
    ...(storageClass === undefined ? {} : { storageClass }),
    ...(docker === undefined ? {} : { docker }),
    ...(allowedLinuxCapabilities === undefined ? {} : { allowedLinuxCapabilities }),
  };
}
