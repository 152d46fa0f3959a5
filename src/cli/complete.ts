import type { Command, Flag, Operand } from "./command.ts";
import { type Connection, connect } from "./connection.ts";
import { type Environment, Invocation } from "./invocation.ts";
import { print } from "./output.ts";
import { HELP, tokensOf } from "./parse.ts";

/** The shells that a completion script can be had for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** What may stand in place of the last word. */
interface Completion {
  readonly candidates: readonly (readonly [text: string, about: string])[];
  /** Whether names of files may, too; the shell knows them. */
  readonly files?: boolean;
}

/** Longest time to ask a runner for ids while somebody waits with a finger on the key, in ms. */
const ASK_MS = 1_000;

/**
 * What the completion scripts ask for: prints a line for each candidate, `text<TAB>about`, and `:file` where names of files fit. The operands
 * are the shell's name and the words of the command line after the program's name, the last of them being the one that is typed.
 */
export async function complete({ operands, env }: Invocation, commands: readonly Command[]): Promise<number> {
  const [shell, ...given] = operands;
  const words = shell === "bash" ? rejoined(given) : given;
  const current = words.at(-1) ?? "";
  const { candidates, files } = await completion(words.slice(0, -1), current, commands, env);
  // bash breaks words at = and : and replaces only what comes behind.
  const kept = shell === "bash" ? (/^.*[=:]/s.exec(current)?.[0].length ?? 0) : 0;
  const fitting = candidates.filter(([text]) => text.startsWith(current));
  await print(
    [...fitting.map(([text, about]) => `${text.slice(kept)}\t${about}`), ...(files ? [":file"] : [])]
      .map((line) => `${line}\n`)
      .join(""),
  );
  return 0;
}

async function completion(
  before: readonly string[],
  current: string,
  commands: readonly Command[],
  env: Environment,
): Promise<Completion> {
  const [name, ...words] = before;
  const shown = commands.filter(({ group }) => group !== "hidden");
  const names = shown.map((command) => [command.name, command.summary] as const);
  if (name === undefined)
    return { candidates: current.startsWith("-") ? [flagCandidate(HELP), ["--version", "print the version"]] : names };
  const command = shown.find((candidate) => candidate.name === name);
  if (command === undefined) return { candidates: [] };

  const tokens = tokensOf(command, words);
  const last = tokens.at(-1);
  const flagOf = (token: { name: string }) => command.flags.find((flag) => flag.name === token.name);
  const pending = last?.kind === "option" && last.value === undefined ? flagOf(last) : undefined;
  if (pending?.value !== undefined) return { candidates: [], files: pending.kind === "file" };
  const inline = /^--([^=]+)=/.exec(current)?.[1];
  if (inline !== undefined) return { candidates: [], files: flagOf({ name: inline })?.kind === "file" };

  const operands = tokens.filter(({ kind }) => kind === "positional").length;
  const operand = command.operands[operands] ?? command.operands.findLast(({ repeated }) => repeated);
  if (operand?.verbatim && operands >= command.operands.indexOf(operand)) return { candidates: [] };
  if (current.startsWith("-") && last?.kind !== "option-terminator") {
    const used = new Set(tokens.flatMap((token) => (token.kind === "option" ? [token.name] : [])));
    const flags = [...command.flags, HELP].filter(({ name, repeated }) => repeated || !used.has(name));
    return { candidates: flags.map(flagCandidate) };
  }
  const given = new Map<string, string[]>();
  for (const token of tokens)
    if (token.kind === "option" && flagOf(token) !== undefined) given.set(token.name, [token.value ?? "true"]);
  return operandCandidates(operand, current, names, () => ids(new Invocation(command, [], given, env)));
}

const flagCandidate = ({ name, help }: Flag): readonly [string, string] => [`--${name}`, help];

async function operandCandidates(
  operand: Operand | undefined,
  current: string,
  commands: readonly (readonly [string, string])[],
  workloads: () => Promise<readonly string[]>,
): Promise<Completion> {
  switch (operand?.kind) {
    case "workload":
      return { candidates: (await workloads()).map((id) => [id, "workload"]) };
    case "path":
      return { candidates: (await workloads()).map((id) => [`${id}:/`, "workload"]), files: !isRemote(current) };
    case "command":
      return { candidates: commands };
    case "shell":
      return { candidates: SHELLS.map((shell) => [shell, "shell"]) };
    case "file":
      return { candidates: [], files: true };
    default:
      return { candidates: [] };
  }
}

/** A path in a workload is begun: files of this machine do not fit. */
const isRemote = (text: string): boolean => /^[0-9A-Za-z-]+:/.test(text);

async function ids(invocation: Invocation): Promise<readonly string[]> {
  let connection: Connection | undefined;
  try {
    connection = await connect(invocation, ASK_MS);
    return (await connection.client.findWorkloadsByLabels({ all: true }, connection.limits())).targetIds;
  } catch {
    return []; // no place to tell of it: the line that is typed is not ours
  } finally {
    connection?.[Symbol.dispose]();
  }
}

/** The words as they were typed: bash makes words of their own of `=` and `:`. */
function rejoined(words: readonly string[]): string[] {
  const whole: string[] = [];
  let glue = false;
  for (const word of words) {
    const breaks = /^[=:]+$/.test(word);
    if ((breaks || glue) && whole.length > 0) whole.push(`${whole.pop()}${word}`);
    else whole.push(word);
    glue = breaks;
  }
  return whole;
}
