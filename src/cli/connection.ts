import { readFileSync } from "node:fs";
import { type Client, Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { RunnerService } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { boundedSignal, sleep } from "../time.ts";
import { type Invocation, UsageError } from "./invocation.ts";

/** Longest time for a connection to come up. */
const CONNECT_MS = 10_000;
/** A runner that is silent for so long while it owes us something is asked for a sign of life; without one it is lost. */
const PING_MS = { pingIntervalMs: 10_000, pingTimeoutMs: 10_000 };
/** For a command that does not say. */
export const CALL_MS = 30_000;
/** gRPC's header holds eight digits. */
const LONGEST_MS = 99_999_999;

export type RunnerClient = Client<typeof RunnerService>;

/** One connection to the runner that the flags name. Calls on it fail with a ConnectError. */
export interface Connection extends Disposable {
  /** As the person wrote it. */
  readonly address: string;
  readonly client: RunnerClient;
  /** For the next call: what is left of the time for all of them. */
  limits(): { timeoutMs?: number };
}

interface Target {
  readonly shown: string;
  readonly baseUrl: string;
  readonly tls: { ca?: string; cert?: string; key?: string };
}

/**
 * Connects. `ms` is the time for all calls together that take `limits()`, 0 for any. Throws UsageError for flags that make no
 * sense, and UNAVAILABLE when the runner cannot be reached.
 */
export async function connect(invocation: Invocation, ms: number): Promise<Connection> {
  const { shown, baseUrl, tls } = targetOf(invocation);
  const deadline = ms === 0 ? Number.POSITIVE_INFINITY : performance.now() + ms;
  const session = new Http2SessionManager(baseUrl, PING_MS, tls);
  await reach(session, shown);
  const transport = createGrpcTransport({ baseUrl, sessionManager: session, interceptors: [toldApart(shown)] });
  return {
    address: shown,
    client: createClient(RunnerService, transport),
    limits: () =>
      deadline === Number.POSITIVE_INFINITY
        ? {}
        : { timeoutMs: Math.min(LONGEST_MS, Math.max(1, Math.ceil(deadline - performance.now()))) },
    [Symbol.dispose]: () => session.abort(),
  };
}

async function reach(session: Http2SessionManager, shown: string): Promise<void> {
  using bound = boundedSignal(CONNECT_MS);
  const state = await Promise.race([session.connect(), sleep(Number.POSITIVE_INFINITY, bound.signal)]).catch(
    () => "silent",
  );
  if (state === "silent") session.abort();
  const error = state === "error" ? session.error() : undefined;
  if (state !== "silent" && error === undefined) return;
  const cause = error === undefined ? `no answer within ${CONNECT_MS / 1000} s` : ConnectError.from(error).rawMessage;
  throw new ConnectError(`cannot reach ${shown}: ${cause}`, Code.Unavailable, undefined, undefined, error);
}

function targetOf(invocation: Invocation): Target {
  const given = invocation.text("address") ?? "127.0.0.1:50051";
  const [, scheme = "", rest = ""] = /^(?:(https?):\/\/)?(.*?)\/?$/i.exec(given) ?? [];
  const files = ["cacert", "cert", "key"] as const;
  const secure =
    invocation.on("tls") || scheme === "https" || files.some((name) => invocation.text(name) !== undefined);
  if (secure && scheme === "http")
    throw new UsageError(`--address: ${given} says cleartext, but other flags ask for TLS`);
  const address = /^:\d+$/.test(rest) ? `127.0.0.1${rest}` : rest;
  const baseUrl = `${secure ? "https" : "http"}://${address}`;
  if (!/^(\[[0-9a-f:.]+\]|[^\s:/@?#[\]]+):\d{1,5}$/i.test(address) || !URL.canParse(baseUrl))
    throw new UsageError(`--address: "${given}" is not host:port`);
  const [ca, cert, key] = files.map((name) => contentsOf(invocation, name));
  if ((cert === undefined) !== (key === undefined)) throw new UsageError("--cert and --key belong together");
  return { shown: address, baseUrl, tls: { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) } };
}

function contentsOf(invocation: Invocation, name: string): string | undefined {
  const path = invocation.text(name);
  if (path === undefined) return undefined;
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`--${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** What connect-node 2.2.0 makes of a connection that breaks under a call. */
const BROKEN: ReadonlySet<Code> = new Set([Code.Internal, Code.Aborted, Code.Canceled, Code.ResourceExhausted]);

/** A connection that breaks is UNAVAILABLE and says so; what the runner itself answered stays as it is. */
function toldApart(shown: string): Interceptor {
  const translated = (error: unknown, signal: AbortSignal): ConnectError => {
    const cause = ConnectError.from(error);
    if (signal.aborted || cause.metadata.has("grpc-status") || !BROKEN.has(cause.code)) return cause;
    const text = `the connection to ${shown} was lost: ${cause.rawMessage}`;
    return new ConnectError(text, Code.Unavailable, undefined, undefined, cause);
  };
  return (next) => async (request) => {
    try {
      const response = await next(request);
      if (!response.stream) return response;
      return { ...response, message: translatedStream(response.message, (error) => translated(error, request.signal)) };
    } catch (error) {
      throw translated(error, request.signal);
    }
  };
}

async function* translatedStream<T>(messages: AsyncIterable<T>, translated: (error: unknown) => ConnectError) {
  try {
    yield* messages;
  } catch (error) {
    throw translated(error);
  }
}
