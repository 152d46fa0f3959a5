import type { Command, Flag, Operand } from "./command.ts";
import { HELP } from "./parse.ts";

/** Width of the column of names. */
const NAMES = 26;

const INTRODUCTION = `The Kubernetes-native runner of the agyn platform. Without a command it serves: its configuration
is the environment. With one of the client's commands it talks to a runner that serves elsewhere.`;

const GROUPS: readonly (readonly [Command["group"], string])[] = [
  ["process", "Runner"],
  ["client", "Client of a runner"],
  ["shell", "Shell and help"],
];

/** What `k8s-runner --help` prints. */
export function overview(commands: readonly Command[]): string {
  const groups = GROUPS.map(([group, title]) => {
    const rows = commands.filter((command) => command.group === group);
    return `${title}:\n${rows.map(({ name, summary }) => row(name, summary)).join("")}`;
  });
  return `Usage: k8s-runner [<command> [<flags>]]

${INTRODUCTION}

${groups.join("\n")}
"k8s-runner help <command>" tells more of each. Exit status: 0, 1 for a failure, 2 for a wrong
command line; exec ends as the command that it ran.
`;
}

/** What `k8s-runner help <command>` prints. */
export function commandHelp(command: Command): string {
  const { summary, details = [], examples = [] } = command;
  const sections = [
    `Usage: ${usage(command)}\n\n${summary}.\n`,
    ...details.map((paragraph) => `${paragraph}\n`),
    `Flags:\n${[...command.flags, HELP].map(flagRow).join("")}`,
    ...(examples.length === 0
      ? []
      : [`Examples:\n${examples.map(([line, what]) => `  # ${what}\n  ${line}\n`).join("")}`]),
  ];
  return sections.join("\n");
}

/** One line, such as `k8s-runner exec [<flags>] <workload> [--] <command>...`. */
export const usage = ({ name, operands, flags }: Command): string =>
  ["k8s-runner", name, ...(flags.length > 0 ? ["[<flags>]"] : []), ...operands.map(operandText)].join(" ");

function operandText({ name, optional, repeated, verbatim }: Operand): string {
  const text = `${verbatim ? "[--] " : ""}<${name}>${repeated ? "..." : ""}`;
  return optional ? `[${text}]` : text;
}

/** `-e, --env <name=value>`. */
export const flagText = ({ name, short, value }: Flag): string =>
  `${short ? `-${short}, ` : ""}--${name}${value ? ` <${value}>` : ""}`;

/** The flag's help and what is said of it by the table. */
export const flagHelp = ({ help, env, repeated }: Flag): string =>
  [help, ...(repeated ? ["may be repeated"] : []), ...(env ? [`$${env}`] : [])].join("; ");

function flagRow(flag: Flag): string {
  const text = flagText(flag);
  return row(flag.short ? text : `    ${text}`, flagHelp(flag));
}

/** A name and what it is; on a line of its own where the name is too long. */
function row(name: string, text: string): string {
  const gap = name.length <= NAMES ? " ".repeat(NAMES - name.length + 2) : `\n${" ".repeat(NAMES + 4)}`;
  return `  ${name}${gap}${text}\n`;
}
