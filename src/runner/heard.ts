import { sleep } from "../time.ts";
import type { Word } from "./marks.ts";

/** The command has ended, but the cluster does not say so: something else holds its output, or it left its input unread. */
const STATUS_GRACE_MS = 500;

/** How a try ended. */
export type End = { readonly code: number } | "not-run" | "no-stty";

/** What a wrapper has said of the end. */
export class Heard {
  readonly #signal: AbortSignal;
  #exits = 0;
  #code: number | undefined;
  #notRun = false;
  #noStty = false;
  #grace: Promise<undefined> | undefined;
  #overdue = false;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  word(word: Word): void {
    if (word === "not-run") this.#notRun = true;
    else if (word === "no-stty") this.#noStty = true;
    else if (typeof word === "object" && "exit" in word && ++this.#exits === 2) {
      // Both streams have told everything that the command itself wrote.
      this.#code = word.exit;
      this.#grace = sleep(STATUS_GRACE_MS, this.#signal).then(
        () => {
          this.#overdue = true;
          return undefined;
        },
        () => undefined,
      );
    }
  }

  /** Whether everything that the command wrote has come, or nothing was run. */
  get isWhole(): boolean {
    return this.#exits === 2 || this.#notRun || this.#noStty;
  }

  /**
   * How the try ended, by the cluster's code where the wrapper has told none. The wrapper's own is believed first: a cluster
   * was seen to tell success of a command that ended with 4 and left its input unread (Kubernetes 1.34 with containerd).
   */
  end(code?: number): End {
    const known = this.#code ?? code;
    return this.#noStty ? "no-stty" : this.#notRun || known === undefined ? "not-run" : { code: known };
  }

  /** Whether the command has ended, so that the cluster is waited for no longer than `orOverdue` does. */
  get isEnding(): boolean {
    return this.#grace !== undefined;
  }

  /** Whether the cluster is waited for no longer: it was in vain, or the execution was cut meanwhile. */
  get isOverdue(): boolean {
    return this.#overdue || (this.isEnding && this.#signal.aborted);
  }

  /** `step`, or undefined when the command has ended and the cluster is waited for no longer. */
  async orOverdue<T>(step: Promise<T>): Promise<T | undefined> {
    step.catch(() => undefined);
    return this.#overdue ? undefined : await Promise.race([step, this.#grace]);
  }
}
