import { admissionChecks } from "./admission.ts";
import { apiChecks } from "./api.ts";
import type { Check } from "./check.ts";
import { clusterChecks } from "./cluster.ts";
import { extraChecks } from "./extras.ts";
import { gatewayChecks } from "./gateway.ts";
import { namespaceChecks } from "./namespace.ts";
import { portChecks } from "./port.ts";
import { processChecks } from "./process.ts";
import { rightsChecks } from "./rights.ts";
import { workloadChecks } from "./workload.ts";

/** All checks, in the order in which they are made: what a check needs stands before it. */
export const CHECKS: readonly Check[] = [
  ...processChecks,
  ...portChecks,
  ...gatewayChecks,
  ...apiChecks,
  ...namespaceChecks,
  ...rightsChecks,
  ...admissionChecks,
  ...clusterChecks,
  ...workloadChecks,
  ...extraChecks,
];
