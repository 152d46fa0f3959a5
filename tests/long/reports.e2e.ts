import { expect, setDefaultTimeout, test } from "bun:test";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { MANAGED_SELECTOR, workloadIdOf } from "../../src/pod/names.ts";
import { startBackend } from "../support/backend.ts";
import { fakeCompanion } from "../support/companion.ts";
import { FakeGateway, TOKEN } from "../support/gateway.ts";
import { startMain } from "../support/main.ts";
import { refusal, until } from "../support/wait.ts";

/*
 * From a Pod that is Ready to the report that the gateway receives, on a real cluster with the kubelet's own Pods:
 * E2E_KUBECONFIG=... E2E_NAMESPACE=... bun test ./tests/long/reports.e2e.ts
 * E2E_PODS says how many (default 200). Ready is when a watch of this process, beside the runner's own, hears of it.
 */
setDefaultTimeout(3_600_000);
const PODS = Number(process.env.E2E_PODS ?? 200);
const KUBECONFIG = process.env.E2E_KUBECONFIG ?? "";

test.skipIf(KUBECONFIG === "")(`${PODS} Pods: p95 from Ready to the report below 200 ms`, async () => {
  await using backend = await startBackend();
  await using gateway = await FakeGateway.start();
  await using runner = startMain({
    KUBECONFIG,
    KUBE_NAMESPACE: backend.namespace,
    GRPC_ADDR: "127.0.0.1:0",
    ZITI_ENABLED: "true",
    SERVICE_TOKEN: TOKEN,
    GATEWAY_ADDRESS: gateway.address,
    ZITI_COMPANION: fakeCompanion("serve").program,
  });
  const started = () => runner.entries("gRPC server starting").map(({ addr }) => addr);
  const [address] = await until("it serves on both listeners", () => (started().length === 2 ? started() : undefined));
  const client = createClient(RunnerService, createGrpcTransport({ baseUrl: `http://${address}` }));

  const readyAt = new Map<string, number>();
  const watching = new AbortController();
  const { version: resourceVersion } = await backend.admin.pods.listAll({ labelSelector: MANAGED_SELECTOR });
  const watch = (async () => {
    const { signal } = watching;
    const options = { labelSelector: MANAGED_SELECTOR, resourceVersion, timeoutSeconds: 3_600, signal };
    for await (const { object } of backend.admin.pods.watch(options)) {
      const ready = object.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True");
      const id = workloadIdOf(object);
      if (ready && !readyAt.has(id)) readyAt.set(id, performance.now());
    }
  })().catch((error: unknown) => {
    if (!watching.signal.aborted) throw error;
  });

  const ids: string[] = [];
  try {
    const main = { image: "busybox:1.36", entrypoint: "/bin/sleep", cmd: ["600"] };
    for (let index = 0; index < PODS; index++) ids.push((await client.startWorkload({ main })).id);
    await until("every Pod is reported", () => ids.every((id) => gateway.record.has(id)) || undefined, 900_000);
    const waits = ids.map((id) => (gateway.of(id)[0]?.at ?? Number.NaN) - (readyAt.get(id) ?? Number.NaN));
    waits.sort((a, b) => a - b);
    const at = (share: number) => Math.round(waits[Math.ceil(waits.length * share) - 1] ?? Number.NaN);
    console.log(`${waits.length} Pods, Ready to report: p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, most ${at(1)} ms`);
    expect(waits.length).toBe(PODS);
    expect(at(0.95)).toBeLessThan(200);
    expect(new Set(ids.map((id) => gateway.of(id).length))).toEqual(new Set([1])); // each once
  } finally {
    for (const workloadId of ids) await client.removeWorkload({ workloadId, force: true });
    const isGone = async (workloadId: string) =>
      (await refusal(client.inspectWorkload({ workloadId })).catch(() => undefined))?.code === "NotFound";
    for (const id of ids) await until("it is gone", async () => (await isGone(id)) || undefined, 300_000);
    watching.abort();
    await watch;
  }
  expect(gateway.reports.filter(({ status }) => status !== "RUNNING")).toEqual([]); // a stop is no failure
});
