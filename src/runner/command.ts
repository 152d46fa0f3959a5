import type { ExecOptions, ExecStartRequest } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { envNameProblems, trim } from "../pod/validate.ts";
import { handOverLines, MARK, PIPE_SCRIPT, TERMINAL_SCRIPT } from "./wrapper.ts";

/** Arguments of so many bytes may stand in a URL; RFC 9110, section 4.1, has every server take 8,000 of a whole one. */
const URL_BYTES = 4_000;

/** Why a command cannot be run: the text of an in-band `invalid_command` error (6.16.1). */
export class InvalidCommand extends Error {
  override readonly name = "InvalidCommand";
}

/** An argument vector for the cluster, and what is to be written to its stdin before the caller's own input. */
export interface Wrapped {
  readonly argv: string[];
  /** Empty when nothing is to be written. */
  readonly lines: string;
}

/** The command of a start message (6.16.1), in the ways in which it can be run (docs/exec.md). */
export class Command {
  readonly #argv: readonly string[];
  readonly #shell: string;
  readonly #env: readonly string[];
  readonly #workdir: string;
  readonly #tty: boolean;

  /** Throws InvalidCommand. */
  constructor({ commandArgv, commandShell, options }: ExecStartRequest) {
    this.#argv = commandArgv;
    this.#shell = trim(commandShell);
    if (this.#argv.length === 0 && this.#shell === "") throw new InvalidCommand("command required");
    if (this.#argv.length > 0 && this.#shell !== "")
      throw new InvalidCommand("command_argv and command_shell are mutually exclusive");
    this.#env = environmentOf(options);
    this.#workdir = options?.workdir ?? "";
    this.#tty = options?.tty ?? false;
  }

  /** Under a shell that marks its processes; values of env, shell text and long arguments do not stand in the URL. */
  wrapped(executionId: string): Wrapped {
    if (this.#shell === "" && this.#env.length === 0 && isShort(this.#argv)) return this.inUrl(executionId);
    const inUrl = this.#shell === "" && isShort(this.#argv);
    const lines = handOverLines({
      prefix: this.#prefix,
      path: this.#path,
      command: inUrl ? undefined : this.#shell === "" ? this.#argv : { shell: this.#shell },
      tty: this.#tty,
    });
    return { argv: [...this.#wrapper(executionId), "", "", ...(inUrl ? this.#argv : [])], lines };
  }

  /** The same with everything in the URL: for a terminal of an image that cannot set it raw. */
  inUrl(executionId: string): Wrapped {
    const program = `:${this.#inner[0] ?? ""}`;
    return { argv: [...this.#wrapper(executionId), this.#path, program, ...this.#prefix, ...this.#inner], lines: "" };
  }

  /** As given, for an image without /bin/sh; undefined where the request itself needs a shell. */
  get plain(): Wrapped | undefined {
    return this.#workdir === "" && this.#shell === ""
      ? { argv: [...this.#prefix, ...this.#inner], lines: "" }
      : undefined;
  }

  #wrapper(executionId: string): string[] {
    const script = this.#tty ? TERMINAL_SCRIPT : PIPE_SCRIPT;
    return ["/bin/sh", "-c", script, "sh", `${MARK}=${executionId}`, this.#workdir];
  }

  get #inner(): readonly string[] {
    return this.#shell === "" ? this.#argv : ["/bin/sh", "-c", this.#shell];
  }

  /** By `env`, for a shell would drop names that are no identifiers; it takes a name that begins with a dash for an option. */
  get #prefix(): string[] {
    if (this.#env.length === 0) return [];
    // A program with `=` in its name would be one more variable.
    return ["env", "--", ...this.#env, ...(this.#argv[0]?.includes("=") ? GUARD : [])];
  }

  get #path(): string {
    return this.#env.findLast((entry) => entry.startsWith("PATH="))?.slice("PATH=".length) ?? "";
  }
}

/** In front of a program that `env` would misread. */
const GUARD = ["/bin/sh", "-c", 'exec "$@"', "sh"];

const isShort = (argv: readonly string[]): boolean =>
  argv.reduce((sum, argument) => sum + Buffer.byteLength(argument), 0) <= URL_BYTES;

function environmentOf(options: ExecOptions | undefined): string[] {
  return (options?.env ?? []).map(({ name, value }) => {
    const key = trim(name);
    if (key === "") throw new InvalidCommand("env name required");
    const problems = envNameProblems(key);
    if (problems.length > 0) throw new InvalidCommand(`invalid env name: ${problems.join(", ")}`);
    return `${key}=${value}`;
  });
}
