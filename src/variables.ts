import { durationMs } from "./duration.ts";
import { type DefaultedName, type VariableName, variables } from "./environment.ts";
import { shown } from "./pod/validate.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The environment while it is read, and everything that is wrong with it. A problem is told as `KEY: wrong, right`: where
 * the contract has a text for it (process.md section 1), `wrong` is that text, whole, so that whoever searches a log for it
 * still finds it.
 */
export class Variables {
  readonly problems: string[] = [];
  readonly #env: Environment;

  constructor(env: Environment) {
    this.#env = env;
  }

  /** The trimmed value; its default, or undefined, when the variable is not set; empty when it is set and blank. */
  text(key: DefaultedName): string;
  text(key: VariableName): string | undefined;
  text(key: VariableName): string | undefined {
    return this.#env[key]?.trim() ?? variables[key].default;
  }

  /** The same, but a blank value is as good as none. */
  nonBlank(key: DefaultedName): string;
  nonBlank(key: VariableName): string | undefined;
  nonBlank(key: VariableName): string | undefined {
    return this.#env[key]?.trim() || variables[key].default;
  }

  /** `wrong` may quote a value, but never a secret one; `right` says what to do, as in "set true or false". */
  wrong(key: VariableName, wrong: string, right: string): void {
    this.problems.push(`${key}: ${shown(wrong)}, ${right}`);
  }

  /** Go's strconv.ParseBool, whose spellings operators' manifests rely on. False when not set or wrong. */
  flag(key: VariableName): boolean {
    const value = this.text(key);
    if (value === undefined) return false;
    const found = booleans.get(value);
    if (value === "") this.wrong(key, `${key} must be true or false`, "set one of them or leave it unset");
    else if (found === undefined)
      this.wrong(key, `invalid ${key}: strconv.ParseBool: parsing "${value}": invalid syntax`, "set true or false");
    return found ?? false;
  }

  /** A whole number within these bounds; the least when it is wrong. */
  wholeNumber(key: DefaultedName, { least, most }: { least: number; most: number }): number {
    const text = this.nonBlank(key);
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    this.wrong(key, `invalid ${key}: "${text}"`, `set a whole number from ${least} to ${most}`);
    return least;
  }

  /** Milliseconds of a duration of at least `leastMs`; that when it is wrong. */
  duration(key: DefaultedName, leastMs: number): number {
    const text = this.nonBlank(key);
    const ms = durationMs(text);
    if (ms !== undefined && ms >= leastMs) return ms;
    this.wrong(key, `invalid ${key}: "${text}"`, `set a duration such as 90s or 15m, from ${leastMs / 1000}s up`);
    return leastMs;
  }
}

const booleans: ReadonlyMap<string, boolean> = new Map([
  ...["1", "t", "T", "TRUE", "true", "True"].map((word) => [word, true] as const),
  ...["0", "f", "F", "FALSE", "false", "False"].map((word) => [word, false] as const),
]);

/** The text of a failed read of a file, which Node ends with the path that our own texts begin with. */
export const fileProblem = (error: unknown): string =>
  error instanceof Error ? error.message.replace(/, open '.*'$/s, "") : "cannot be read";
