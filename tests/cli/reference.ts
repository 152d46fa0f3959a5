import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Command, Flag } from "../../src/cli/command.ts";
import { CONNECTION } from "../../src/cli/flags.ts";
import { commandHelp, flagHelp, flagText, overview, usage } from "../../src/cli/help.ts";
import { HELP } from "../../src/cli/parse.ts";
import { commands } from "../../src/cli/table.ts";

/**
 * What is generated from the table of commands: docs/cli.md, and the pages of help that the tests compare with. `bun
 * run cli:reference` writes both.
 */

const shown = commands.filter(({ group }) => group !== "hidden");

const INTRODUCTION = `# Command line

<!-- Generated from src/cli/table.ts by \`bun run cli:reference\`. -->

The image has one program. Plain \`k8s-runner\` serves, configured by its environment; with a command it does that instead. From a
clone, \`bun src/main.ts\` stands for \`k8s-runner\`; in a cluster, \`kubectl exec deploy/k8s-runner -- /app/k8s-runner ps\` asks the runner
in that very Pod.

A workload is named by its id, by the name of its Pod, or by the first letters of its id: 4 at least, and only where no other
workload's id begins with them. The runner is asked for all of its ids then, and nothing is done when it cannot tell.

Flags may stand anywhere before the words of another program (the command of \`exec\`, the arguments of \`start\`), as \`--flag value\`
or \`--flag=value\`; one-letter switches can be joined (\`-it\`). \`--\` ends the flags. Durations are Go's (\`90s\`, \`1h30m\`); a bare number
means seconds. A variable after a \`$\` is used where its flag is not given.

Data goes to standard output and everything else to standard error. With \`--json\` each message of the API is one line of protobuf's
JSON: names in camelCase, 64-bit numbers as strings, bytes in base64, and fields with their default present.

| Exit status | Meaning                                                                                                             |
| ----------- | ------------------------------------------------------------------------------------------------------------------- |
| 0           | done                                                                                                                |
| 1           | failed: \`k8s-runner: <code>: <message>\` on standard error, the code being gRPC's in lower case, such as \`not_found\` |
| 2           | the command line is wrong; nothing was done                                                                         |
| 124 to 143  | \`exec\` without an exit code of its command, see there                                                               |
| 130, 143    | ended by Ctrl-C or SIGTERM                                                                                          |
| 141         | the reader of the output has gone                                                                                   |
`;

/** The whole of docs/cli.md. */
export function reference(): string {
  const sections = [...shown]
    .sort((a, b) => ORDER.indexOf(a.group) - ORDER.indexOf(b.group))
    .map((command) => section(command));
  const connection = `## The connection\n\nThe client's commands take these flags; every command takes \`${flagText(HELP)}\`.\n\n${tableOf(CONNECTION.map(flagRow))}`;
  return [INTRODUCTION, connection, ...sections].join("\n");
}

const ORDER: readonly Command["group"][] = ["client", "process", "shell"];

function section(command: Command): string {
  const { name, group, summary, details = [], examples = [] } = command;
  const flags = command.flags.filter((flag) => !CONNECTION.includes(flag)).map(flagRow);
  const reaching = command.flags.some((flag) => CONNECTION.includes(flag)) ? [REACHING] : [];
  return [
    `## ${name}\n`,
    `\`${usage(command)}\`\n`,
    `${summary}.\n`,
    ...details.map(paragraph),
    ...(flags.length === 0 ? [] : [tableOf(flags)]),
    ...reaching,
    ...(examples.length === 0
      ? []
      : [
          ...(group === "shell" ? [] : ["<!-- not run: names what is not there -->\n"]),
          `\`\`\`sh\n${examples.map(([line, what]) => `${line} # ${what}\n`).join("")}\`\`\`\n`,
        ]),
  ].join("\n");
}

const REACHING = "It also takes the flags of [the connection](#the-connection).\n";

const tableOf = (rows: readonly string[]): string => `| Flag | Meaning |\n| --- | --- |\n${rows.join("")}`;

/** A paragraph of the help; its table of statuses becomes a list. */
function paragraph(text: string): string {
  const lines = text.split("\n").map((line) => line.replace(/^ {2}(\S.*?) {2}(.*)$/, "- $1: $2"));
  const first = lines.findIndex((line) => line.startsWith("- "));
  const spaced = first === -1 ? lines : [...lines.slice(0, first), "", ...lines.slice(first)];
  return `${spaced.map(escaped).join("\n")}\n`;
}

const flagRow = (flag: Flag): string => `| \`${flagText(flag)}\` | ${escaped(flagHelp(flag))} |\n`;

/** Angle brackets would be HTML. */
const escaped = (text: string): string => text.replace(/<[^>]+>/g, "`$&`").replaceAll("|", "\\|");

/** The pages of help that are kept to be compared with, by file. */
export const pages = (): ReadonlyMap<string, string> =>
  new Map([
    ["help", overview(commands)],
    ...shown
      .filter(({ name }) => ["exec", "start", "version"].includes(name))
      .map((command) => [`help-${command.name}`, commandHelp(command)] as const),
  ]);

if (import.meta.main) {
  writeFileSync(join(import.meta.dir, "../../docs/cli.md"), reference());
  for (const [name, page] of pages()) writeFileSync(join(import.meta.dir, `golden/${name}.txt`), page);
}
