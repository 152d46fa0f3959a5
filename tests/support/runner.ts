import { afterAll, beforeAll, setDefaultTimeout } from "bun:test";
import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { type App, type AppOptions, startApp } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import {
  type InspectWorkloadResponse,
  RunnerService,
  type StartWorkloadRequestSchema,
  type StartWorkloadResponse,
} from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Access } from "../../src/kube/access.ts";
import type { Claim, Pod, Secret } from "../../src/kube/types.ts";
import { createLog } from "../../src/log.ts";
import { type Backend, startBackend } from "./backend.ts";
import { Ledger } from "./ledger.ts";
import { untilRunning } from "./wait.ts";

export type RunnerClient = Client<typeof RunnerService>;
export type StartRequest = Exclude<MessageInitShape<typeof StartWorkloadRequestSchema>, { $typeName: string }>;

export interface RunnerOptions {
  /** The cluster to use; without it the runner brings its own and closes it. */
  readonly backend?: Backend;
  /** The runner's way to the cluster in place of the backend's own: one that can be cut, or that refuses. */
  readonly access?: (backend: Backend) => Access;
  readonly tuning?: AppOptions["tuning"];
  /** The process's environment, above the settings of every test. */
  readonly env?: Record<string, string>;
}

/** A line of the runner's log. */
export type LogLine = Readonly<Record<string, unknown>>;

/** A runner that serves on a free port, one client of it over real gRPC, and the cluster behind it. */
export interface TestRunner extends AsyncDisposable {
  readonly client: RunnerClient;
  /** `http://host:port`, for clients that speak other protocols. */
  readonly baseUrl: string;
  readonly backend: Backend;
  readonly watcher: App["watcher"];
  /** What the tests made, to be removed in the end; makes foreign objects too. */
  readonly ledger: Ledger;
  /** StartWorkload, tracked and marked as ours by a label. A main container that idles is filled in. */
  start(request?: StartRequest): Promise<StartWorkloadResponse>;
  /** The same, then waits until its Pod runs. */
  run(request?: StartRequest): Promise<{ id: string; target: string; inspection: InspectWorkloadResponse }>;
  /** The Pod as the cluster has it. */
  pod(workloadId: string): Promise<Pod>;
  /** Every secret of this workload as the cluster has it. */
  secrets(workloadId: string): Promise<Secret[]>;
  claim(name: string): Promise<Claim | undefined>;
  /** Every line of the log so far, as text and parsed. Throws when one is not JSON. */
  logText(): string;
  logLines(): LogLine[];
}

/** The image of every test: a name only in the embedded cluster, a busybox or alpine in a real one. */
export const IMAGE = "alpine:3.19";

type ContainerInit = NonNullable<StartRequest["main"]>;

/** A container that stays, doing nothing. */
export const idling = (more: ContainerInit = {}): ContainerInit => ({ image: IMAGE, cmd: ["sleep", "300"], ...more });

/** A container that runs this text in the image's shell. */
export const script = (text: string, more: ContainerInit = {}): ContainerInit => ({
  image: IMAGE,
  entrypoint: "/bin/sh",
  cmd: ["-c", text],
  ...more,
});

/** A runner for all tests of the calling file (or `describe`); teardown fails if anything of theirs is left. */
export function sharedRunner(options: () => RunnerOptions = () => ({})): () => TestRunner {
  setDefaultTimeout(30_000); // for this file alone
  let runner: TestRunner | undefined;
  beforeAll(async () => {
    runner = await startRunner(options());
  });
  afterAll(async () => {
    await runner?.[Symbol.asyncDispose]();
  });
  return () => runner ?? fail("the runner is there only while tests run");
}

/**
 * Starts the real application on a free port. Disposal removes what was made, closes everything, and throws if any of it remains.
 * With E2E_ADDRESS (host:port) the runner there is used in its place, such as an installed one that works in E2E_NAMESPACE,
 * unless the test asks for a runner of its own by an option; what such a runner logs is not known here.
 */
export async function startRunner(options: RunnerOptions = {}): Promise<TestRunner> {
  const elsewhere = Object.keys(options).length === 0 ? process.env.E2E_ADDRESS : undefined;
  const { backend: given, access, tuning, env } = options;
  const backend = given ?? (await startBackend());
  const lines: string[] = [];
  const app = elsewhere === undefined ? await application() : undefined;
  async function application(): Promise<App> {
    const config = loadConfig({
      GRPC_ADDR: "127.0.0.1:0",
      KUBE_NAMESPACE: backend.namespace,
      PVC_STORAGE_SIZE: "1Mi",
      LOG_LEVEL: "debug",
      ...env,
    });
    const log = createLog({ level: config.logLevel, stream: { write: (line: string) => void lines.push(line) } });
    return startApp({ config, access: access?.(backend) ?? backend.access, log, ...(tuning && { tuning }) });
  }

  const baseUrl = `http://${elsewhere ?? `127.0.0.1:${app?.address.port}`}`;
  const session = new Http2SessionManager(baseUrl);
  const client = createClient(RunnerService, createGrpcTransport({ baseUrl, sessionManager: session }));
  const ledger = new Ledger(backend, { alone: given === undefined && backend.kind === "embedded" });

  const log = (): string[] => (app === undefined ? fail("the log of a runner elsewhere is not known") : lines);

  const start = async (request: StartRequest = {}) => {
    const answer = await client.startWorkload({
      main: idling(),
      ...request,
      additionalProperties: { ...ledger.mark, ...request.additionalProperties },
    });
    ledger.workload(answer.id);
    return answer;
  };
  return {
    client,
    baseUrl,
    backend,
    get watcher() {
      return app?.watcher ?? fail("a runner elsewhere does not show its watcher");
    },
    ledger,
    start,
    async run(request) {
      const { id, containers } = await start(request);
      return { id, target: containers?.main ?? "", inspection: await untilRunning(client, id) };
    },
    pod: (workloadId) => backend.admin.pods.get(`workload-${workloadId}`),
    secrets: (workloadId) => ledger.secretsOf(workloadId),
    claim: (name) => ledger.claimNamed(name),
    logText: () => log().join(""),
    logLines: () => log().map((line): LogLine => JSON.parse(line)),
    async [Symbol.asyncDispose]() {
      await using _ = given === undefined ? backend : undefined;
      if (access === undefined) await removeThrough(client, ledger);
      session.abort();
      if (app !== undefined) await close(app, baseUrl);
      await ledger.settle();
    },
  };
}

/** As the platform's own suite cleans up: NOT_FOUND is fine, any other error fails (clients.md 8). */
async function removeThrough(client: RunnerClient, ledger: Ledger): Promise<void> {
  const removals = [...ledger.workloads].map(async (workloadId) => {
    try {
      await client.removeWorkload({ workloadId, force: true, removeVolumes: true });
    } catch (error) {
      if (ConnectError.from(error).code !== Code.NotFound) throw error;
    }
  });
  await Promise.all([...removals, ...[...ledger.claims].map((volumeName) => client.removeVolume({ volumeName }))]);
}

async function close(app: App, baseUrl: string): Promise<void> {
  await app[Symbol.asyncDispose]();
  const answer = await fetch(baseUrl).catch(() => undefined);
  if (answer !== undefined) throw new Error("the runner still listens after its end");
}

export const freshId = (): string => randomUUID();

function fail(message: string): never {
  throw new Error(message);
}
