import { commandHelp, overview, usage } from "./help.ts";
import { type Environment, UsageError } from "./invocation.ts";
import { OutputClosed, print, tell } from "./output.ts";
import { parse } from "./parse.ts";
import { didYouMean } from "./suggest.ts";
import { commands } from "./table.ts";

/** The command line is wrong. */
const USAGE = 2;
/** Nobody reads our output any more: 128 + SIGPIPE, as a program ends that does not know better. */
const SIGPIPE = 141;

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
    await print(commandHelp(command));
    return 0;
  } catch (error) {
    if (error instanceof OutputClosed) return SIGPIPE;
    if (error instanceof UsageError) {
      tell(error.message);
      console.error(`Usage: ${usage(command)}\n"k8s-runner help ${name}" tells more.`);
      return USAGE;
    }
    const { failureText, Failure, FAILED } = await import("./failure.ts");
    tell(failureText(error));
    return error instanceof Failure ? error.status : FAILED;
  }
}

/** The help of one command, or of all. */
export async function printHelp(name: string | undefined): Promise<number> {
  const command = commands.find((candidate) => candidate.name === name);
  if (name !== undefined && command === undefined) return unknownCommand(name);
  await print(command === undefined ? overview(commands) : commandHelp(command));
  return 0;
}

function unknownCommand(name: string): number {
  const kind = name.startsWith("-") ? "flag" : "command";
  const known = commands.filter(({ group }) => group !== "hidden").map((command) => command.name);
  tell(`unknown ${kind} "${name}"${didYouMean(name, known)}`);
  console.error('"k8s-runner --help" lists what is known.');
  return USAGE;
}
