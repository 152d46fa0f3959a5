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
    name: "doctor",
    group: "process",
    summary: "Prove that the runner can work as it is set up, and tell what to do where not",
    operands: [],
    flags: [
      { name: "json", help: "print one JSON object" },
      {
        name: "only",
        value: "checks",
        repeated: true,
        help: "these checks and what they need, such as rbac,exec",
      },
      { name: "image", value: "image", help: "image of the probe Pods, with /bin/sh (default alpine:3.19)" },
      { name: "timeout", value: "duration", help: "how long a probe Pod may take to run, 1s to 10m (default 60s)" },
      { name: "volumes", help: "also make a volume, mount it and remove it" },
    ],
    details: [
      "It uses the runner's environment and access to the cluster, and runs a Pod in the workload namespace\nfor some seconds. Each line is ok, warn, FAIL or skip; docs/doctor.md tells of every check.",
      "Ends with 0 when nothing failed, else with 1.",
    ],
    examples: [
      ["kubectl exec deployment/k8s-runner -- /app/k8s-runner doctor", "in the runner's own Pod"],
      ["k8s-runner doctor --only rbac", "the rights alone"],
    ],
    run: async (invocation) => (await import("./doctor.ts")).runDoctor(invocation),
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
