/**
 * The cost of thousands of workloads: first sync, memory and reads of the runner as it ships, at each number of Pods given
 * (default: 100 1000 10000), and how soon a change of status is told. The cluster is found as the runner finds it; its
 * Pods should only pretend to run, as those of kwok do, on nodes labelled type=kwok. They are made in KUBE_NAMESPACE
 * (default scale), which is removed at the end. Prints rows of a Markdown table. The client runs on Bun, in a process
 * apart from the runner's; its own cost is in the latencies.
 */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { create, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  ListWorkloadsResponseSchema,
  RunnerService,
  StartWorkloadRequestSchema,
} from "../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { clusterAccess } from "../src/kube/access.ts";
import { Kube } from "../src/kube/client.ts";
import { createLog } from "../src/log.ts";
import { podName } from "../src/pod/names.ts";
import { planWorkload } from "../src/pod/spec.ts";
import { sleep } from "../src/time.ts";

const access = clusterAccess(process.env);
const namespace = process.env.KUBE_NAMESPACE || "scale";
const kube = new Kube({ access, namespace, log: createLog({ level: "error" }) });
const sizes = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [100, 1_000, 10_000];
/** Pods that share a label, for each label: the hits of a search. The first is measured in full. */
const HITS = [10, 100, 1_000];
const CREATORS = 16;
const CHANGES_PER_SECOND = 100;
const CHANGE_SECONDS = 10;
const NEVER_MS = 30_000;

async function ask(method: string, path: string, body?: object): Promise<unknown> {
  const { headers, tls } = await access.credentials();
  const contentType = method === "PATCH" ? "application/merge-patch+json" : "application/json";
  const response = await fetch(new URL(path, access.server), {
    method,
    headers: { ...headers, "content-type": contentType },
    tls,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!response.ok && response.status !== 409) throw new Error(`${method} ${path}: ${await response.text()}`);
  return response.json();
}

const ids: string[] = [];

/** Makes workloads as StartWorkload plans them, each on a node at once, until there are so many that run. */
async function grow(size: number, nodes: readonly string[]): Promise<void> {
  const makers = Array.from({ length: CREATORS }, async () => {
    while (ids.length < size) {
      const index = ids.push(randomUUID()) - 1;
      const workloadId = ids[index] ?? "";
      const groups = HITS.map((hits) => [`of${hits}`, `g${Math.floor(index / hits)}`]);
      const labels = { workload_key: workloadId, ...Object.fromEntries(groups) };
      const request = create(StartWorkloadRequestSchema, {
        workloadId,
        labels,
        main: { image: "agent:1", cmd: ["run"], env: [{ name: "TOKEN", value: "x".repeat(100) }] },
        sidecars: [{ image: "tunnel:1" }],
      });
      const images = { rootless: "docker:27-dind-rootless", dind: "docker:27-dind" };
      const settings = { namespace, storageSize: "1Gi", dockerImages: images, runtimeDefaultSeccomp: false };
      const { pod } = planWorkload(request, { ...settings, newWorkloadId: workloadId, nonce: randomUUID() });
      const node = nodes[index % nodes.length] ?? "";
      await kube.pods.create({ ...pod, spec: { containers: [], ...pod.spec, nodeName: node } });
    }
  });
  await Promise.all(makers);
  for (;;) {
    const { items } = await kube.pods.listAll({});
    if (items.filter(({ status }) => status?.phase === "Running").length >= size) return;
    await sleep(1_000);
  }
}

const rssMiB = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

/** The executable, once it has the first list. */
async function startRunner() {
  const env = { ...process.env, KUBE_NAMESPACE: namespace, GRPC_ADDR: "127.0.0.1:0", LOG_LEVEL: "info" };
  const child = Bun.spawn(["dist/k8s-runner"], { env, stdout: "ignore", stderr: "pipe" });
  let log = "";
  const find = (pattern: RegExp) => pattern.exec(log)?.[1];
  const reading = (async () => {
    for await (const data of child.stderr) log += Buffer.from(data).toString();
  })();
  while (find(/"ms":(\d+)[^\n]*cache synced/) === undefined) {
    if (child.exitCode !== null) throw new Error(`the runner did not start: ${log}`);
    await sleep(5);
  }
  const baseUrl = `http://${find(/"addr":"([^"]+)"/)}`;
  return {
    pid: child.pid,
    syncMs: Number(find(/"ms":(\d+)[^\n]*cache synced/)),
    client: createClient(RunnerService, createGrpcTransport({ baseUrl })),
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.exited;
      await reading;
    },
  };
}

const quantile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN;

async function latencies(calls: number, call: (index: number) => Promise<unknown>): Promise<number[]> {
  const all: number[] = [];
  for (let index = -Math.ceil(calls / 5); index < calls; index++) {
    const since = performance.now();
    await call(Math.abs(index));
    if (index >= 0) all.push(performance.now() - since); // those before warm up
  }
  return all;
}

type Client = Awaited<ReturnType<typeof startRunner>>["client"];

/** From the answer to a write of a Pod's status until InspectWorkload tells it, at a hundred writes a second. */
async function visibility(client: Client, size: number): Promise<number[]> {
  const all: number[] = [];
  const last = new Map<string, Promise<void>>(); // two writes of one Pod come one after the other
  const begun = performance.now();
  const once = async (workloadId: string, count: number) => {
    const path = `/api/v1/namespaces/${namespace}/pods/${podName(workloadId)}/status`;
    const { status } = await kube.pods.get(podName(workloadId));
    const containerStatuses = status?.containerStatuses?.map((each) => ({ ...each, restartCount: count }));
    await ask("PATCH", path, { status: { containerStatuses } });
    const since = performance.now();
    for (;;) {
      const { containers } = await client.inspectWorkload({ workloadId });
      if (containers.every(({ restartCount }) => restartCount === count)) break;
      if (performance.now() - since > NEVER_MS) throw new Error(`change ${count} of ${workloadId} is never told`);
      await sleep(1);
    }
    all.push(performance.now() - since);
  };
  for (let change = 1; change <= CHANGES_PER_SECOND * CHANGE_SECONDS; change++) {
    await sleep(Math.max(0, begun + (change * 1_000) / CHANGES_PER_SECOND - performance.now()));
    const workloadId = ids[change % size] ?? "";
    last.set(
      workloadId,
      (last.get(workloadId) ?? Promise.resolve()).then(() => once(workloadId, change)),
    );
  }
  await Promise.all(last.values());
  return all;
}

async function measure(size: number, idleMiB: number): Promise<string> {
  await using runner = await startRunner();
  const { client, pid, syncMs } = runner;
  const id = (index: number) => ids[(index * 7919) % size] ?? "";
  const inspect = await latencies(2_000, (index) => client.inspectWorkload({ workloadId: id(index) }));
  const finds: number[][] = [];
  for (const hits of HITS.filter((each) => each <= size)) {
    const find = async (index: number) => {
      const labels = { [`of${hits}`]: `g${index % (size / hits)}` };
      const { targetIds } = await client.findWorkloadsByLabels({ labels, all: true });
      if (targetIds.length !== hits) throw new Error(`${targetIds.length} hits`);
    };
    finds.push(await latencies(500, find));
  }
  const [find = [], ...wider] = finds;
  let bytes = 0;
  const list = await latencies(40, async () => {
    const answer = await client.listWorkloads({});
    if (answer.workloads.length !== size) throw new Error(`${answer.workloads.length} listed`);
    bytes = toBinary(ListWorkloadsResponseSchema, answer).length;
  });
  const quietMiB = rssMiB(pid);
  const seen = await visibility(client, size);
  const busyMiB = rssMiB(pid);
  const ms = (value: number) => `${value.toFixed(2)} ms`;
  return [
    size,
    `${syncMs} ms`,
    `+${(quietMiB - idleMiB).toFixed(0)} MiB`,
    `+${(busyMiB - idleMiB).toFixed(0)} MiB`,
    ms(quantile(inspect, 0.5)),
    ms(quantile(inspect, 0.99)),
    ms(quantile(find, 0.5)),
    ms(quantile(find, 0.99)),
    ...HITS.slice(1).map((_, index) => (wider[index] === undefined ? "" : ms(quantile(wider[index], 0.5)))),
    ms(quantile(list, 0.5)),
    `${(bytes / 1024).toFixed(0)} KiB`,
    ms(quantile(seen, 0.5)),
    ms(quantile(seen, 0.99)),
  ].join(" | ");
}

/** A runner of no workload, after as many calls as the others have answered. */
async function idleMiB(): Promise<number> {
  await using runner = await startRunner();
  await latencies(2_000, () => runner.client.ready({}));
  return rssMiB(runner.pid);
}

await ask("POST", "/api/v1/namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } });
try {
  const { items } = (await ask("GET", "/api/v1/nodes?labelSelector=type%3Dkwok")) as {
    items: { metadata: { name: string } }[];
  }; // the API's own shape
  const nodes = items.map(({ metadata }) => metadata.name);
  const idle = await idleMiB();
  console.log(`idle: ${idle.toFixed(0)} MiB`);
  console.log(
    "Pods | First sync | Memory | after changes | Inspect p50 | p99 | Find, 10 hits, p50 | p99 | 100 hits p50 | 1,000 hits p50 | ListWorkloads p50 | its size | visible p50 | p99",
  );
  for (const size of sizes) {
    await grow(size, nodes);
    console.log(await measure(size, idle));
  }
} finally {
  await ask("DELETE", `/api/v1/namespaces/${namespace}`);
}
