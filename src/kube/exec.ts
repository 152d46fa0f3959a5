import { boundedSignal } from "../time.ts";
import type { Credentials } from "./access.ts";
import { Channel, type ChannelOptions, type ExecChannel, PROTOCOL } from "./channel.ts";
import { KubeError, noAnswer } from "./error.ts";
import { credentialsOf, type Query, type ResourcePath, type Transport, USER_AGENT, urlOf } from "./request.ts";

/** Until the handshake is done. */
const OPEN_MS = 30_000;

export interface ExecRequest extends ChannelOptions {
  readonly path: ResourcePath;
  readonly container: string;
  readonly command: readonly string[];
  readonly stdin?: boolean;
  readonly tty?: boolean;
  /** Without a terminal, whether stderr is told apart or not read at all; default true. */
  readonly stderr?: boolean;
}

/** Opens the channel; see Kube.exec. The command is never started twice: only a refusal (401) is tried again. */
export async function openExec(transport: Transport, request: ExecRequest): Promise<ExecChannel> {
  const query = execQuery(request);
  const refused = await handshake(transport, request, query, await credentialsOf(transport.access));
  if (!(refused instanceof KubeError)) return refused;
  if (refused.status !== 401) throw await explain(transport, request, query, refused);
  const again = await handshake(transport, request, query, await credentialsOf(transport.access, { renew: true }));
  if (!(again instanceof KubeError)) return again;
  throw await explain(transport, request, query, again);
}

const execQuery = ({ container, command, stdin = false, tty = false, stderr = true }: ExecRequest): Query => [
  ["container", container],
  ["stdout", "true"],
  ...(stdin ? [["stdin", "true"] as const] : []),
  ...(tty ? [["tty", "true"] as const] : stderr ? [["stderr", "true"] as const] : []),
  ...command.map((argument) => ["command", argument] as const),
];

/**
 * What the API server said: Bun's WebSocket tells of a refusal only the HTTP status. The same request without the upgrade
 * and without the command is refused for the same reason, with a Status, and could not start anything.
 */
async function explain(transport: Transport, { path, signal }: ExecRequest, query: Query, refused: KubeError) {
  if (refused.status === 0) return refused;
  const harmless = query.filter(([name]) => name !== "command");
  try {
    await transport.json({ method: "GET", path, query: harmless, signal });
  } catch (error) {
    if (signal.aborted) return signal.reason;
    if (error instanceof KubeError && error.status === refused.status && error.message !== "Upgrade request required")
      return error;
  }
  return refused;
}

/** An open channel, or the refusal; throws the signal's reason when aborted. */
async function handshake(
  transport: Transport,
  request: ExecRequest,
  query: Query,
  { headers, tls }: Credentials,
): Promise<Channel | KubeError> {
  const startedAt = performance.now();
  using bound = boundedSignal(OPEN_MS, request.signal);
  const url = urlOf(transport.access, request.path, query);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (request.signal.aborted) throw request.signal.reason;
  const socket = new WebSocket(url.href, {
    headers: { ...headers, "user-agent": USER_AGENT },
    protocols: [PROTOCOL],
    tls,
    perMessageDeflate: false,
  });
  const outcome = await new Promise<Channel | KubeError>((resolve) => {
    const settle = (result: Channel | KubeError) => {
      bound.signal.removeEventListener("abort", abort);
      resolve(result);
    };
    const abort = () => {
      socket.terminate();
      settle(noAnswer(`no answer within ${OPEN_MS} ms`));
    };
    bound.signal.addEventListener("abort", abort, { once: true });
    // The channel listens from the first message on: made here, before any can be lost.
    socket.addEventListener("open", () => {
      if (socket.protocol === PROTOCOL) return settle(new Channel(socket, transport, request));
      socket.terminate();
      settle(new KubeError(501, "", `the Kubernetes API does not speak ${PROTOCOL}: it is older than 1.30`));
    });
    socket.addEventListener("error", (event) => settle(refusalOf(event)));
    socket.addEventListener("close", () => settle(noAnswer("the exec connection was closed before it was open")));
  });
  const status = outcome instanceof KubeError ? outcome.status : 101;
  transport.report({ verb: "EXEC", resource: "pods/exec", status, seconds: (performance.now() - startedAt) / 1000 });
  if (request.signal.aborted) {
    if (outcome instanceof Channel) outcome.close();
    throw request.signal.reason;
  }
  return outcome;
}

/** The event's own texts hold the URL, and with it the command: only the number in them is used. */
function refusalOf(event: Event): KubeError {
  const message = "message" in event ? String(event.message) : "";
  const status = Number(/Expected 101 status code: (\d{3})/.exec(message)?.[1] ?? 0);
  if (status !== 0) return new KubeError(status, "", `the Kubernetes API refused exec with HTTP ${status}`);
  const cause =
    "error" in event && event.error instanceof Error && "code" in event.error ? event.error.code : undefined;
  return noAnswer(`the exec connection could not be made${cause === undefined ? "" : ` (${String(cause)})`}`);
}
