import { parseArgs } from "node:util";
import type { Command, Flag } from "./command.ts";
import { type Environment, Invocation, UsageError } from "./invocation.ts";
import { didYouMean } from "./suggest.ts";

/** Every command knows it; it is looked for before anything else is judged. */
export const HELP: Flag = { name: "help", short: "h", help: "print this help" };

/** The words after the command's name as its flags and operands, or `help` when they ask for it. Throws UsageError. */
export function parse(command: Command, words: readonly string[], env: Environment): Invocation | "help" {
  const end = verbatimFrom(command, words);
  const { given, operands } = read(command, words.slice(0, end));
  if (given.has(HELP.name)) return "help";
  const rest = words.slice(end);
  const all = [...operands, ...(rest[0] === "--" ? rest.slice(1) : rest)];
  requireOperands(command, all);
  return new Invocation(command, all, given, env);
}

function read(command: Command, words: readonly string[]) {
  const flags = [...command.flags, HELP];
  const given = new Map<string, string[]>();
  const operands: string[] = [];
  for (const token of tokensOf(command, words)) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") {
      operands.push(token.value);
      continue;
    }
    const flag = flags.find(({ name }) => name === token.name);
    if (flag === undefined) throw unknownFlag(command, token.rawName, flags);
    if (flag.value === undefined && token.value !== undefined) throw new UsageError(`--${flag.name} takes no value`);
    if (flag.value !== undefined && token.value === undefined)
      throw new UsageError(`--${flag.name} needs a value: <${flag.value}>`);
    given.set(flag.name, [...(given.get(flag.name) ?? []), token.value ?? "true"]);
  }
  return { given, operands };
}

/** Where the words begin that are another program's: at the operand that is verbatim, or at the `--` before it. */
function verbatimFrom(command: Command, words: readonly string[]): number {
  const own = command.operands.findIndex(({ verbatim }) => verbatim);
  if (own === -1) return words.length;
  let operands = 0;
  let terminated = false;
  for (const token of tokensOf(command, words)) {
    if (token.kind === "option-terminator") {
      if (operands >= own) return token.index;
      terminated = true;
    }
    if (token.kind !== "positional") continue;
    // A second `--`, after a first one that stood before our own operands.
    if (operands >= own || (terminated && token.value === "--" && operands === own)) return token.index;
    operands++;
  }
  return words.length;
}

/** The words as flags and operands, by the names of the flags alone: whether they make sense is not judged. */
export function tokensOf(command: Command, words: readonly string[]) {
  const options = Object.fromEntries(
    [...command.flags, HELP].map(({ name, short, value }) => [
      name,
      { type: value === undefined ? ("boolean" as const) : ("string" as const), ...(short && { short }) },
    ]),
  );
  // Not strict: its errors have other words than ours, and no suggestion.
  return parseArgs({ args: [...words], options, strict: false, allowPositionals: true, tokens: true }).tokens;
}

function unknownFlag(command: Command, given: string, flags: readonly Flag[]): UsageError {
  const near = given.startsWith("--")
    ? didYouMean(
        given.slice(2),
        flags.map(({ name }) => name),
        "--",
      )
    : "";
  return new UsageError(`${command.name} has no flag ${given}${near}`);
}

function requireOperands(command: Command, operands: readonly string[]): void {
  const { operands: wanted } = command;
  const least = wanted.filter(({ optional }) => !optional).length;
  const missing = wanted.filter(({ optional }) => !optional)[operands.length];
  if (operands.length < least) throw new UsageError(`${command.name} needs <${missing?.name}>`);
  const most = wanted.some(({ repeated }) => repeated) ? Number.POSITIVE_INFINITY : wanted.length;
  if (operands.length > most) throw new UsageError(`${command.name} does not take "${operands[most]}"`);
}
