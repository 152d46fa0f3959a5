import { closeSync } from "node:fs";
import { constants } from "node:os";
import { type Pipes, PipeWriter, readAll } from "./pipes.ts";
import type { Launch } from "./sandbox.ts";
import type { Watchdog } from "./watchdog.ts";

/** The program did not start. `kind` and message are those of launch.ts; `failed` also when the sandbox broke. */
export class StartError extends Error {
  override readonly name = "StartError";
  readonly kind: "missing" | "denied" | "failed";

  constructor(kind: StartError["kind"], message: string) {
    super(message);
    this.kind = kind;
  }
}

export interface TerminalSize {
  readonly cols: number;
  readonly rows: number;
}

export interface SpawnOptions {
  readonly launch: Launch;
  readonly pipes: Pipes;
  readonly watchdog: Watchdog;
  /** Without: /dev/null. */
  readonly stdin: boolean;
  /** A terminal instead of three pipes; its output comes as `onTerminal` calls, which nothing can hold back. */
  readonly terminal?: { readonly size: TerminalSize; readonly onData: (data: Uint8Array) => void };
}

/** Bun.spawn's exit as a shell and the kubelet tell it: 128 and the number of the signal. */
const codeOf = (exitCode: number | null, signal: NodeJS.Signals | number | null): number =>
  exitCode ?? 128 + (typeof signal === "number" ? signal : signal === null ? 0 : constants.signals[signal]);

/** One process of a container in a session and process group of its own. */
export class ContainerProcess {
  /** Exit code, 0 to 255. */
  readonly exited: Promise<number>;
  /** The program's process id on this machine; in a PID namespace not that of the process we spawned. */
  readonly pid: number;
  /** Undefined with a terminal. Each to be read to its end, or cut by a signal, for it holds a descriptor. */
  readonly stdout: ((signal?: AbortSignal) => AsyncGenerator<Uint8Array>) | undefined;
  readonly stderr: ((signal?: AbortSignal) => AsyncGenerator<Uint8Array>) | undefined;
  readonly #stdin: PipeWriter | undefined;
  readonly #terminal: Bun.Terminal | undefined;
  readonly #group: number;
  #ended = false;

  private constructor(o: {
    spawned: Bun.Subprocess;
    pid: number;
    stdin: PipeWriter | undefined;
    outputs: readonly number[];
    exited: Promise<number>;
  }) {
    const [stdout, stderr] = o.outputs;
    this.exited = o.exited;
    this.pid = o.pid;
    this.#group = o.spawned.pid;
    this.#stdin = o.stdin;
    this.#terminal = o.spawned.terminal;
    this.stdout = stdout === undefined ? undefined : (signal) => readAll(stdout, signal);
    this.stderr = stderr === undefined ? undefined : (signal) => readAll(stderr, signal);
    void this.exited.then(() => {
      this.#ended = true;
    });
  }

  /** Resolves when the program itself runs. Throws StartError. */
  static async start({ launch, pipes, watchdog, stdin, terminal }: SpawnOptions): Promise<ContainerProcess> {
    const report = pipes.open("writes");
    const input = stdin && terminal === undefined ? pipes.open("reads") : undefined;
    const outputs = terminal === undefined ? [pipes.open("writes"), pipes.open("writes")] : [];
    const theirs = [report, ...(input === undefined ? [] : [input]), ...outputs].map((pipe) => pipe.theirs);
    const [stdout, stderr] = outputs;
    try {
      const spawned = Bun.spawn(launch.command, {
        env: launch.environment,
        cwd: "/",
        detached: true,
        stdio: [input?.theirs ?? "ignore", stdout?.theirs ?? "ignore", stderr?.theirs ?? "ignore", report.theirs],
        ...(terminal === undefined
          ? {}
          : { terminal: { ...terminal.size, name: "xterm", data: (_, data) => terminal.onData(data) } }),
      });
      const exited = spawned.exited.then(() => codeOf(spawned.exitCode, spawned.signalCode));
      watchdog.watch(-spawned.pid);
      void exited.then(() => watchdog.forget(-spawned.pid));
      for (const descriptor of theirs.splice(0)) closeSync(descriptor);
      const pid = await started(report.ours).catch((error: unknown) => {
        for (const { ours } of [...outputs, ...(input === undefined ? [] : [input])]) closeSync(ours);
        spawned.terminal?.close();
        throw error;
      });
      if (pid !== spawned.pid) {
        watchdog.watch(pid);
        void exited.then(() => watchdog.forget(pid));
      }
      const writer = input === undefined ? undefined : new PipeWriter(input.ours);
      return new ContainerProcess({ spawned, pid, stdin: writer, outputs: outputs.map(({ ours }) => ours), exited });
    } finally {
      for (const descriptor of theirs) closeSync(descriptor);
    }
  }

  /** Resolves when the program's end has taken all of it (a terminal: at once); false when nobody reads any more. */
  async write(data: Uint8Array): Promise<boolean> {
    if (this.#terminal !== undefined && !this.#terminal.closed) return this.#terminal.write(data) >= 0;
    return this.#stdin?.write(data) ?? false;
  }

  endInput(): void {
    this.#stdin?.close();
  }

  resize({ cols, rows }: TerminalSize): void {
    if (this.#terminal !== undefined && !this.#terminal.closed && cols > 0 && rows > 0)
      this.#terminal.resize(cols, rows);
  }

  /** Closes input and terminal: programs in the terminal get SIGHUP. */
  hangUp(): void {
    this.#stdin?.close();
    this.#terminal?.close();
  }

  /** SIGTERM to the program alone, as containerd does. */
  terminate(): void {
    this.#signal(this.pid, "SIGTERM");
  }

  /** SIGKILL to the program and all of its process group; in a PID namespace the kernel kills the rest. */
  kill(): void {
    this.#signal(this.pid, "SIGKILL");
    this.#signal(-this.#group, "SIGKILL");
  }

  /** What of the group is left once the program has ended: a container's processes do not outlive its first one. */
  killRest(): void {
    signalQuietly(-this.#group, "SIGKILL");
  }

  #signal(target: number, signal: NodeJS.Signals): void {
    if (!this.#ended) signalQuietly(target, signal);
  }
}

function signalQuietly(target: number, signal: NodeJS.Signals): void {
  try {
    process.kill(target, signal);
  } catch {
    // ESRCH: it has ended meanwhile, which is what was wanted.
  }
}

/** Reads the report of launch.ts: the process id, or a StartError. */
async function started(descriptor: number): Promise<number> {
  let text = "";
  for await (const chunk of readAll(descriptor)) {
    text += Buffer.from(chunk).toString();
    // Not to its end: the shell that waits for the program keeps it open.
    if (text.includes("\n")) break;
  }
  const [, kind, rest = ""] = /^(started|missing|denied|failed) (.*)\n/.exec(text) ?? [];
  if (kind === "started") return Number(rest);
  if (kind === "missing" || kind === "denied" || kind === "failed") throw new StartError(kind, rest);
  throw new StartError("failed", "the sandbox could not be set up");
}
