/** pods/exec over v5.channel.k8s.io: the first byte of a message is its channel; a close message ends one of them. */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { NotRunning, type RunningContainer } from "./container.ts";
import type { ContainerProcess, TerminalSize } from "./process.ts";
import { StartError } from "./process.ts";
import { ApiError, badRequest } from "./status.ts";
import { WebSocketConnection } from "./websocket.ts";

const PROTOCOL = "v5.channel.k8s.io";
const [STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE] = [0, 1, 2, 3, 4, 255];
const NO_SIZE: TerminalSize = { cols: 0, rows: 0 };

export interface ExecOptions {
  readonly command: readonly string[];
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

/** The options of a query. Throws 400. */
export function execOptions(query: URLSearchParams): ExecOptions {
  const flag = (name: string) => /^(true|1)$/.test(query.get(name) ?? "");
  const options = {
    command: query.getAll("command"),
    stdin: flag("stdin"),
    stdout: flag("stdout"),
    stderr: flag("stderr"),
    tty: flag("tty"),
  };
  if (options.tty && options.stderr) throw badRequest("tty and stderr cannot both be true");
  return options;
}

/** Throws unless the client asks for the upgrade and speaks the protocol. */
export function requireUpgrade(request: IncomingMessage): void {
  if (request.headers.upgrade?.toLowerCase() !== "websocket") throw badRequest("Upgrade request required");
  const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim());
  if (!offered.includes(PROTOCOL)) throw badRequest(`unable to upgrade: unsupported protocol ${offered.join(",")}`);
}

/** Runs the command to its end, or until the client goes. Never rejects. */
export async function serveExec(
  { request, socket, head }: { request: IncomingMessage; socket: Socket; head: Buffer },
  container: RunningContainer | undefined,
  options: ExecOptions,
  name: string,
): Promise<void> {
  const connection = new WebSocketConnection(request, socket, head, PROTOCOL);
  const send = (channel: number, data: Uint8Array) => connection.send(Uint8Array.of(channel), data);
  try {
    if (container === undefined) throw new NotRunning(name);
    const waiting: Uint8Array[] = [];
    let toTerminal = (data: Uint8Array): void => void waiting.push(data.slice());
    const terminal = { size: NO_SIZE, onData: (data: Uint8Array) => toTerminal(data) };
    const process = await container.exec(options.command, {
      stdin: options.stdin,
      ...(options.tty ? { terminal } : {}),
    });
    const sending = (data: Uint8Array) => void send(STDOUT, data.slice());
    for (const data of waiting) sending(data);
    toTerminal = sending;
    await converse(connection, process, options, send);
  } catch (error) {
    const status = failure(error, options);
    if (status === undefined) console.error("embedded exec:", error);
    await send(
      STATUS,
      encode(status ?? { status: "Failure", message: String(error), reason: "InternalError", code: 500 }),
    );
  }
  connection.close();
}

async function converse(
  connection: WebSocketConnection,
  process: ContainerProcess,
  options: ExecOptions,
  send: (channel: number, data: Uint8Array) => Promise<boolean>,
): Promise<void> {
  const left = new AbortController();
  const feeding = feed(connection, process).finally(() => {
    process.hangUp();
    left.abort();
  });
  const forward = async (channel: number, wanted: boolean, output: AsyncGenerator<Uint8Array> | undefined) => {
    for await (const data of output ?? []) if (wanted && !(await send(channel, data))) return;
  };
  // The status waits for whoever holds the outputs, as the container runtime's does.
  await Promise.all([
    forward(STDOUT, options.stdout, process.stdout?.(left.signal)),
    forward(STDERR, options.stderr, process.stderr?.(left.signal)),
  ]);
  const code = await Promise.race([process.exited, feeding.then(() => undefined)]);
  if (code !== undefined) await send(STATUS, encode(exitStatus(code)));
}

/** What the client sends, until it goes. While the process does not read, nothing more is read from the client. */
async function feed(connection: WebSocketConnection, process: ContainerProcess): Promise<void> {
  for await (const message of connection.messages()) {
    const data = message.subarray(1);
    if (message[0] === STDIN && data.length > 0) await process.write(data);
    else if (message[0] === RESIZE) process.resize(sizeOf(data));
    else if (message[0] === CLOSE && data[0] === STDIN) process.endInput();
  }
}

function sizeOf(data: Buffer): TerminalSize {
  const { Width = 0, Height = 0 }: { Width?: number; Height?: number } = JSON.parse(data.toString());
  return { cols: Width, rows: Height };
}

const encode = (status: object): Uint8Array => new TextEncoder().encode(JSON.stringify({ metadata: {}, ...status }));

const exitStatus = (code: number): object =>
  code === 0
    ? { status: "Success" }
    : {
        status: "Failure",
        message: `command terminated with non-zero exit code: command terminated with exit code ${code}`,
        reason: "NonZeroExitCode",
        details: { causes: [{ reason: "ExitCode", message: String(code) }] },
      };

/** The kubelet's words for a command that could not be started; undefined for a fault of ours. */
function failure(error: unknown, { command }: ExecOptions): object | undefined {
  const internal = (cause: string) => new ApiError(500, "InternalError", `Internal error occurred: ${cause}`).status;
  if (error instanceof NotRunning) return internal(`Internal error occurred: ${error.message}`);
  if (!(error instanceof StartError)) return undefined;
  const runtime = `unable to start container process: exec: "${command[0]}": ${error.message}: unknown`;
  return internal(
    `error executing command in container: failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: ${runtime}`,
  );
}
