import { commandHelp, overview, usage } from "./help.ts";
import { type Environment, UsageError } from "./invocation.ts";
import { parse } from "./parse.ts";
import { didYouMean } from "./suggest.ts";
import { commands } from "./table.ts";

/** The command line is wrong. */
const USAGE = 2;
/** What was to be done has failed. */
const FAILED = 1;

/** Carries out one command line, `words` being what follows the program's name. Resolves with the exit status; never rejects. */
export async function runCommand(words: readonly string[], env: Environment): Promise<number> {
  const [first = "", ...rest] = words;
  if (first === "--help" || first === "-h") return printHelp(undefined);
  const name = first === "--version" ? "version" : first;
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) return unknownCommand(first);
  try {
    const invocation = parse(command, rest, env);
    if (invocation !== "help") return await command.run(invocation);
    console.log(commandHelp(command).trimEnd());
    return 0;
  } catch (error) {
    console.error(`k8s-runner: ${error instanceof Error ? error.message : String(error)}`);
    if (!(error instanceof UsageError)) return FAILED;
    console.error(`Usage: ${usage(command)}\n"k8s-runner help ${name}" tells more.`);
    return USAGE;
  }
}

/** The help of one command, or of all. */
export function printHelp(name: string | undefined): number {
  const command = commands.find((candidate) => candidate.name === name);
  if (name !== undefined && command === undefined) return unknownCommand(name);
  console.log((command === undefined ? overview(commands) : commandHelp(command)).trimEnd());
  return 0;
}

function unknownCommand(name: string): number {
  const kind = name.startsWith("-") ? "flag" : "command";
  const known = commands.map((command) => command.name);
  console.error(`k8s-runner: unknown ${kind} "${name}"${didYouMean(name, known)}`);
  console.error('"k8s-runner --help" lists what is known.');
  return USAGE;
}
