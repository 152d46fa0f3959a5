import { durationMs, durationProblem } from "../duration.ts";
import type { Command, Flag } from "./command.ts";

/** The command line is wrong: told with the command's usage, exit status 2, before anything was done. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** A command line that was understood: a known command, its flags and its operands. */
export class Invocation {
  readonly command: Command;
  /** In the order of the command line; as many as the command takes. */
  readonly operands: readonly string[];
  readonly env: Environment;
  readonly #given: ReadonlyMap<string, readonly string[]>;

  /** `given`: the values of each flag on the command line, in order; a switch has the value "true". */
  constructor(
    command: Command,
    operands: readonly string[],
    given: ReadonlyMap<string, readonly string[]>,
    env: Environment,
  ) {
    this.command = command;
    this.operands = operands;
    this.env = env;
    this.#given = given;
  }

  /** Whether the switch is on. Its variable, if it has one, takes `1` and `true`. */
  on(name: string): boolean {
    return ["1", "true"].includes(this.text(name) ?? "");
  }

  /** Whether the flag stands on the command line itself. */
  has(name: string): boolean {
    return this.#given.has(name);
  }

  /** The flag's value, from the command line or its variable; undefined without either. */
  text(name: string): string | undefined {
    const { env } = this.#flag(name);
    return this.#given.get(name)?.at(-1) ?? (env === undefined ? undefined : this.env[env]?.trim() || undefined);
  }

  texts(name: string): readonly string[] {
    this.#flag(name);
    return this.#given.get(name) ?? [];
  }

  /** A whole number from 0 to 2^32 - 1. */
  count(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    if (!/^\d{1,10}$/.test(text) || Number(text) > 0xffffffff)
      throw new UsageError(`--${name}: "${text}" is no whole number`);
    return Number(text);
  }

  /** Milliseconds; the text is in Go's syntax (`90s`, `1h30m`), and a bare number means seconds. */
  durationMs(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const ms = /^\d+$/.test(text) ? Number(text) * 1000 : durationMs(text);
    if (ms === undefined) throw new UsageError(`--${name}: ${durationProblem(text)}`);
    if (ms < 0) throw new UsageError(`--${name}: "${text}" is negative`);
    return ms;
  }

  /** Asking for a flag that the table does not have is a fault of ours, found by any test of the command. */
  #flag(name: string): Flag {
    const flag = this.command.flags.find((candidate) => candidate.name === name);
    if (flag === undefined) throw new TypeError(`${this.command.name} has no flag ${name}`);
    return flag;
  }
}
