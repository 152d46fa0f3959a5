import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { sleep } from "../../src/time.ts";
import { id, podIn } from "../gateway/pods.ts";
import { fakeCompanion } from "../support/companion.ts";
import { FakeGateway, refused, type Script, TOKEN } from "../support/gateway.ts";
import { startMain } from "../support/main.ts";
import { until } from "../support/wait.ts";
import { PodApi } from "../watcher/pods.ts";

/*
 * What a gateway that is away, slow or refuses does to everything else: nothing. A runner process over a scripted API with
 * 200 Pods that change 20 times a second; InspectWorkload one at a time, the gateway well and ill in turns.
 * E2E_SECONDS is the time of each illness but the outage's 60 s: E2E_SECONDS=20 bun test ./tests/long/gateway.e2e.ts
 */
setDefaultTimeout(3_600_000);
const SECONDS = Number(process.env.E2E_SECONDS ?? 60);
const PODS = 200;
const CHANGES_A_SECOND = 20;

const refusing = (code: Code): Script => ({
  state: () => {
    throw refused("as the test wants it", code);
  },
});

const illnesses: [string, number, Script | "down"][] = [
  ["down", 60, "down"],
  ["slow, 5 s a call", SECONDS, { state: () => sleep(5_000).then(() => undefined) }],
  ["UNAVAILABLE", SECONDS, refusing(Code.Unavailable)],
  ["applied=false", SECONDS, { state: () => false }],
  ["PERMISSION_DENIED", SECONDS, refusing(Code.PermissionDenied)],
  ["UNIMPLEMENTED", SECONDS, refusing(Code.Unimplemented)],
];

const rssMiB = (pid: number) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

function kubeconfigFor(server: string): string {
  const path = join(mkdtempSync(join(tmpdir(), "gateway-")), "config");
  const config = {
    apiVersion: "v1",
    kind: "Config",
    "current-context": "c",
    contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
    clusters: [{ name: "c", cluster: { server, "insecure-skip-tls-verify": true } }],
    users: [{ name: "u", user: {} }],
  };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

const quantile = (values: readonly number[], share: number) =>
  [...values].sort((a, b) => a - b)[Math.ceil(values.length * share) - 1] ?? Number.NaN;

test.each(illnesses)("a gateway that is %s costs no call anything", async (name, seconds, illness) => {
  const api = new PodApi();
  await using server = await api.start();
  await using gateway = await FakeGateway.start();
  const put = (index: number, state: "ready" | "unready" | "failed") =>
    api.put(id(index), { status: podIn(state, id(index)).status ?? {} });
  for (let index = 0; index < PODS; index++) put(index, "ready");
  await using runner = startMain({
    KUBECONFIG: kubeconfigFor(server.access.server.origin),
    KUBE_NAMESPACE: "ns",
    GRPC_ADDR: "127.0.0.1:0",
    ZITI_ENABLED: "true",
    SERVICE_TOKEN: TOKEN,
    GATEWAY_ADDRESS: gateway.address,
    ZITI_COMPANION: fakeCompanion("serve").program,
  });
  await until("it has reported every Pod", () => gateway.record.size === PODS || undefined, 60_000);
  const [address] = runner.entries("gRPC server starting").map(({ addr }) => addr);
  const client = createClient(RunnerService, createGrpcTransport({ baseUrl: `http://${address}` }));

  // Pods come and go from Ready and fail at last, each its turn, all the time.
  let changes = 0;
  const churn = setInterval(() => {
    const turn = changes++;
    put(turn % PODS, Math.floor(turn / PODS) % 2 === 0 ? "unready" : "ready");
  }, 1000 / CHANGES_A_SECOND);
  const latencies = { well: [] as number[], ill: [] as number[] };
  const calls = async (kind: "well" | "ill", ms: number) => {
    for (const until = performance.now() + ms; performance.now() < until; ) {
      const at = performance.now();
      await client.inspectWorkload({ workloadId: id(Math.floor(Math.random() * PODS)) });
      latencies[kind].push(performance.now() - at);
      await sleep(2);
    }
  };
  await calls("well", 5_000);
  latencies.well = []; // warm by now
  await calls("well", 10_000);
  const before = rssMiB(runner.child.pid);
  if (illness === "down") await gateway.down();
  else gateway.script = illness;
  await calls("ill", (seconds * 1000) / 2);
  const middle = rssMiB(runner.child.pid);
  await calls("ill", (seconds * 1000) / 2);
  const after = rssMiB(runner.child.pid);
  clearInterval(churn);
  for (let index = 0; index < PODS; index++) put(index, index % 2 === 0 ? "ready" : "failed");
  if (illness === "down") await gateway.up();
  gateway.script = {};
  const ended = name === "UNIMPLEMENTED" || name === "PERMISSION_DENIED"; // for good, for those that were tried then
  const right = () =>
    Array.from({ length: PODS }, (_, index) => gateway.record.get(id(index))?.status).every(
      (status, index) => status === (index % 2 === 0 ? "RUNNING" : "FAILED"),
    );
  const back = performance.now();
  if (!ended) await until("the platform knows every state", () => right() || undefined, 600_000);
  const backAfter = ((performance.now() - back) / 1000).toFixed(1);
  await calls("well", 10_000);
  const ratio = (share: number) => quantile(latencies.ill, share) / quantile(latencies.well, share);
  console.log(
    `${name}: InspectWorkload p50 ${quantile(latencies.well, 0.5).toFixed(2)} ms well, ${quantile(latencies.ill, 0.5).toFixed(2)} ms ill ` +
      `(ratio ${ratio(0.5).toFixed(2)}; of p95 ${ratio(0.95).toFixed(2)}), ${latencies.ill.length} calls; ` +
      `memory ${before.toFixed(0)}, ${middle.toFixed(0)}, ${after.toFixed(0)} MiB; ` +
      (ended ? "no more reports" : `right ${backAfter} s after it was back`),
  );
  expect(ratio(0.5)).toBeLessThan(1.5);
  expect(after - before).toBeLessThan(16);
});
