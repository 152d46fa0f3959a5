import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { RunnersGateway } from "../gen/agynio/api/gateway/v1/runners_pb.ts";
import type {
  ReportRunnerCatalogRequestSchema,
  ReportWorkloadStateRequestSchema,
} from "../gen/agynio/api/runners/v1/runners_pb.ts";
import { shown } from "../pod/validate.ts";
import { redact, type Secret } from "../secret.ts";

/** A gateway that is silent for so long is asked for a sign of life, and its connection dropped when none comes. */
const PING_MS = { pingIntervalMs: 5_000, pingTimeoutMs: 5_000 };

/** Requests without who asks: the client fills in the token, and `runner_id` stays empty (process.md 4.3, 5.2). */
type Report<Schema extends typeof ReportRunnerCatalogRequestSchema | typeof ReportWorkloadStateRequestSchema> = Omit<
  Exclude<MessageInitShape<Schema>, { $typeName: string }>,
  "serviceToken" | "runnerId"
>;
export type CatalogReport = Report<typeof ReportRunnerCatalogRequestSchema>;
export type StateReport = Report<typeof ReportWorkloadStateRequestSchema>;

export interface CallLimits {
  readonly signal: AbortSignal;
  /** The call's deadline in whole ms of at most eight digits, which the gateway is told too. */
  readonly timeoutMs: number;
}

export interface GatewayOptions {
  /** `host:port`. */
  readonly address: string;
  readonly tls: boolean;
  readonly token: Secret;
  /** For tests: what the gateway's certificate is checked against in place of the system's authorities. */
  readonly ca?: string;
}

/**
 * The platform's gateway, by gRPC over one connection that is made when it is needed (ruling 24). Calls fail with a
 * ConnectError without the token in it; UNAVAILABLE stands for everything that kept a call from being answered.
 */
export class Gateway {
  readonly #token: Secret;
  readonly #session: Http2SessionManager;
  readonly #client: Client<typeof RunnersGateway>;

  constructor({ address, tls, token, ca }: GatewayOptions) {
    const baseUrl = `${tls ? "https" : "http"}://${address}`;
    this.#token = token;
    this.#session = new Http2SessionManager(baseUrl, PING_MS, ca === undefined ? undefined : { ca });
    this.#client = createClient(RunnersGateway, createGrpcTransport({ baseUrl, sessionManager: this.#session }));
  }

  async enroll(limits: CallLimits): Promise<{ identityJson: Uint8Array; serviceName: string }> {
    return await this.#answer((serviceToken) => this.#client.enrollRunner({ serviceToken }, limits));
  }

  async reportCatalog(report: CatalogReport, limits: CallLimits): Promise<void> {
    await this.#answer((serviceToken) => this.#client.reportRunnerCatalog({ ...report, serviceToken }, limits));
  }

  /** Whether the platform's record follows the report now. */
  async reportState(report: StateReport, limits: CallLimits): Promise<boolean> {
    const call = (serviceToken: string) => this.#client.reportWorkloadState({ ...report, serviceToken }, limits);
    return (await this.#answer(call)).applied;
  }

  close(): void {
    this.#session.abort();
  }

  async #answer<T>(call: (serviceToken: string) => Promise<T>): Promise<T> {
    try {
      return await call(this.#token.reveal());
    } catch (error) {
      throw this.#plain(ConnectError.from(error));
    }
  }

  /** Without causes, metadata and details, which could hold the request; its text bounded and without the token. */
  #plain({ code, rawMessage, metadata }: ConnectError): ConnectError {
    const unanswered = !metadata.has("grpc-status") && BROKEN.has(code);
    return new ConnectError(shown(redact(rawMessage, [this.#token])), unanswered ? Code.Unavailable : code);
  }
}

/** What connect-node 2.2.0 makes of a connection that breaks under a call, or that is being closed by the gateway. */
const BROKEN: ReadonlySet<Code> = new Set([Code.Internal, Code.Aborted, Code.Canceled, Code.ResourceExhausted]);
