import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Gate } from "./gate.ts";
import { startMain } from "./main.ts";

/** How JavaScriptCore is set by `bun run start` and the image (docs/performance.md, Memory, and Without the last compiler). */
export const ENGINE = {
  BUN_JSC_forceRAMSize: "134217728",
  BUN_JSC_minEdenToOldGenerationRatio: "0.15",
  BUN_JSC_useFTLJIT: "0",
};

/** The runner as a process of its own behind the gate: one that can be ended, and whose memory is its own. */
export async function runnerProcess({ url }: Gate, namespace: string, more: Record<string, string> = {}) {
  const directory = mkdtempSync(join(tmpdir(), "runner-process-"));
  const kubeconfig = join(directory, "config");
  const cluster = { server: url, "insecure-skip-tls-verify": true };
  const config = {
    apiVersion: "v1",
    kind: "Config",
    "current-context": "c",
    contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
    clusters: [{ name: "c", cluster }],
    users: [{ name: "u", user: {} }],
  };
  writeFileSync(kubeconfig, JSON.stringify(config));
  const main = startMain({
    KUBECONFIG: kubeconfig,
    KUBE_NAMESPACE: namespace,
    GRPC_ADDR: "127.0.0.1:0",
    PVC_STORAGE_SIZE: "1Mi",
    ...ENGINE,
    ...more,
  });
  const { addr } = await main.line("gRPC server starting");
  const { child } = main;
  return {
    baseUrl: `http://${addr}`,
    pid: child.pid,
    client: createClient(RunnerService, createGrpcTransport({ baseUrl: `http://${addr}` })),
    kill: () => child.kill("SIGKILL"),
    /** As a kubelet does it, and what is told in the log then. */
    async terminate(): Promise<void> {
      child.kill("SIGTERM");
      await main.line("shutting down");
    },
    /** The exit status. */
    exited: child.exited,
    log: main.text,
    async [Symbol.asyncDispose]() {
      await main[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true });
    },
  };
}
