import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { admission } from "./admission.ts";
import type { Config } from "./config.ts";
import { RunnerService } from "./gen/agynio/api/runner/v1/runner_pb.ts";
import { Health as HealthService } from "./gen/grpc/health/v1/health_pb.ts";
import { Health } from "./health.ts";
import type { Access } from "./kube/access.ts";
import { Kube, type KubeOptions } from "./kube/client.ts";
import { KubeRequests } from "./kube/requests.ts";
import { Usage } from "./limits.ts";
import type { Log } from "./log.ts";
import { Metrics } from "./metrics.ts";
import { PlatformLink } from "./platform.ts";
import { reflectionRoutes } from "./reflection.ts";
import { Calls } from "./runner/calls.ts";
import { Executions } from "./runner/execution.ts";
import { observe } from "./runner/observe.ts";
import { runnerService } from "./runner/service.ts";
import { sweep } from "./runner/sweep.ts";
import { Traffic } from "./runner/traffic.ts";
import { Underway } from "./runner/underway.ts";
import { startServer } from "./server.ts";
import { planSettingsFrom } from "./settings.ts";
import { keepTls, loadTls } from "./tls.ts";
import type { OtlpTracing } from "./tracing/otlp.ts";
import { PodWatcher, type WatcherOptions } from "./watcher.ts";

/** How long changes of the cluster that outlive their call may take to end or to be undone when the runner ends. */
const UNDERWAY_MS = 5_000;
/** Time for the last spans to be sent when the runner ends. */
const LAST_SPANS_MS = 1_000;

export interface AppOptions {
  readonly config: Config;
  readonly access: Access;
  readonly log: Log;
  /** For tests. */
  readonly tuning?: {
    readonly watcher?: WatcherOptions["tuning"];
    readonly kube?: KubeOptions["timing"];
    readonly tls?: { everyMs: number };
  };
}

export interface App extends AsyncDisposable {
  readonly address: { readonly host: string; readonly port: number };
  readonly watcher: PodWatcher;
  /** Resolves with the cause when it can no longer be reached, over TCP or through the platform. */
  readonly failed: Promise<Error>;
  /**
   * Lets running calls end for up to `graceMs`, then ends them; resolves when nothing of the app runs any more. Rejects
   * then, when it had not joined the platform, with why.
   */
  close(graceMs: number): Promise<void>;
}

/** Wires the parts and serves. Nothing waits for the cluster: reads do, until the first list is in (ruling 5). */
export async function startApp({ config, access, log, tuning = {} }: AppOptions): Promise<App> {
  const caller = (name: string) => log.child({ caller: name });
  const tracing = await tracingOf(config, caller("tracing"));
  const requests = new KubeRequests();
  const kube = new Kube({
    access,
    namespace: config.namespace,
    log: caller("kube"),
    onRequest: (info) => {
      requests.add(info);
      tracing?.request(info);
    },
    timing: tuning.kube ?? {},
  });
  const watcher = new PodWatcher({ kube, log: caller("watcher"), tuning: tuning.watcher ?? {} });
  const runnerLog = caller("runner");
  const parts = {
    kube,
    pods: watcher,
    executions: new Executions(),
    traffic: new Traffic(),
    underway: new Underway(),
    settings: planSettingsFrom(config),
    log: runnerLog,
  };
  const usage = new Usage(config.limits);
  const calls = new Calls([RunnerService, HealthService]);
  let link: PlatformLink | undefined;
  const metrics = new Metrics({ ...parts, calls, watcher, requests, usage, reports: () => link?.reports });
  const draining = new AbortController();
  const health = new Health({
    cache: watcher,
    services: [RunnerService.typeName],
    draining: draining.signal,
    log: caller("health"),
  });
  const reflection = reflectionRoutes([RunnerService, HealthService], draining.signal);
  const routes = (router: ConnectRouter): void => {
    router.service(RunnerService, runnerService(parts)).service(HealthService, health.service);
    reflection(router);
  };
  const tls = config.tls && loadTls(config.tls);
  const server = await startServer({
    address: config.grpcAddress,
    routes,
    pages: { ...health.pages, ...metrics.pages },
    tls,
    lastCall: () => parts.executions.end(),
    log: caller("server"),
    maxMessageBytes: config.maxMessageBytes,
    interceptors: [observe(runnerLog, { calls, tracer: tracing }), admission(usage)],
    refused: (method, code) => calls.refused(method, code),
    usage,
  });
  const over = new AbortController();
  const background = [
    watcher.run(over.signal),
    health.run(over.signal),
    metrics.run(over.signal),
    sweep(parts, over.signal, { finishedMs: config.finishedPodTtlMs }),
  ];
  if (config.tls !== undefined && tls !== undefined) {
    const keeping = { material: tls, renew: server.renewTls, log: caller("tls"), signal: over.signal };
    background.push(keepTls(config.tls, { ...keeping, ...tuning.tls }));
  }
  const { host, port } = server.address;
  caller("server").info({ listener: "tcp", addr: `${host}:${port}` }, "gRPC server starting");

  link =
    config.platform === undefined
      ? undefined
      : new PlatformLink({ settings: config.platform, config, pods: watcher, server, log: caller("platform") });

  const close = async (graceMs: number): Promise<void> => {
    draining.abort(new ConnectError("the runner is shutting down", Code.Unavailable));
    link?.leave();
    await server.close(graceMs);
    const [failure, left] = await Promise.all([link?.close(), parts.underway.settled(UNDERWAY_MS)]);
    if (left > 0) caller("server").warn({ left }, "ended in the middle of changes");
    over.abort(new Error("the runner has ended"));
    await Promise.all(background);
    await tracing?.close(LAST_SPANS_MS);
    if (failure !== undefined) throw failure;
  };
  const failed = link === undefined ? server.failed : Promise.race([server.failed, link.failed]);
  return { address: server.address, watcher, failed, close, [Symbol.asyncDispose]: () => close(0) };
}

/** Loaded only when it is asked for: it would cost the start of every process some of its time and memory. */
async function tracingOf({ tracing }: Config, log: Log): Promise<OtlpTracing | undefined> {
  if (tracing === undefined) return undefined;
  const { OtlpTracing } = await import("./tracing/otlp.ts");
  return new OtlpTracing(tracing, log);
}
