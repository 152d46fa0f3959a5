import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type App, startApp } from "../src/app.ts";
import { loadConfig } from "../src/config.ts";
import { type ExecRequestSchema, RunnerService, VolumeKind } from "../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { type Access, clusterAccess } from "../src/kube/access.ts";
import { createLog } from "../src/log.ts";

/*
 * The runner's main job in one go: `bun run demo`. A cluster (the embedded one, or with --cluster that of a kubeconfig), the
 * runner as it ships, and a gRPC client that starts a workload, watches it, talks to it and removes it.
 */

const { values: options } = parseArgs({
  options: {
    cluster: { type: "boolean", default: false },
    namespace: { type: "string", default: "default" },
    keep: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

const coloured = process.stdout.isTTY && !process.env.NO_COLOR;
const paint = (code: number) => (text: string) => (coloured ? `\u001b[${code}m${text}\u001b[0m` : text);
const [bold, dim, red, green, cyan] = [paint(1), paint(2), paint(31), paint(32), paint(36)];
const say = (line = "") => console.log(line);
const detail = (line: string) => say(dim(`     ${line}`));

/** Longest that one step may take, in ms. */
const STEP_MS = 60_000;

/** Runs one step and prints it with its RPC and its time. */
async function step<T>(rpc: string, what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const startedAt = performance.now();
  try {
    const result = await work(AbortSignal.timeout(STEP_MS));
    say(`${green("  ✓")}  ${cyan(rpc.padEnd(20))} ${what} ${dim(`${(performance.now() - startedAt).toFixed(1)} ms`)}`);
    return result;
  } catch (error) {
    say(`${red("  ✗")}  ${cyan(rpc.padEnd(20))} ${what}`);
    throw error;
  }
}

interface Cluster extends AsyncDisposable {
  readonly access: Access;
  readonly namespace: string;
  readonly about: string;
}

async function openCluster(): Promise<Cluster> {
  if (options.cluster) {
    const access = clusterAccess({ ...process.env, KUBERNETES_SERVICE_HOST: undefined });
    const about = `${access.server.origin}, by ${access.source}`;
    return { access, namespace: options.namespace, about, [Symbol.asyncDispose]: async () => {} };
  }
  const { embeddedAccess, startCluster } = await import("./support/cluster/cluster.ts");
  const cluster = await startCluster();
  return {
    access: embeddedAccess(cluster),
    namespace: cluster.namespace,
    about: `embedded, at ${cluster.url}; containers are processes of this machine, and images are names only`,
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}

type Runner = Client<typeof RunnerService>;

const MAIN = `echo "workload $WORKLOAD_ID is up"
for i in 1 2 3; do sleep 0.3; echo "tick $i"; done
sleep 600`;

async function show(runner: Runner, id: string): Promise<void> {
  const events = new AbortController();
  const heard = follow(runner, id, events.signal);
  const { containers } = await step("StartWorkload", "a main container, a sidecar and a named volume", () =>
    runner.startWorkload({
      workloadId: id,
      main: {
        image: "alpine:3.19",
        name: "agent",
        entrypoint: "/bin/sh",
        cmd: ["-c", MAIN],
        env: [{ name: "WORKLOAD_ID", value: id }],
        mounts: [{ volume: "data", mountPath: "/tmp/k8s-runner-demo" }],
      },
      sidecars: [{ image: "alpine:3.19", name: "helper", cmd: ["sleep", "600"] }],
      volumes: [
        { name: "data", kind: VolumeKind.NAMED, persistentName: `demo-${id}`, labels: { volume_key: `demo-${id}` } },
      ],
      additionalProperties: { "label.workload_key": id },
    }),
  );
  const target = containers?.main ?? "";
  detail(`Pod ${target}, sidecars: ${containers?.sidecars.map(({ name }) => name).join(", ")}`);

  await step("InspectWorkload", "until it runs", (signal) => untilRunning(runner, id, signal));
  const { volumes } = await step("ListVolumes", "the claim is there", () => runner.listVolumes({}));
  detail(`claim ${volumes.find(({ volumeKey }) => volumeKey === `demo-${id}`)?.instanceId}`);
  await step("StreamWorkloadLogs", "follow until the third tick", (signal) =>
    untilLogged(runner, id, "tick 3", signal),
  );
  await step("Exec", "tr a-z A-Z, with stdin", (signal) => shout(runner, target, "hello from stdin\n", signal));
  await step("StreamEvents", "what Kubernetes told of the Pod meanwhile", async () => {
    for (const reason of await heard.first(3)) detail(reason);
  });
  events.abort();
  if (options.keep) return;

  await step("StopWorkload", "with a second of grace", () => runner.stopWorkload({ workloadId: id, timeoutSec: 1 }));
  await step("InspectWorkload", "until it is NOT_FOUND", (signal) => untilGone(runner, id, signal));
  await step("RemoveVolume", "the claim goes too", () => runner.removeVolume({ volumeName: `demo-${id}` }));
}

async function untilRunning(runner: Runner, id: string, signal: AbortSignal): Promise<void> {
  let shown = "";
  for (;;) {
    signal.throwIfAborted();
    const { stateStatus, containers } = await runner.inspectWorkload({ workloadId: id });
    const states = containers.map(
      ({ name, status, reason }) =>
        `${name} ${["?", "running", "terminated", "waiting"][status]}${reason ? ` (${reason})` : ""}`,
    );
    const line = `${stateStatus}: ${states.join(", ")}`;
    if (line !== shown) detail(line);
    shown = line;
    if (containers.length > 0 && containers.every(({ status }) => status === 1)) return;
    if (stateStatus === "failed" || stateStatus === "succeeded") throw new Error(`the workload has ${stateStatus}`);
    await Bun.sleep(10);
  }
}

async function untilGone(runner: Runner, id: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    try {
      await runner.inspectWorkload({ workloadId: id });
    } catch (error) {
      if (ConnectError.from(error).code === Code.NotFound) return;
      throw error;
    }
    await Bun.sleep(50);
  }
}

async function untilLogged(runner: Runner, id: string, last: string, signal: AbortSignal): Promise<void> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const { event } of runner.streamWorkloadLogs(
    { workloadId: id, containerName: "agent", follow: true },
    { signal },
  )) {
    if (event.case === "chunk") text += decoder.decode(event.value.data, { stream: true });
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    for (const line of lines) detail(line);
    if (lines.includes(last)) return;
  }
  throw new Error(`the log ended before "${last}"`);
}

async function shout(runner: Runner, targetId: string, input: string, signal: AbortSignal): Promise<void> {
  async function* requests(): AsyncGenerator<MessageInitShape<typeof ExecRequestSchema>> {
    yield { msg: { case: "start", value: { targetId, commandArgv: ["tr", "a-z", "A-Z"] } } };
    yield { msg: { case: "stdin", value: { data: new TextEncoder().encode(input), eof: true } } };
  }
  for await (const { event } of runner.exec(requests(), { signal })) {
    if (event.case === "stdout") detail(new TextDecoder().decode(event.value.data).trimEnd());
    if (event.case === "error") throw new Error(event.value.message);
    if (event.case !== "exit") continue;
    detail(`exit code ${event.value.exitCode}`);
    if (event.value.exitCode !== 0) throw new Error(`the command ended with ${event.value.exitCode}`);
    return;
  }
  throw new Error("the execution ended without an exit event");
}

/** Opens StreamEvents and collects what it says of this workload. */
function follow(runner: Runner, id: string, signal: AbortSignal): { first(count: number): Promise<string[]> } {
  const seen: string[] = [];
  let failure: unknown;
  const filters = [{ key: "involvedObject.name", values: [`workload-${id}`] }];
  const reading = (async () => {
    for await (const { event } of runner.streamEvents({ filters }, { signal })) {
      if (event.case !== "data") continue;
      const { reason, message } = JSON.parse(event.value.json);
      seen.push(`${reason}: ${message}`);
    }
  })().catch((error: unknown) => {
    failure = error;
  });
  void reading;
  return {
    async first(count) {
      for (const deadline = performance.now() + STEP_MS; seen.length < count; await Bun.sleep(20)) {
        if (failure !== undefined) throw failure;
        if (performance.now() > deadline) throw new Error(`only ${seen.length} events came`);
      }
      return seen.slice();
    },
  };
}

function printWays(address: string, id: string): void {
  const service = "agynio.api.runner.v1.RunnerService";
  const grpcurl = "grpcurl -plaintext";
  say(`\n${bold("Both go on running.")} From another terminal in this folder:\n`);
  say(
    `  curl -s -H 'content-type: application/json' http://${address}/${service}/InspectWorkload -d '{"workloadId":"${id}"}'`,
  );
  say(`  ${grpcurl} ${address} ${service}/ListWorkloads`);
  say(
    `  ${grpcurl} -d '{"workload_id":"${id}","container_name":"agent","follow":true}' ${address} ${service}/StreamWorkloadLogs`,
  );
  say(
    `  ${grpcurl} -d '{"start":{"target_id":"workload-${id}","command_shell":"date; id"}}' ${address} ${service}/Exec`,
  );
  say(
    `  ${grpcurl} -d '{"workload_id":"${id}","force":true,"remove_volumes":true}' ${address} ${service}/RemoveWorkload`,
  );
  say("\nCtrl-C ends them.");
}

async function main(): Promise<void> {
  const stopped = Promise.withResolvers<never>();
  stopped.promise.catch(() => undefined); // raced below
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.once(signal, () => stopped.reject(new Error(`stopped by ${signal}`)));

  await using cluster = await openCluster();
  say(`${bold("cluster")}  ${cluster.about}`);
  const config = loadConfig({ KUBE_NAMESPACE: cluster.namespace, GRPC_ADDR: "127.0.0.1:0", PVC_STORAGE_SIZE: "16Mi" });
  const log = createLog({ level: "warn" });
  await using app: App = await startApp({ config, access: cluster.access, log });
  const address = `127.0.0.1:${app.address.port}`;
  say(`${bold("runner")}   http://${address}, gRPC, gRPC-Web and Connect on one port\n`);
  const runner = createClient(RunnerService, createGrpcTransport({ baseUrl: `http://${address}` }));

  const id = randomUUID();
  let removed = false;
  try {
    const startedAt = performance.now();
    await step("Ready", "the runner answers", () => runner.ready({}));
    await Promise.race([show(runner, id), stopped.promise]);
    removed = !options.keep;
    say(`\n${green(bold("Done"))} in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
    if (!options.keep) return;
    printWays(address, id);
    await stopped.promise.catch(() => undefined);
  } finally {
    if (!removed) {
      // Whatever went wrong, nothing is left; what is not there any more is fine.
      await runner.removeWorkload({ workloadId: id, force: true }).catch(() => undefined);
      await runner.removeVolume({ volumeName: `demo-${id}` }).catch(() => undefined);
    }
  }
}

if (options.help) {
  say("bun run demo [--keep] [--cluster [--namespace default]]");
  say("  --keep     leaves cluster, runner and workload running and prints ways to talk to them");
  say("  --cluster  uses the cluster of KUBECONFIG or ~/.kube/config in place of the embedded one");
  process.exit(0);
}
main().then(
  () => process.exit(0),
  (error: unknown) => {
    const cause = error instanceof ConnectError ? `${Code[error.code]}: ${error.rawMessage}` : error;
    console.error(`\n${red("The demo failed:")} ${cause instanceof Error ? cause.message : String(cause)}`);
    process.exit(1);
  },
);
