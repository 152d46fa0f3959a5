/**
 * Start-up and idle memory of the runner as it ships, `dist/k8s-runner` (`bun run compile`) in the image's environment, at each
 * number of workloads given (default: 0 100 1000). Prints a line of JSON for each:
 * `servingMs` from the start of the process until its port is open, `syncedMs` until it has told a caller all of its workloads
 * (medians and greatest of STARTS), `idleMib` what is resident some seconds later.
 * The cluster is found as the runner finds it. The Pods are planned as StartWorkload does, for a scheduler that does not exist,
 * so that none of them runs; they are made in KUBE_NAMESPACE (default startup), which is removed at the end where it was made here.
 */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService, StartWorkloadRequestSchema } from "../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { clusterAccess } from "../src/kube/access.ts";
import { Kube } from "../src/kube/client.ts";
import { createLog } from "../src/log.ts";
import { planWorkload } from "../src/pod/spec.ts";
import { sleep } from "../src/time.ts";
import { ENGINE } from "../tests/support/process.ts";

const STARTS = 7;
const IDLE_MS = 4_000;
const CREATORS = 8;
const BINARY = "dist/k8s-runner";
/** As the image has it. */
const IMAGE_ENV = { DO_NOT_TRACK: "1", ...ENGINE };
const NOWHERE = "no-such-scheduler";

const access = clusterAccess(process.env);
const namespace = process.env.KUBE_NAMESPACE || "startup";
const kube = new Kube({ access, namespace, log: createLog({ level: "error" }) });
const sizes = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [0, 100, 1_000];

/** Whether it was there before. */
async function makeNamespace(): Promise<boolean> {
  const answer = await ask("POST", "/api/v1/namespaces", { metadata: { name: namespace } });
  if (!answer.ok && answer.status !== 409) throw new Error(await answer.text());
  return answer.status === 409;
}

async function ask(method: string, path: string, body?: object): Promise<Response> {
  const { headers, tls } = await access.credentials();
  return fetch(new URL(path, access.server), {
    method,
    headers: { ...headers, "content-type": "application/json" },
    tls,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

const names: string[] = [];

async function grow(size: number): Promise<void> {
  let left = size - names.length;
  const creators = Array.from({ length: CREATORS }, async () => {
    while (left-- > 0) {
      const workloadId = randomUUID();
      const request = create(StartWorkloadRequestSchema, {
        workloadId,
        labels: { workload_key: workloadId },
        main: { image: "agent:1", cmd: ["run"], env: [{ name: "TOKEN", value: "x".repeat(100) }] },
        sidecars: [{ image: "tunnel:1" }],
      });
      const images = { rootless: "docker:27-dind-rootless", dind: "docker:27-dind" };
      const settings = { namespace, storageSize: "1Gi", dockerImages: images, runtimeDefaultSeccomp: false };
      const { pod } = planWorkload(request, { ...settings, newWorkloadId: workloadId, nonce: randomUUID() });
      await kube.pods.create({ ...pod, spec: { containers: [], ...pod.spec, schedulerName: NOWHERE } });
      names.push(pod.metadata?.name ?? "");
    }
  });
  await Promise.all(creators);
}

/** One start, to its first list; what is resident is looked at after `idleMs`. */
async function start(workloads: number, idleMs: number) {
  const env = { ...process.env, ...IMAGE_ENV, KUBE_NAMESPACE: namespace, GRPC_ADDR: "127.0.0.1:0", LOG_LEVEL: "info" };
  const since = performance.now();
  const child = Bun.spawn([BINARY], { env, stdout: "ignore", stderr: "pipe" });
  try {
    const address = await addressOf(child.stderr);
    const servingMs = performance.now() - since;
    const client = createClient(RunnerService, createGrpcTransport({ baseUrl: `http://${address}` }));
    const { workloads: told } = await client.listWorkloads({});
    const syncedMs = performance.now() - since;
    if (told.length !== workloads) throw new Error(`${told.length} workloads instead of ${workloads}`);
    await sleep(idleMs);
    const kib = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]);
    return { servingMs, syncedMs, idleMib: kib / 1024 };
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

async function addressOf(stderr: ReadableStream<Uint8Array>): Promise<string> {
  let log = "";
  for await (const data of stderr) {
    log += Buffer.from(data).toString();
    const address = /"addr":"([^"]+)"/.exec(log)?.[1];
    if (address !== undefined) return address;
  }
  throw new Error(`the runner did not start: ${log}`);
}

const wasThere = await makeNamespace();
try {
  for (const size of sizes) {
    await grow(size);
    await start(size, 0); // the file and the cluster's cache are warm from here on
    const starts: Awaited<ReturnType<typeof start>>[] = [];
    for (let index = 0; index < STARTS; index++) starts.push(await start(size, index === 0 ? IDLE_MS : 0));
    const of = (name: "servingMs" | "syncedMs") => starts.map((each) => each[name]).toSorted((a, b) => a - b);
    const median = (values: readonly number[]) => Math.round(values[Math.floor(values.length / 2)] ?? Number.NaN);
    const most = (values: readonly number[]) => Math.round(values.at(-1) ?? Number.NaN);
    const [serving, synced] = [of("servingMs"), of("syncedMs")];
    console.log(
      JSON.stringify({
        row: "startup",
        workloads: size,
        servingMs: median(serving),
        servingMostMs: most(serving),
        syncedMs: median(synced),
        syncedMostMs: most(synced),
        idleMib: Math.round(starts[0]?.idleMib ?? Number.NaN),
      }),
    );
  }
} finally {
  for (const name of names) await kube.pods.delete(name, { gracePeriodSeconds: 0 });
  if (!wasThere) await ask("DELETE", `/api/v1/namespaces/${namespace}`);
}
