/** One container of a Pod: its program, its log and its state, as the kubelet tells them. */
import { randomBytes } from "node:crypto";
import { basename } from "node:path";
import type { Container, ContainerStatus } from "../../../src/kube/types.ts";
import { LogBuffer } from "./logbuffer.ts";
import { timestamp } from "./objects.ts";
import type { Pipes } from "./pipes.ts";
import { ContainerProcess, StartError, type TerminalSize } from "./process.ts";
import { DEFAULT_PATH, type Program, type Sandbox } from "./sandbox.ts";
import type { Watchdog } from "./watchdog.ts";

/** What a container's log keeps before its oldest lines go. */
const LOG_BYTES = 64 * 1024 * 1024;

export interface ContainerParts {
  readonly spec: Container;
  readonly hostname: string;
  readonly pipes: Pipes;
  readonly watchdog: Watchdog;
}

export class RunningContainer {
  readonly spec: Container;
  readonly log = new LogBuffer(LOG_BYTES);
  readonly #parts: ContainerParts;
  readonly #id = randomBytes(32).toString("hex");
  #state: NonNullable<ContainerStatus["state"]> = { waiting: { reason: "PodInitializing" } };
  #sandbox: Sandbox | undefined;
  #process: ContainerProcess | undefined;
  #startedAt: string | undefined;
  #killed = false;

  constructor(parts: ContainerParts) {
    this.spec = parts.spec;
    this.#parts = parts;
  }

  get running(): boolean {
    return this.#state.running !== undefined;
  }

  /** The code it ended with; undefined while it has not. */
  get exitCode(): number | undefined {
    return this.#state.terminated?.exitCode;
  }

  /** Why it waits; undefined once it was started. */
  get waitingReason(): string | undefined {
    return this.#state.waiting?.reason;
  }

  waits(reason: string, message?: string): void {
    this.#state = { waiting: { reason, ...(message === undefined ? {} : { message }) } };
  }

  status(init: boolean): ContainerStatus {
    const { name, image = "" } = this.spec;
    const started = this.#startedAt !== undefined;
    const sidecar = this.spec.restartPolicy === "Always";
    return {
      name,
      state: this.#state,
      lastState: {},
      ready: init && !sidecar ? this.exitCode === 0 : this.running,
      restartCount: 0,
      image: started ? fullImage(image) : image,
      imageID: started ? `sha256:${Bun.hash(image).toString(16).padStart(64, "0")}` : "",
      ...(started ? { containerID: `embedded://${this.#id}` } : {}),
      started: init && !sidecar ? false : this.running,
    };
  }

  /** Starts the program; resolves with its exit code when it and all its output have ended. `changed` after each step. */
  async run(sandbox: Sandbox, changed: () => void): Promise<number> {
    const { pipes, watchdog } = this.#parts;
    this.#sandbox = sandbox;
    try {
      const launch = sandbox.first(programOf(this.spec, this.#parts.hostname));
      this.#process = await ContainerProcess.start({ launch, pipes, watchdog, stdin: false });
    } catch (error) {
      if (!(error instanceof StartError)) throw error;
      this.#startedAt = timestamp();
      this.#ended({ exitCode: 128, reason: "StartError", message: startMessage(this.spec, error) });
      changed();
      return 128;
    }
    if (this.#killed) this.#process.kill(); // it was while it was being started
    this.#startedAt = timestamp();
    this.#state = { running: { startedAt: this.#startedAt } };
    changed();
    const { exited, stdout, stderr } = this.#process;
    const drained = Promise.all([this.#keep("stdout", stdout?.()), this.#keep("stderr", stderr?.())]);
    const exitCode = await exited;
    this.#process.killRest();
    await drained;
    this.#ended({ exitCode, reason: exitCode === 0 ? "Completed" : "Error" });
    changed();
    return exitCode;
  }

  async #keep(stream: "stdout" | "stderr", output: AsyncGenerator<Uint8Array> | undefined): Promise<void> {
    for await (const data of output ?? []) this.log.append(stream, data);
  }

  #ended({ exitCode, reason, message }: { exitCode: number; reason: string; message?: string }): void {
    this.log.close();
    this.#state = {
      terminated: {
        exitCode,
        reason,
        ...(message === undefined ? {} : { message }),
        startedAt: this.#startedAt ?? timestamp(),
        finishedAt: timestamp(),
        containerID: `embedded://${this.#id}`,
      },
    };
  }

  /** One more program beside the first one. Throws StartError; throws when the container does not run. */
  async exec(
    argv: readonly string[],
    o: { stdin: boolean; terminal?: { readonly size: TerminalSize; readonly onData: (data: Uint8Array) => void } },
  ): Promise<ContainerProcess> {
    if (this.#sandbox === undefined || this.#process === undefined || !this.running)
      throw new NotRunning(this.spec.name);
    const program = { ...programOf(this.spec, this.#parts.hostname), argv };
    if (o.terminal !== undefined) program.environment = [...program.environment, ["TERM", "xterm"]];
    const launch = this.#sandbox.further(program, this.#process.pid);
    const { pipes, watchdog } = this.#parts;
    return ContainerProcess.start({ launch, pipes, watchdog, ...o });
  }

  terminate(): void {
    this.#process?.terminate();
  }

  kill(): void {
    this.#killed = true;
    this.#process?.kill();
  }
}

export class NotRunning extends Error {
  constructor(container: string) {
    super(`container not found ("${container}")`);
  }
}

function programOf(spec: Container, hostname: string): Program & { environment: (readonly [string, string])[] } {
  const base: [string, string][] = [
    ["PATH", DEFAULT_PATH],
    ["HOSTNAME", hostname],
    ["HOME", "/root"],
  ];
  const known = new Map<string, string>();
  for (const { name, value = "" } of spec.env ?? []) known.set(name, expanded(value, known));
  const own = [...known].filter(([name]) => spec.env?.some((each) => each.name === name));
  const replaced = base.filter(([name]) => !known.has(name));
  const words = [...(spec.command ?? []), ...(spec.args ?? [])].map((word) => expanded(word, known));
  return {
    argv: words.length > 0 ? words : ["/bin/sh"],
    environment: [...replaced, ...own],
    workingDirectory: spec.workingDir || "/",
  };
}

/** `$(NAME)` of the variables known so far, `$$` for a dollar sign; what is not known stays as it is. */
const expanded = (text: string, known: ReadonlyMap<string, string>): string =>
  text.replace(/\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)/g, (all, name?: string) =>
    name === undefined ? "$" : (known.get(name) ?? all),
  );

/** As containerd names an image: with the registry that Docker's names leave out. */
function fullImage(image: string): string {
  const [first = "", ...rest] = image.split("/");
  const registry = rest.length > 0 && (first.includes(".") || first.includes(":") || first === "localhost");
  return registry ? image : `docker.io/${rest.length > 0 ? "" : "library/"}${image}`;
}

const startMessage = ({ command, args }: Container, error: StartError): string =>
  "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start " +
  `container process: error during container init: exec: "${basename(command?.[0] ?? args?.[0] ?? "")}": ${error.message}: unknown`;
