import { writeFileSync } from "node:fs";
import { startApp } from "./app.ts";
import { loadConfig } from "./config.ts";
import { type Access, clusterAccess } from "./kube/access.ts";
import { createLog, errorText } from "./log.ts";

/** `step: cause`, as operators know the last line of a process that could not start (process.md 3.1). */
function during<T>(step: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new Error(`${step}: ${errorText(error)}`);
  }
}

/** Neither ours nor a child's core dump holds any memory: tokens and keys are in it (core(5); inherited by children). */
function dumpNoMemory(): void {
  try {
    writeFileSync("/proc/self/coredump_filter", "0");
  } catch {
    // Not Linux, or a kernel without core dumps.
  }
}

/** `k8s-runner` serves; `k8s-runner check-config` reads the configuration, says what is wrong with it, and does no more. */
async function main([command, ...rest]: readonly string[]): Promise<void> {
  if (command === "check-config" && rest.length === 0) {
    during("load config", () => loadConfig(process.env));
    console.log("the configuration is good");
    return;
  }
  if (command !== undefined)
    throw new Error(`unknown command "${[command, ...rest].join(" ")}": known is check-config`);
  dumpNoMemory();
  const stopping = Promise.withResolvers<void>();
  let told = false;
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.on(signal, () => {
      if (told) process.exit(1); // a second one, of either, ends at once
      told = true;
      stopping.resolve();
    });
  const config = during("load config", () => loadConfig(process.env));
  const log = createLog({ level: config.logLevel });
  const access: Access = during("init kube client", () => clusterAccess(process.env));
  log.info(
    { caller: "main", source: access.source, server: access.server.origin, namespace: config.namespace },
    "cluster access",
  );
  const app = await startApp({ config, access, log });
  const failure = await Promise.race([stopping.promise, app.failed]);
  if (failure !== undefined) {
    // Quickly: Kubernetes starts it anew. What it had to say of its end is told already.
    await app.close(0).catch(() => undefined);
    throw failure;
  }
  log.info({ caller: "main" }, "shutting down");
  await app.close(config.shutdownGraceMs);
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(`k8s-runner failed: ${errorText(error)}`);
    process.exit(1);
  },
);
