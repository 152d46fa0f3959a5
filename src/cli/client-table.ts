import type { Command, Flag, Operand } from "./command.ts";
import { CONNECTION, CONTAINER, json, STREAM_TIMEOUT, TIMEOUT } from "./flags.ts";

const WORKLOAD: Operand = { name: "workload", kind: "workload" };
const WORKLOADS: Operand = { ...WORKLOAD, repeated: true };
const ENV: Flag = {
  name: "env",
  short: "e",
  value: "name=value",
  repeated: true,
  help: "an environment variable; a name alone takes the value it has here",
};
const WORKDIR: Flag = { name: "workdir", short: "w", value: "path", help: "the directory to start in" };
const SINCE: Flag = { name: "since", value: "time", help: "only from then on: 2026-01-31T12:00:00Z, or 10m ago" };
const LABEL: Flag = { name: "label", short: "l", value: "name=value", repeated: true, help: "" };

const start: Command = {
  name: "start",
  group: "client",
  summary: "Start a workload and print its id",
  operands: [
    { name: "image", kind: "text", optional: true },
    { name: "argument", kind: "text", optional: true, repeated: true, verbatim: true },
  ],
  flags: [
    { name: "name", value: "name", help: "name of the main container; main if not said" },
    { name: "id", value: "uuid", help: "id of the workload; a random one if not said" },
    ENV,
    { ...LABEL, help: "a label of the Pod and of claims that are made for it" },
    WORKDIR,
    { name: "entrypoint", value: "path", help: "the program to run in place of the image's" },
    {
      name: "volume",
      short: "v",
      value: "name:path[:ro]",
      repeated: true,
      help: "a claim to mount; made if there is none, kept when the workload ends",
    },
    {
      name: "scratch",
      value: "name:path[:ro]",
      repeated: true,
      help: "an empty directory to mount; goes with the workload",
    },
    { name: "docker", help: "with a docker daemon beside it" },
    { name: "cap-add", value: "name", repeated: true, help: "a Linux capability of the main container" },
    {
      name: "file",
      short: "f",
      value: "file",
      kind: "file",
      help: "all of it from a StartWorkloadRequest in JSON or YAML; - is standard input",
    },
    { name: "wait", help: "until its main container runs" },
    json("print the StartWorkloadResponse"),
    { ...TIMEOUT, help: "give up after this long, such as 90s; 30s if not said, 5m with --wait, 0 for never" },
    ...CONNECTION,
  ],
  details: [
    "What follows the image are arguments for its entry point, in place of its own. Sidecars, init containers,\ninline files, pull credentials and DNS are told by --file.",
    "With --wait the id is printed first, and what is waited for is told on standard error. A workload that ends\nbadly or cannot start is a failure; it is left as it is.",
  ],
  examples: [
    ["k8s-runner start --wait alpine:3.19 -- sleep 600", "a workload that idles"],
    ["k8s-runner start -e TOKEN -v data:/data -w /data ghcr.io/example/agent:1", "TOKEN from here, and a volume"],
    ["k8s-runner start -f agent.yaml --wait", "everything from a file"],
  ],
  run: async (invocation) => (await import("./start.ts")).start(invocation),
};

const ps: Command = {
  name: "ps",
  group: "client",
  summary: "List the workloads",
  operands: [],
  flags: [
    { ...LABEL, help: "only those with this label" },
    { name: "running", help: "only those in phase running" },
    { name: "quiet", short: "q", help: "print ids alone" },
    json("print one InspectWorkloadResponse a line"),
    TIMEOUT,
    ...CONNECTION,
  ],
  details: [
    "KEY is the label workload_key, by which the platform knows a workload; UP is how long its main container\nhas been running.",
  ],
  run: async (invocation) => (await import("./ps.ts")).ps(invocation),
};

const inspect: Command = {
  name: "inspect",
  group: "client",
  summary: "Show the state of a workload and of its containers",
  operands: [WORKLOAD],
  flags: [json("print the InspectWorkloadResponse"), TIMEOUT, ...CONNECTION],
  run: async (invocation) => (await import("./inspect.ts")).inspect(invocation),
};

const exec: Command = {
  name: "exec",
  group: "client",
  summary: "Run a command in a workload",
  operands: [WORKLOAD, { name: "command", kind: "text", optional: true, repeated: true, verbatim: true }],
  flags: [
    { name: "interactive", short: "i", help: "hand standard input on to the command" },
    { name: "tty", short: "t", help: "give the command a terminal; -it for a session" },
    CONTAINER,
    { name: "shell", value: "text", help: "a command line for the workload's /bin/sh, in place of a command" },
    ENV,
    WORKDIR,
    { name: "timeout", value: "duration", help: "cut the command after this long; never if not said" },
    { name: "idle-timeout", value: "duration", help: "cut it after this long without input or output" },
    { name: "kill", help: "kill a command that is cut or cancelled, with its children" },
    json("print one ExecResponse a line"),
    ...CONNECTION,
  ],
  details: [
    "Ends with the command's own exit code (128 + n where signal n ended it). Where there is none:\n  124  a limit cut it\n  125  it was not run: no such workload, container or program, or the runner cannot be reached\n  126  the connection to the runner was lost; the command may still run\n  129, 130, 131, 143  cancelled, by SIGHUP, SIGINT, SIGQUIT or SIGTERM to this program (130: also by others)",
    "Ctrl-C goes to the command where there is a terminal (-it). Else the first cancels the command: its input and\noutput are closed, and what does not mind that lives on; --kill, or a second Ctrl-C while the first is on its\nway, kills it.",
  ],
  examples: [
    ["k8s-runner exec -it 3f2a -- sh", "a session"],
    ["tar -c src | k8s-runner exec -i 3f2a -- tar -x -C /work", "data into a command"],
    ["k8s-runner exec 3f2a --shell 'cd /work && make'", "a command line"],
  ],
  run: async (invocation) => (await import("./exec.ts")).exec(invocation),
};

const logs: Command = {
  name: "logs",
  group: "client",
  summary: "Print the log of a container",
  operands: [WORKLOAD],
  flags: [
    { name: "follow", short: "f", help: "go on until the container ends; waits for one that has not started" },
    CONTAINER,
    { name: "tail", short: "n", value: "lines", help: "only so many of the last lines" },
    SINCE,
    { name: "timestamps", help: "the time of each line before it" },
    json("print one StreamWorkloadLogsResponse a line"),
    STREAM_TIMEOUT,
    ...CONNECTION,
  ],
  details: [
    "The log is printed byte for byte. A failure is told on standard error: logs_gap when lines were lost to log\nrotation before they could be read, pod_deleted when the workload went while it was followed.",
  ],
  run: async (invocation) => (await import("./logs.ts")).logs(invocation),
};

const events: Command = {
  name: "events",
  group: "client",
  summary: "Print what Kubernetes tells of the workloads, as it happens",
  operands: [{ ...WORKLOAD, optional: true }],
  flags: [
    { name: "follow", short: "f", help: "as it always does; for those used to it" },
    { name: "for", value: "duration", help: "end well after this long" },
    SINCE,
    { name: "reason", value: "word", repeated: true, help: "only these reasons, such as BackOff" },
    { name: "type", value: "word", repeated: true, help: "only Normal or Warning" },
    json("print one StreamEventsResponse a line"),
    ...CONNECTION,
  ],
  details: [
    "First what the cluster still holds of the past, then what comes, until Ctrl-C: the API does not tell where\nthe past ends.",
  ],
  run: async (invocation) => (await import("./events.ts")).events(invocation),
};

const cp: Command = {
  name: "cp",
  group: "client",
  summary: "Copy files and directories into a workload, or out of it",
  operands: [
    { name: "source", kind: "path", repeated: true },
    { name: "destination", kind: "path" },
  ],
  flags: [
    { ...CONTAINER, help: "the container to copy out of; the main one if not said" },
    STREAM_TIMEOUT,
    ...CONNECTION,
  ],
  details: [
    "A path in a workload is <workload>:<absolute path>. What is copied goes into the destination where that is a\ndirectory, else it gets that very name; of <directory>/. the contents are copied. Modes, symbolic\nlinks and the times of files up to 3.5 MB are kept; owners are not, and setuid is not on the way out.",
    "The container needs tar, for copies into it under another name test, and for files above 3.5 MB /bin/sh. A copy\nout of a workload is put in its place when all of it has come; an archive whose paths would leave the\ndestination is refused.",
  ],
  examples: [
    ["k8s-runner cp src 3f2a:/work/", "a directory into a directory"],
    ["k8s-runner cp 3f2a:/work/out/. results", "the contents of one into another"],
  ],
  run: async (invocation) => (await import("./cp.ts")).cp(invocation),
};

const stop: Command = {
  name: "stop",
  group: "client",
  summary: "Stop workloads; their volumes stay",
  operands: [WORKLOADS],
  flags: [
    { name: "grace", value: "duration", help: "from the polite signal to the kill; 30s if not said" },
    { name: "wait", help: "until they are gone" },
    { ...TIMEOUT, help: "give up after this long; 30s if not said, 2m with --wait, 0 for never" },
    ...CONNECTION,
  ],
  run: async (invocation) => (await import("./remove.ts")).stop(invocation),
};

const rm: Command = {
  name: "rm",
  group: "client",
  summary: "Remove workloads, and with --volumes what they kept",
  operands: [WORKLOADS],
  flags: [
    { name: "volumes", help: "delete their claims too, with all data, also those that were there before" },
    { name: "force", short: "f", help: "kill at once, without a grace period" },
    { name: "wait", help: "until they are gone" },
    { ...TIMEOUT, help: "give up after this long; 30s if not said, 2m with --wait, 0 for never" },
    ...CONNECTION,
  ],
  run: async (invocation) => (await import("./remove.ts")).rm(invocation),
};

/** The client's commands. */
export const clientCommands: readonly Command[] = [start, ps, inspect, exec, logs, events, cp, stop, rm];
