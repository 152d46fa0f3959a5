import { clientCommands } from "./client-table.ts";
import type { Command } from "./command.ts";

/**
 * Every command of the program but plain `k8s-runner`, which serves. What a command runs is imported when it runs, so that none
 * of it is loaded into a process that serves.
 */
export const commands: readonly Command[] = [
  {
    name: "check-config",
    group: "process",
    summary: "Read the configuration as the runner would, and tell all that is wrong with it",
    operands: [],
    flags: [],
    details: ["Ends with 0 when nothing is wrong, else with 1."],
    run: async ({ env }) => (await import("./check-config.ts")).checkConfig(env),
  },
  {
    name: "version",
    group: "process",
    summary: "Print the version of the runner, its commit and that of Bun",
    operands: [],
    flags: [{ name: "json", help: "print JSON" }],
    run: async (invocation) => (await import("./version.ts")).version(invocation),
  },
  ...clientCommands,
  {
    name: "completion",
    group: "shell",
    summary: "Print the script that completes command lines in a shell",
    operands: [{ name: "shell", kind: "shell" }],
    flags: [],
    details: [
      "For bash, zsh and fish; the first line of each script says where to load it. Ids of workloads are completed by\nasking the runner that the flags or the environment name.",
    ],
    examples: [['eval "$(k8s-runner completion bash)"', "for this session of bash"]],
    run: async (invocation) => (await import("./completion.ts")).completion(invocation),
  },
  {
    name: "__complete",
    group: "hidden",
    summary: "What the completion scripts ask for",
    operands: [
      { name: "shell", kind: "shell" },
      { name: "word", kind: "text", optional: true, repeated: true, verbatim: true },
    ],
    flags: [],
    run: async (invocation) => (await import("./complete.ts")).complete(invocation, commands),
  },
  {
    name: "help",
    group: "shell",
    summary: "Print the help of a command",
    operands: [{ name: "command", kind: "command", optional: true }],
    flags: [],
    run: async ({ operands: [name] }) => (await import("./cli.ts")).printHelp(name),
  },
];
