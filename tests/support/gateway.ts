import { createSecureServer, createServer } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { RunnersGateway } from "../../src/gen/agynio/api/gateway/v1/runners_pb.ts";
import {
  type EnrollRunnerRequest,
  type EnrollRunnerResponseSchema,
  type ReportRunnerCatalogRequest,
  type ReportWorkloadStateRequest,
  WorkloadStatus,
} from "../../src/gen/agynio/api/runners/v1/runners_pb.ts";

export const TOKEN = "canary-service-token";

type Reply<T> = T | Promise<T>;

/** What a test makes the gateway do; what is left out answers as the platform does. Throw to refuse. */
export interface Script {
  enroll?: (call: Call<EnrollRunnerRequest>) => Reply<MessageInitShape<typeof EnrollRunnerResponseSchema>>;
  catalog?: (call: Call<ReportRunnerCatalogRequest>) => Reply<void>;
  /** Whether the report is applied; undefined: as the platform does. */
  state?: (call: Call<ReportWorkloadStateRequest>) => Reply<boolean | undefined>;
}

export interface Call<Request> {
  readonly request: Request;
  /** From 1, of this RPC. */
  readonly count: number;
  readonly context: HandlerContext;
}

/** A report of a workload's state as it came in. */
export interface SeenReport {
  readonly id: string;
  readonly status: "RUNNING" | "FAILED" | "OTHER";
  readonly observedMs: number;
  /** performance.now() of its arrival. */
  readonly at: number;
  readonly request: ReportWorkloadStateRequest;
}

/** An identity of no network, with a key that must show nowhere. */
export const KEY_LINE = "canaryKeyMIGkAgEBBDC0123456789";
export const IDENTITY = {
  ztAPI: "https://ziti.invalid:1280/edge/client/v1",
  id: {
    key: `pem:-----BEGIN EC PRIVATE KEY-----\n${KEY_LINE}\n-----END EC PRIVATE KEY-----\n`,
    cert: "pem:cert",
    ca: "",
  },
};
export const SERVICE = "runner-00000000-0000-4000-8000-000000000001";

/**
 * The platform's gateway as far as a runner meets it: real gRPC, the checks of process.md 5.1 in their order, a record of
 * each workload, and everything it was sent.
 */
export class FakeGateway implements AsyncDisposable {
  readonly enrollments: EnrollRunnerRequest[] = [];
  readonly catalogs: ReportRunnerCatalogRequest[] = [];
  readonly reports: SeenReport[] = [];
  /** Headers of every call. */
  readonly headers: Headers[] = [];
  /** Calls under way, and the most there ever were. */
  readonly calls = { open: 0, most: 0 };
  /** The platform's record: what was applied last. */
  readonly record = new Map<string, { status: SeenReport["status"]; observedMs: number }>();
  /** Workloads that the platform has removed already. */
  readonly removed = new Set<string>();
  /** When set, only these workloads are known; those of `foreign` are another runner's. */
  known: ReadonlySet<string> | undefined;
  foreign: ReadonlySet<string> = new Set();
  script: Script;
  #server: ReturnType<typeof createServer> | undefined;
  readonly #sockets = new Set<Socket>();
  #port = 0;
  readonly #tls: { key: string; cert: string } | undefined;

  private constructor(script: Script, tls?: { key: string; cert: string }) {
    this.script = script;
    this.#tls = tls;
  }

  static async start(script: Script = {}, tls?: { key: string; cert: string }): Promise<FakeGateway> {
    const gateway = new FakeGateway(script, tls);
    await gateway.up();
    return gateway;
  }

  /** `host:port`, the same after `down` and `up`. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Closes the port and resets every connection. */
  async down(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await closed;
  }

  async up(): Promise<void> {
    const handler = connectNodeAdapter({
      routes: (router) =>
        router.service(RunnersGateway, {
          enrollRunner: (request, context) => this.#call(context, () => this.#enroll(request, context)),
          reportRunnerCatalog: (request, context) => this.#call(context, () => this.#catalog(request, context)),
          reportWorkloadState: (request, context) => this.#call(context, () => this.#state(request, context)),
        }),
    });
    const server = this.#tls === undefined ? createServer(handler) : createSecureServer(this.#tls, handler);
    server.on("session", (session) => session.on("error", () => {})); // resets are part of the script
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
    await new Promise<void>((resolve) => server.listen(this.#port, "127.0.0.1", resolve));
    // The cast: a TCP server has such an address.
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  /** What came in about one workload, in order. */
  of(id: string): SeenReport[] {
    return this.reports.filter((report) => report.id === id);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.down();
  }

  async #call<T>(context: HandlerContext, work: () => Promise<T>): Promise<T> {
    this.headers.push(context.requestHeader);
    this.calls.open++;
    this.calls.most = Math.max(this.calls.most, this.calls.open);
    try {
      return await work();
    } finally {
      this.calls.open--;
    }
  }

  async #enroll(request: EnrollRunnerRequest, context: HandlerContext) {
    this.enrollments.push(request);
    const scripted = await this.script.enroll?.({ request, context, count: this.enrollments.length });
    return scripted ?? { identityJson: Buffer.from(JSON.stringify(IDENTITY)), serviceName: SERVICE };
  }

  async #catalog(request: ReportRunnerCatalogRequest, context: HandlerContext) {
    this.catalogs.push(request);
    await this.script.catalog?.({ request, context, count: this.catalogs.length });
    return {};
  }

  async #state(request: ReportWorkloadStateRequest, context: HandlerContext) {
    const { workloadId: id, observedAt } = request;
    const status =
      request.status === WorkloadStatus.RUNNING
        ? "RUNNING"
        : request.status === WorkloadStatus.FAILED
          ? "FAILED"
          : "OTHER";
    const observedMs = observedAt === undefined ? Number.NaN : timestampMs(observedAt);
    this.reports.push({ id, status, observedMs, at: performance.now(), request });
    const scripted = await this.script.state?.({ request, context, count: this.reports.length });
    if (scripted !== undefined) return { applied: scripted };
    this.#check(request);
    const record = this.record.get(id);
    const applied = !this.removed.has(id) && !(record !== undefined && observedMs < record.observedMs);
    if (applied) this.record.set(id, { status, observedMs });
    return { applied };
  }

  /** Table 5.1, in its order. */
  #check({ serviceToken, runnerId, workloadId, status, containers }: ReportWorkloadStateRequest): void {
    if (serviceToken.trim() === "") throw refused("service_token must be provided", Code.InvalidArgument);
    if (serviceToken !== TOKEN) throw refused("unknown token", Code.Unauthenticated);
    if (runnerId !== "") throw refused("runner_id does not match the reporting runner", Code.PermissionDenied);
    if (!UUID.test(workloadId)) throw refused("workload_id is not a UUID", Code.InvalidArgument);
    if (this.known?.has(workloadId) === false) throw refused("workload not found", Code.NotFound);
    if (this.foreign.has(workloadId))
      throw refused("workload does not belong to the reporting runner", Code.PermissionDenied);
    if (status !== WorkloadStatus.RUNNING && status !== WorkloadStatus.FAILED)
      throw refused(`status ${status} is not an observed runtime state`, Code.InvalidArgument);
    for (const { role, status } of containers)
      if (role === 0 || status === 0) throw refused("a container without role or status", Code.InvalidArgument);
  }
}

const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/;

export const refused = (message: string, code: Code): ConnectError => new ConnectError(message, code);
