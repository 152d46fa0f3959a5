import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Gate } from "./gate.ts";

/** As `bun run start` and the image have it (docs/performance.md, Memory). */
export const COLLECTOR = { BUN_JSC_forceRAMSize: "134217728" };

/** The environment of a runner that reaches its cluster through the gate; `directory` holds its kubeconfig. */
export function environmentFor({ url }: Gate, namespace: string) {
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
  const env = {
    KUBECONFIG: kubeconfig,
    KUBE_NAMESPACE: namespace,
    GRPC_ADDR: "127.0.0.1:0",
    PVC_STORAGE_SIZE: "1Mi",
    ...COLLECTOR,
  };
  return { env, directory };
}

/** The runner as a process of its own behind the gate: one that can be killed, and whose memory is its own. */
export async function runnerProcess(gate: Gate, namespace: string) {
  const { env, directory } = environmentFor(gate, namespace);
  const child = Bun.spawn([process.execPath, "src/main.ts"], { env, stdout: "ignore", stderr: "pipe" });
  let log = "";
  let address: string | undefined;
  for await (const data of child.stderr) {
    log += Buffer.from(data).toString();
    address = /"addr":"([^"]+)"/.exec(log)?.[1];
    if (address !== undefined) break;
  }
  if (address === undefined) throw new Error(`the runner did not start: ${log}`);
  return {
    baseUrl: `http://${address}`,
    pid: child.pid,
    client: createClient(RunnerService, createGrpcTransport({ baseUrl: `http://${address}` })),
    kill: () => child.kill("SIGKILL"),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
      rmSync(directory, { recursive: true });
    },
  };
}
