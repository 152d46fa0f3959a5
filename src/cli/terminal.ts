import { spawnSync } from "node:child_process";
import { isatty } from "node:tty";
import { FAILED, Failure } from "./failure.ts";
import { UsageError } from "./invocation.ts";

export interface Size {
  readonly cols: number;
  readonly rows: number;
}

/**
 * This process's terminal in raw mode: every key goes to the program at the other end, and what that writes is shown as it is.
 * Given back as it was on disposal, and whenever the process ends while it can still do something.
 */
export class RawTerminal implements Disposable {
  #restore: (() => void) | undefined;
  readonly #onExit = () => this[Symbol.dispose]();
  readonly #onCrash = (error: unknown) => {
    this[Symbol.dispose]();
    console.error(error);
    process.exit(FAILED);
  };

  constructor() {
    requireTerminal();
    this.#restore = raw();
    process.on("exit", this.#onExit);
    process.on("uncaughtException", this.#onCrash);
    process.on("unhandledRejection", this.#onCrash);
  }

  [Symbol.dispose](): void {
    this.#restore?.();
    this.#restore = undefined;
    process.off("exit", this.#onExit);
    process.off("uncaughtException", this.#onCrash);
    process.off("unhandledRejection", this.#onCrash);
  }
}

/** Throws UsageError unless standard input is a terminal. */
export function requireTerminal(): void {
  if (!isatty(0))
    throw new UsageError("--tty needs a terminal as standard input; for a pipe, --interactive alone is right");
}

/** Of the terminal that shows our output; undefined when none does. */
export function terminalSize(): Size | undefined {
  const shown = [process.stdout, process.stderr].find(({ isTTY }) => isTTY);
  if (shown === undefined || !(shown.columns > 0) || !(shown.rows > 0)) return undefined;
  return { cols: shown.columns, rows: shown.rows };
}

/**
 * Sets the terminal raw and returns what undoes it. By stty(1), for the runtime's own raw mode leaves output processing on: a bare
 * line feed, which full-screen programs use to move the cursor down, would become a new line.
 */
function raw(): () => void {
  const stty = (...args: string[]) =>
    spawnSync("stty", args, { stdio: ["inherit", "pipe", "ignore"], encoding: "utf8" });
  const before = stty("-g");
  if (before.status === 0 && stty("raw", "-echo").status === 0) return () => void stty(before.stdout.trim());
  if (process.stdin.setRawMode(true).isRaw !== true) throw new Failure("the terminal cannot be set raw");
  return () => void process.stdin.setRawMode(false); // no stty here: better than nothing
}
