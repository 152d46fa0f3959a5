/**
 * A companion as ziti/main.go is one, without OpenZiti: its overlay network is a TCP port of this machine. Started by
 * `companionProgram` below as `bun companion.ts MODE RECORD -service NAME -socket PATH`; writes to RECORD what it was given.
 */
import { chmodSync, existsSync, mkdtempSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KEY_LINE } from "./gateway.ts";
import { relay } from "./relay.ts";
import { until } from "./wait.ts";

export type Mode =
  | "serve"
  /** Ends with status 3 before it is bound. */
  | "exit"
  /** Says nothing, and ends neither by SIGTERM nor when its stdin ends. */
  | "hang"
  /** The same once it is bound. */
  | "hang-bound"
  /** Cannot bind, and quotes the identity. */
  | "refuse"
  /** Says what is no message of its, and the key with it. */
  | "nonsense"
  /** Talks without end, in one line. */
  | "endless"
  /** Two checks that fail, one that goes well, then the identity is gone. */
  | "lost";

export interface Recorded {
  readonly pid: number;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly identity: string;
  /** Of its overlay network, 0 when it has none. */
  readonly port: number;
  /** What /proc says its core dumps would hold. */
  readonly coreDump: string;
}

/** An executable that is this companion in this mode, and what it was given once it has started. */
export function fakeCompanion(mode: Mode): { program: string; recorded: () => Promise<Recorded> } {
  const directory = mkdtempSync(join(tmpdir(), "companion-"));
  const program = join(directory, "companion");
  const record = join(directory, "record");
  writeFileSync(program, `#!/bin/sh\nexec ${process.execPath} ${import.meta.filename} ${mode} ${record} "$@"\n`);
  chmodSync(program, 0o755);
  const recorded = () =>
    until("the companion has started", (): Recorded | undefined =>
      // The cast: it is written by `main` below.
      existsSync(record) ? (JSON.parse(readFileSync(record, "utf8")) as Recorded) : undefined,
    );
  return { program, recorded };
}

const say = (event: object) => process.stdout.write(`${JSON.stringify(event)}\n`);

async function main(mode: Mode, record: string, args: string[]): Promise<void> {
  const socketPath = args[3] ?? "";
  let identity = "";
  const whole = Promise.withResolvers<void>();
  process.stdin.on("data", (data) => {
    identity += data;
    if (identity.includes("\n")) whole.resolve();
  });
  const hangs = mode.startsWith("hang");
  process.stdin.on("end", () => hangs || process.exit(0));
  await whole.promise;
  const connections = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (caller) => {
    connections.add(caller);
    caller.on("close", () => connections.delete(caller));
    relay(caller, connect({ path: socketPath, allowHalfOpen: true }));
  });
  const leave = async () => {
    await new Promise((resolve) => server.close(resolve)); // which waits for the connections
    process.exit(0);
  };
  process.on("SIGTERM", () => hangs || void leave());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const coreDump = readFileSync("/proc/self/coredump_filter", "utf8").trim();
  const recorded = { pid: process.pid, args, env: process.env, identity, port, coreDump };
  writeFileSync(`${record}.new`, JSON.stringify(recorded));
  renameSync(`${record}.new`, record); // whole, or not there
  if (mode === "exit") process.exit(3);
  if (mode === "hang") return;
  if (mode === "refuse") {
    console.error(`level=warning msg="key ${KEY_LINE}"`);
    say({ event: "failed", error: `listen on ziti service x: no such service, key ${KEY_LINE}` });
    await Bun.sleep(20); // whoever reads this reads it before the end
    process.exit(1);
  }
  if (mode === "nonsense") process.stdout.write(`hello, ${KEY_LINE}\n`);
  else if (mode === "endless") for (let index = 0; index < 100; index++) process.stdout.write("x".repeat(4096));
  else say({ event: "bound" });
  if (mode === "lost") {
    for (const failures of [1, 2]) say({ event: "lost", failures, error: "controller unavailable" });
    say({ event: "alive" });
    say({ event: "alive" });
    say({ event: "failed", error: "ziti identity is no longer usable after 5 checks: not authorized" });
  }
}

if (import.meta.main) {
  const [, , mode, record, ...args] = process.argv;
  // The cast: it is started by `fakeCompanion` alone.
  await main(mode as Mode, record ?? "", args);
}
