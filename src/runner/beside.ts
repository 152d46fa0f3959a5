import type { Kube } from "../kube/client.ts";
import { allOf } from "../source.ts";
import { holdCommand } from "./kill.ts";

export interface Target {
  readonly pod: string;
  readonly container: string;
  /** Tells this container from every other one, of all times. */
  readonly place: string;
}

/** Output of which so much has come, for so long, is held: an execution beside it is then little. */
const LONG = { bytes: 16 * 1024 * 1024, ms: 1_000 };
/** For the release of a wrapper. */
const RELEASE_MS = 5_000;

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
 * to lose the last MiB of a long output when its command ended: one that is taken slowly, or of a busy node (Kubernetes 1.34).
 */
export class Hold {
  readonly #kube: Pick<Kube, "exec">;
  readonly #target: Target;
  readonly #executionId: string;
  readonly #released = Promise.withResolvers<void>();
  readonly #end = new AbortController();
  readonly #begunAt = performance.now();
  #bytes = 0;
  #isTaken = false;
  #isReleased = false;

  /** Released at the latest when `signal` aborts: whoever follows the output may be left suspended for ever. */
  constructor(kube: Pick<Kube, "exec">, target: Target, executionId: string, signal: AbortSignal) {
    this.#kube = kube;
    this.#target = target;
    this.#executionId = executionId;
    signal.addEventListener("abort", () => this.release(), { once: true });
  }

  /** Takes it once the output is a long one. */
  passed(bytes: number): void {
    if (this.#isTaken) return;
    this.#bytes += bytes;
    if (this.#bytes > LONG.bytes && performance.now() - this.#begunAt > LONG.ms) this.take();
  }

  take(): void {
    if (this.#isTaken || this.#isReleased) return;
    this.#isTaken = true;
    void this.#hold().catch(() => undefined); // that changes nothing that is told: output that is lost is seen
  }

  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    this.#released.resolve();
    if (this.#isTaken) setTimeout(() => this.#end.abort(), RELEASE_MS).unref();
  }

  /** By a command beside that releases it again once its own input ends: sooner than a third execution could. */
  async #hold(): Promise<void> {
    const { pod, container } = this.#target;
    const command = holdCommand(this.#executionId);
    const options = { container, command, stdin: true, stderr: true, signal: this.#end.signal };
    using channel = await this.#kube.exec(pod, options);
    void this.#released.promise.then(() => channel.end());
    for await (const _ of allOf(channel)); // what it prints is for people
  }
}
