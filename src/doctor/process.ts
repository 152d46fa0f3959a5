import { readFileSync } from "node:fs";
import { loadConfig } from "../config.ts";
import { errorText } from "../log.ts";
import { companionProgram } from "../ziti.ts";
import { type Check, type Finding, fail, ok, skip, warn } from "./check.ts";
import type { Exam } from "./exam.ts";

const MEBIBYTE = 1024 * 1024;
/** An idle runner takes some 100 MiB, and each 1,000 workloads some 10 more (docs/performance.md). */
const MEMORY = 256 * MEBIBYTE;
/** An execution holds two sockets, a followed log too. */
const OPEN_FILES = 1024;

/** Checks of the process and its surroundings; none of them asks the cluster. */
export const processChecks: readonly Check[] = [
  { id: "config", needs: [], run: config },
  { id: "limits", needs: [], run: limits },
  { id: "companion", needs: ["config"], run: companion },
];

function config(exam: Exam): Finding {
  exam.hide(exam.env.SERVICE_TOKEN?.trim() ?? ""); // also when the configuration is wrong
  try {
    exam.config = loadConfig(exam.env);
  } catch (error) {
    return fail(errorText(error), "correct these variables (chart: env, extraEnvVars); docs: README.md, Configuration");
  }
  const { platform, namespace, docker, podTemplate, allowedLinuxCapabilities } = exam.config;
  if (platform !== undefined) exam.hide(platform.serviceToken.reveal());
  if (platform !== undefined && allowedLinuxCapabilities?.includes("NET_ADMIN") === false)
    return warn(
      "ALLOWED_LINUX_CAPABILITIES lacks NET_ADMIN, which the platform asks for its network sidecar",
      "add NET_ADMIN to ALLOWED_LINUX_CAPABILITIES",
    );
  const told = [
    `workloads in ${namespace}`,
    platform === undefined ? "no platform" : `platform at ${platform.gatewayAddress}`,
    `docker ${docker ?? "not offered"}`,
    ...(podTemplate === undefined ? [] : ["with a Pod template"]),
  ];
  return ok(told.join(", "));
}

/** What the kernel and the cgroup give the process. */
function limits(): Finding {
  const files = Number(/^Max open files +(\d+)/m.exec(readOr("/proc/self/limits", ""))?.[1] ?? Number.NaN);
  const memory = Number(
    readOr("/sys/fs/cgroup/memory.max", readOr("/sys/fs/cgroup/memory/memory.limit_in_bytes", "")) || Number.NaN,
  );
  const bounded = Number.isFinite(memory) && memory < Number.MAX_SAFE_INTEGER;
  const seen = `${Number.isNaN(files) ? "any number of" : files} open files, ${bounded ? `${Math.floor(memory / MEBIBYTE)} MiB of memory` : "no limit of memory"}`;
  if (files < OPEN_FILES)
    return warn(
      `${seen}: every execution and followed log takes two`,
      `raise the limit of open files to ${OPEN_FILES} or more (container runtime, ulimit -n)`,
    );
  if (bounded && memory < MEMORY)
    return warn(seen, "resources.limits.memory=256Mi or more, by the number of workloads (docs/performance.md)");
  return ok(seen);
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return otherwise; // another kernel, or another version of cgroups
  }
}

function companion({ settings: { platform } }: Exam): Finding {
  if (platform === undefined) return skip("ZITI_ENABLED is not true");
  try {
    return ok(companionProgram(platform.companion));
  } catch (error) {
    return fail(
      errorText(error),
      "use the image with the companion (the one without is built with --target runner), or name the program in ZITI_COMPANION",
    );
  }
}
