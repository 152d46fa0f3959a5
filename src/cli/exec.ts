import { constants } from "node:os";
import {
  type ExecExit,
  ExecExitReason,
  type ExecResponse,
  ExecResponseSchema,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { sleep } from "../time.ts";
import { CALL_MS, type Connection, connect } from "./connection.ts";
import { type ExecStart, Execution, NOT_RUN, type Outputs } from "./execution.ts";
import { Failure, failureText } from "./failure.ts";
import { type Invocation, UsageError } from "./invocation.ts";
import { printJson } from "./json.ts";
import { OutputClosed, print, tell } from "./output.ts";
import { Screen } from "./screen.ts";
import { RawTerminal, requireTerminal, terminalSize } from "./terminal.ts";
import { environmentOf } from "./values.ts";
import { workloadId } from "./workload.ts";

/** Of a command that a limit has cut, as timeout(1) has it. */
const TIMED_OUT = 124;
/** From a signal to us until we end, whatever the runner says. */
const PATIENCE_MS = 10_000;

type Ending = (typeof ENDINGS)[number];
const ENDINGS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;

/** Runs a command in a workload; resolves with its exit code, or with what says why there is none (docs/cli.md). */
export async function exec(invocation: Invocation): Promise<number> {
  const start = startOf(invocation);
  const tty = invocation.on("tty");
  if (tty && invocation.on("json")) throw new UsageError("--json and --tty do not go together");
  if (tty) requireTerminal();
  const [word = ""] = invocation.operands;
  const container = invocation.text("container");
  using connection = await connect(invocation, CALL_MS).catch(notRun);
  const id = await workloadId(word, connection).catch(notRun);
  return await run(invocation, connection, { ...start, targetId: container === undefined ? id : `${id}:${container}` });
}

/** A failure before anything ran has a status that is no exit code of a command. */
function notRun(error: unknown): never {
  throw error instanceof UsageError ? error : new Failure(failureText(error), NOT_RUN, error);
}

/** The request but for its target. Throws UsageError. */
function startOf(invocation: Invocation): ExecStart {
  const [, ...commandArgv] = invocation.operands;
  const commandShell = invocation.text("shell") ?? "";
  if (commandArgv.length > 0 && commandShell !== "") throw new UsageError("a command and --shell do not go together");
  if (commandArgv.length === 0 && commandShell === "") throw new UsageError("exec needs <command>, or --shell");
  const tty = invocation.on("tty");
  return {
    commandArgv,
    commandShell,
    options: {
      tty,
      separateStderr: !tty,
      workdir: invocation.text("workdir") ?? "",
      env: environmentOf(invocation),
      timeoutMs: BigInt(Math.ceil(invocation.durationMs("timeout") ?? 0)),
      idleTimeoutMs: BigInt(Math.ceil(invocation.durationMs("idle-timeout") ?? 0)),
      killOnTimeout: invocation.on("kill"),
      exitTailBytes: 1n, // we have it all; 0 would mean 64 KiB
    },
  };
}

async function run(invocation: Invocation, connection: Connection, start: ExecStart): Promise<number> {
  const [tty, interactive] = [invocation.on("tty"), invocation.on("interactive")];
  const execution = new Execution(connection, start);
  using signals = new Signals(execution, invocation.on("kill"));
  const screen = new Screen();
  const reader = new Reader(() => void execution.cancel(invocation.on("kill")));
  let exit: ExecExit | undefined;
  try {
    using _ = tty && interactive ? new RawTerminal() : undefined;
    using __ = tty ? followSize(execution) : undefined;
    if (interactive) {
      void execution.feed(process.stdin).catch((error: unknown) => {
        tell(`standard input: ${String(error)}`);
        void execution.cancel(invocation.on("kill")); // a part of the input must not pass for all of it
      });
    } else if (!tty) execution.endInput();
    try {
      exit = await execution.result(outputs(invocation, screen, reader));
    } finally {
      // What ended by itself has tidied up itself, or left things as it wanted them.
      if (tty && exit?.reason !== ExecExitReason.COMPLETED) await print(screen.tidy()).catch(() => undefined);
    }
  } catch (error) {
    if (signals.status === undefined) throw reader.gone ?? error;
    if (reader.gone === undefined) tell("cancelled");
  }
  if (reader.gone !== undefined && signals.status === undefined) throw reader.gone;
  return exit === undefined ? (signals.status ?? NOT_RUN) : statusOf(exit, invocation, signals.status);
}

/**
 * Who reads our standard output. When that one has gone, the command is cancelled and the rest of its output thrown away, up to
 * its exit: a call that is left first is lost to the runner, which then cannot be told to kill.
 */
class Reader {
  readonly #left: () => void;
  gone: OutputClosed | undefined;

  constructor(left: () => void) {
    this.#left = left;
  }

  async give(print: () => Promise<void>): Promise<void> {
    if (this.gone !== undefined) return;
    try {
      await print();
    } catch (error) {
      if (!(error instanceof OutputClosed)) throw error;
      this.gone = error;
      this.#left();
    }
  }
}

function outputs(invocation: Invocation, screen: Screen, reader: Reader): Outputs {
  if (invocation.on("json"))
    return {
      stdout: async () => {},
      stderr: async () => {},
      event: (response: ExecResponse) => reader.give(() => printJson(ExecResponseSchema, response)),
    };
  return {
    stdout: (data) => {
      screen.see(data);
      return reader.give(() => print(data));
    },
    stderr: (data) =>
      new Promise((resolve) => {
        process.stderr.write(data, () => resolve()); // nowhere to tell of a failure
      }),
  };
}

/** The exit status, and on standard error why the command did not end by itself. */
function statusOf(exit: ExecExit, invocation: Invocation, signalled: number | undefined): number {
  const left = exit.killed ? " and killed" : "; it may still run in the workload, --kill would have ended it";
  switch (exit.reason) {
    case ExecExitReason.COMPLETED:
      return exit.exitCode & 0xff;
    case ExecExitReason.TIMEOUT:
    case ExecExitReason.IDLE_TIMEOUT: {
      const flag = exit.reason === ExecExitReason.TIMEOUT ? "timeout" : "idle-timeout";
      tell(`the command was cut by --${flag} ${invocation.text(flag)}${left}`);
      return TIMED_OUT;
    }
    case ExecExitReason.CANCELLED:
      tell(`cancelled${left}`);
      return signalled ?? 128 + constants.signals.SIGINT;
    default:
      tell("runner_error: the command could not be run, or the connection to it was lost");
      return NOT_RUN;
  }
}

/** Tells the program the size of our terminal, now and whenever it changes. */
function followSize(execution: Execution): Disposable {
  const send = () => {
    const size = terminalSize();
    if (size !== undefined) execution.resize(size);
  };
  send();
  process.stdout.on("resize", send);
  process.on("SIGWINCH", send); // also when only standard error is a terminal
  return {
    [Symbol.dispose]: () => {
      process.stdout.off("resize", send);
      process.off("SIGWINCH", send);
    },
  };
}

/**
 * Signals to us while a command runs: the first cancels it, the second kills it, the third ends us at once. (In a raw terminal Ctrl-C is
 * no signal but a key, and goes to the program.)
 */
class Signals implements Disposable {
  /** 128 + the number of the first signal; undefined before. */
  status: number | undefined;
  #count = 0;
  readonly #execution: Execution;
  readonly #kill: boolean;
  readonly #handlers = ENDINGS.map((signal) => ({ signal, handler: () => this.#take(signal) }));

  constructor(execution: Execution, kill: boolean) {
    this.#execution = execution;
    this.#kill = kill;
    for (const { signal, handler } of this.#handlers) process.on(signal, handler);
  }

  #take(signal: Ending): void {
    this.status ??= 128 + constants.signals[signal];
    this.#count++;
    if (this.#count > 2) process.exit(this.status);
    void this.#execution.cancel(this.#kill || this.#count > 1);
    void sleep(PATIENCE_MS).then(() => process.exit(this.status));
  }

  [Symbol.dispose](): void {
    for (const { signal, handler } of this.#handlers) process.off(signal, handler);
  }
}
