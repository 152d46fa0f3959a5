import type { Kube } from "../kube/client.ts";
import { allOf } from "../source.ts";
import { holdCommand, releaseCommand } from "./kill.ts";

export interface Target {
  readonly pod: string;
  readonly container: string;
  /** Tells this container from every other one, of all times. */
  readonly place: string;
}

/** For a signal to a wrapper. */
const SIGNAL_MS = 5_000;

/** Runs a command of our own in a container, beside what runs there; the exit code. Throws KubeError. */
export async function runBeside(
  kube: Pick<Kube, "exec">,
  { pod, container }: Target,
  command: string[],
  signal: AbortSignal,
): Promise<number> {
  using channel = await kube.exec(pod, { container, command, stderr: true, signal });
  for await (const _ of allOf(channel)); // it prints nothing that matters
  return await channel.exitCode;
}

/**
 * Keeps the wrapper of an execution in place after its command has ended, until all output has come. API servers were seen
 * to lose the last MiB of a long output that is taken slowly when its command ended (Kubernetes 1.34).
 */
export class Hold {
  readonly #kube: Pick<Kube, "exec">;
  readonly #target: Target;
  readonly #executionId: string;
  #taken: Promise<void> | undefined;
  #released = false;

  /** Released at the latest when `signal` aborts: whoever follows the output may be left suspended for ever. */
  constructor(kube: Pick<Kube, "exec">, target: Target, executionId: string, signal: AbortSignal) {
    this.#kube = kube;
    this.#target = target;
    this.#executionId = executionId;
    signal.addEventListener("abort", () => this.release(), { once: true });
  }

  take(): void {
    if (!this.#released) this.#taken ??= this.#run(holdCommand(this.#executionId));
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    void this.#taken?.then(() => this.#run(releaseCommand(this.#executionId)));
  }

  /** A failure changes nothing that is told: output that is lost is seen, and a wrapper ends by itself some time. */
  async #run(command: string[]): Promise<void> {
    await runBeside(this.#kube, this.#target, command, AbortSignal.timeout(SIGNAL_MS)).catch(() => undefined);
  }
}
