import { writeFileSync } from "node:fs";
import type { Access } from "./kube/access.ts";

/** `step: cause`, as operators know the last line of a process that could not start (process.md 3.1). */
function during<T>(step: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new Error(step, { cause: error });
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

/** `k8s-runner` serves; with a command it does that instead (cli/). Neither loads what only the other needs. */
async function main(words: readonly string[]): Promise<number> {
  if (words.length > 0) return (await import("./cli/cli.ts")).runCommand(words, process.env);
  await serve();
  return 0;
}

async function serve(): Promise<void> {
  dumpNoMemory();
  const stopping = Promise.withResolvers<void>();
  let told = false;
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.on(signal, () => {
      if (told) process.exit(1); // a second one, of either, ends at once
      told = true;
      stopping.resolve();
    });
  const [{ startApp }, { loadConfig }, { clusterAccess }, { createLog }] = await Promise.all([
    import("./app.ts"),
    import("./config.ts"),
    import("./kube/access.ts"),
    import("./log.ts"),
  ]);
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
  (status) => process.exit(status),
  async (error: unknown) => {
    const { errorText } = await import("./log.ts");
    console.error(`k8s-runner failed: ${errorText(error)}`);
    process.exit(1);
  },
);
