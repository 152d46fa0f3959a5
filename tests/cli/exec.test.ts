import { beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { linesOf } from "../support/main.ts";
import { sharedRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";
import { ended, program } from "./program.ts";

const runner = sharedRunner();
let id = "";
let cli: ReturnType<typeof program>;

beforeAll(async () => {
  ({ id } = await runner().run({ sidecars: [{ image: "alpine:3.19", name: "helper", cmd: ["sleep", "300"] }] }));
  cli = program(new URL(runner().baseUrl).host);
});

const sh = (text: string, ...flags: string[]) => cli.run(["exec", ...flags, id, "--", "sh", "-c", text]);
const sha = (data: Uint8Array) => createHash("sha256").update(data).digest("hex");

/** Bytes of all values that look like nothing in particular. */
function noise(length: number): Uint8Array {
  const data = new Uint8Array(length);
  for (let at = 0, x = 1; at < length; at++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    data[at] = x >>> 24;
  }
  return data;
}

test("exec gives back the command's output, its error output and its exit code", async () => {
  expect(await sh("echo out; echo err >&2; exit 7")).toEqual({ status: 7, stdout: "out\n", stderr: "err\n" });
  expect(await cli.run(["exec", `workload-${id}`, "echo", "a  b", "--c", "*"])).toEqual({
    status: 0,
    stdout: "a  b --c *\n",
    stderr: "",
  });
  expect(await sh("kill -9 $$")).toMatchObject({ status: 137 });
});

test("exec has a shell, an environment, a directory and a container to choose", async () => {
  expect((await cli.run(["exec", id, "--shell", "echo $((6 * 7))"])).stdout).toBe("42\n");
  expect((await sh("echo $A-$B; pwd", "-e", "A=x y", "-e", "B=", "-w", "/tmp")).stdout).toBe("x y-\n/tmp\n");
  expect(
    (await cli.run(["exec", "-c", "helper", id, "--", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"])).stdout,
  ).toContain("sleep 300");
});

test("without --interactive the command finds the end of its input at once", async () => {
  expect(await cli.run(["exec", id, "cat"], { stdin: "not for you" })).toEqual({ status: 0, stdout: "", stderr: "" });
});

test("exec -i hands on every byte of standard input and then its end, and brings back every byte of output", async () => {
  for (const length of [0, 1, 65_536, 3_000_001]) {
    const data = noise(length);
    expect(sha(await cli.bytes(["exec", "-i", id, "cat"], data))).toBe(sha(data));
  }
});

test("a command that does not read its input holds it back", async () => {
  const child = cli.piped(["exec", "-i", id, "--", "sh", "-c", "head -c 1; sleep 300"]);
  const piece = new Uint8Array(1 << 20);
  const write = async () => {
    child.stdin.write(piece);
    await child.stdin.flush();
    return "taken";
  };
  // Between us and the command there is room for some megabytes; a program that read on and on would take all of it.
  let taken = 0;
  while (taken < 64 && (await Promise.race([write(), Bun.sleep(2_000)])) === "taken") taken++;
  expect(taken).toBeGreaterThan(0);
  expect(taken).toBeLessThan(64);
  child.kill("SIGINT");
  expect(await child.exited).toBe(130);
});

test("a command that is not there, a workload or a container that is not there: 125, and why", async () => {
  expect(await cli.run(["exec", id, "no-such-program"])).toEqual({
    status: 125,
    stdout: "",
    stderr: "k8s-runner: runner_error: the command could not be run, or the connection to it was lost\n",
  });
  const unknown = crypto.randomUUID();
  expect(await cli.run(["exec", unknown, "ls"])).toEqual({
    status: 125,
    stdout: "",
    stderr: `k8s-runner: exec_start_failed: pods "${unknown}" not found\n`,
  });
  expect(await cli.run(["exec", "-c", "nope", id, "ls"])).toEqual({
    status: 125,
    stdout: "",
    stderr: "k8s-runner: exec_start_failed: container not found: nope\n",
  });
});

test("a limit cuts the command with 124; with --kill it is killed, and that is told", async () => {
  const cut = await cli.run(["exec", "--timeout", "300ms", id, "sleep", "300"]);
  expect(cut).toEqual({
    status: 124,
    stdout: "",
    stderr:
      "k8s-runner: the command was cut by --timeout 300ms; it may still run in the workload, --kill would have ended it\n",
  });
  expect(await cli.run(["exec", "--idle-timeout", "300ms", "--kill", id, "sleep", "300"])).toEqual({
    status: 124,
    stdout: "",
    stderr: "k8s-runner: the command was cut by --idle-timeout 300ms and killed\n",
  });
});

test.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const)("%s cancels the command: status %i, and with --kill nothing of it is left", async (signal, status) => {
  const child = cli.start(["exec", "--kill", id, "--", "sh", "-c", `echo up; exec sleep 3${status}`]);
  const lines = linesOf(child.stdout);
  expect((await lines.next()).value).toBe("up");
  child.kill(signal);
  expect(await child.stderr.text()).toBe("k8s-runner: cancelled and killed\n");
  expect(await child.exited).toBe(status);
  const left = await sh(
    `for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep -c '^sleep 3${status}'`,
  );
  expect(left.stdout).toBe("0\n");
});

test("a cancelled command without --kill is told to live on perhaps", async () => {
  const child = cli.start(["exec", id, "--", "sh", "-c", "echo up; exec sleep 300"]);
  expect((await linesOf(child.stdout).next()).value).toBe("up");
  child.kill("SIGINT");
  expect(await child.stderr.text()).toBe(
    "k8s-runner: cancelled; it may still run in the workload, --kill would have ended it\n",
  );
  expect(await child.exited).toBe(130);
});

test("a reader of the output that leaves ends the command, without a word", async () => {
  const words = ["exec", "--kill", id, "--", "sh", "-c", "while :; do echo y; done"];
  const shell = Bun.spawn(["bash", "-c", '"$@" | head -n 1; echo "$PIPESTATUS"', "bash", ...cli.line(words)], {
    env: cli.env,
    stdout: "pipe",
    stderr: "pipe",
  });
  expect(await ended(shell)).toEqual({ status: 0, stdout: "y\n141\n", stderr: "" });
  await until("the command has ended", async () => {
    const left = await sh(
      "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep -c '[w]hile :'",
    );
    return left.stdout === "0\n" ? true : undefined;
  });
});

test("exec --json prints every event as one line of protobuf's JSON, and ends with the command's code", async () => {
  const { status, stdout } = await sh("printf x; printf y >&2; exit 3", "--json");
  expect(status).toBe(3);
  const events: Record<string, Record<string, unknown>>[] = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(events.map((event) => Object.keys(event)[0]).toSorted()).toEqual(["exit", "started", "stderr", "stdout"]);
  expect(events.find(({ stdout }) => stdout)?.stdout).toMatchObject({ seq: "1", data: "eA==" });
  expect(events.at(-1)?.exit).toMatchObject({ exitCode: 3, reason: "EXEC_EXIT_REASON_COMPLETED", killed: false });
});
