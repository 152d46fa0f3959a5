import { readFileSync } from "node:fs";
import { loadConfig } from "../config.ts";
import { Listener } from "../listener.ts";
import { createLog, errorText } from "../log.ts";
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
  { id: "address", needs: ["config"], run: address },
  { id: "companion", needs: ["config"], run: companion },
];

function config(exam: Exam): Finding {
  for (const key of ["SERVICE_TOKEN"]) exam.hide(exam.env[key]?.trim() ?? "");
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

/** GRPC_ADDR can be served, or a runner serves there already: in the runner's own Pod it does. */
async function address({ settings, patienceMs, signal }: Exam): Promise<Finding> {
  const { grpcAddress } = settings;
  const listener = new Listener({ handle: (_, response) => void response.end(), log: createLog({ level: "silent" }) });
  try {
    await listener.listen(grpcAddress);
    return ok(`${grpcAddress} can be bound`);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error); // its cause is in it
    if (!/EADDRINUSE|in use/.test(text)) return fail(text, "correct GRPC_ADDR: host:port or :port");
    const answer = await ready(grpcAddress, AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]));
    if (answer === "a runner") return ok(`a runner answers at ${grpcAddress}`);
    return fail(`${grpcAddress} is taken by ${answer}`, "end that process, or give GRPC_ADDR another port");
  } finally {
    listener.destroy();
  }
}

/** Who answers there. A runner with TLS that wants a certificate of its callers cannot be told from others, and counts as one. */
async function ready(grpcAddress: string, signal: AbortSignal): Promise<string> {
  const at = grpcAddress.replace(/^(0\.0\.0\.0|\[::\])?:/, "127.0.0.1:");
  for (const scheme of ["http", "https"]) {
    try {
      const response = await fetch(`${scheme}://${at}/agynio.api.runner.v1.RunnerService/Ready`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: "{}",
        signal,
        tls: { rejectUnauthorized: false },
      });
      const answer: unknown = await response.json();
      return response.ok && typeof answer === "object" && answer !== null && "status" in answer
        ? "a runner"
        : `something that is no runner (HTTP ${response.status})`;
    } catch {
      // Another protocol: the next one is tried, and at the end nobody has answered.
    }
  }
  return "something that does not answer as a runner";
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
