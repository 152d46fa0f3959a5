import { describe, expect, test } from "bun:test";
import { ExecSession, type ExecStart, exec, summary } from "../support/exec.ts";
import { freshId, sharedRunner } from "../support/runner.ts";
import { refusal } from "../support/wait.ts";

const runner = sharedRunner();
let shared: Promise<{ id: string; target: string }> | undefined;
const target = async () => {
  shared ??= runner().run();
  return (await shared).target;
};
const open = async (start: ExecStart) => new ExecSession(runner().client, { targetId: await target(), ...start });
const run = async (start: ExecStart) => exec(runner().client, { targetId: await target(), ...start });

/** How many processes with this word among their arguments the container has that are alive. */
async function alive(word: string): Promise<number> {
  // Zombies have no arguments, and the shell that looks has the word only in its variable.
  const look = `for p in /proc/[0-9]*; do { read -r a < $p/cmdline; } 2>/dev/null; case $a in *"$W"*) echo $p ;; esac; a=; done`;
  const { stdout } = summary(await run({ commandShell: look, options: { env: [{ name: "W", value: word }] } }));
  return stdout.split("\n").filter((line) => line !== "").length;
}

/** A tree of sleeps that this number tells from all others. */
const forked = (seconds: number) => `sleep ${seconds} & (sleep ${seconds} & wait) & echo ready; sleep ${seconds}`;
let seconds = 100_000 + Math.floor(Math.random() * 800_000);

describe("a timeout", () => {
  test("ends the execution with TIMEOUT, and kills nothing unless asked", async () => {
    const started = performance.now();
    const { exit } = await run({ commandArgv: ["sleep", "20"], options: { timeoutMs: 300n } });
    expect(exit).toMatchObject({ exitCode: -1, killed: false });
    expect(summary(await run({ commandArgv: ["sleep", "20"], options: { timeoutMs: 300n } })).reason).toBe("TIMEOUT");
    expect(performance.now() - started).toBeGreaterThan(590);
  });

  test("with kill_on_timeout ends all that was forked, and says so when it is proven (ruling 4)", async () => {
    const mine = seconds++;
    const result = await run({ commandShell: forked(mine), options: { timeoutMs: 1_500n, killOnTimeout: true } });
    expect(summary(result)).toMatchObject({ reason: "TIMEOUT", exitCode: -1, stdout: "ready\n" });
    expect(result.exit?.killed).toBe(true);
    expect(await alive(String(mine))).toBe(0);
  });

  test("of an age never fires at once", async () => {
    for (const timeoutMs of [2n ** 31n, 2n ** 40n, 2n ** 64n - 1n]) {
      const options = { timeoutMs, idleTimeoutMs: timeoutMs };
      expect(summary(await run({ commandShell: "sleep 0.2; exit 7", options }))).toMatchObject({
        reason: "COMPLETED",
        exitCode: 7,
      });
    }
  });

  test("of idleness counts from the last message or output", async () => {
    const commandShell = "for i in 1 2 3 4; do echo $i; sleep 0.3; done; sleep 20";
    const result = summary(await run({ commandShell, options: { idleTimeoutMs: 900n } }));
    expect(result).toMatchObject({ reason: "IDLE_TIMEOUT", exitCode: -1, stdout: "1\n2\n3\n4\n" });
  });
});

describe("CancelExecution", () => {
  test("ends the execution: CANCELLED, code 0, nothing killed", async () => {
    await using session = await open({ commandArgv: ["sleep", "300"] });
    const executionId = await session.started();
    expect(await runner().client.cancelExecution({ executionId })).toMatchObject({ cancelled: true });
    const result = await session.result();
    expect(summary(result)).toMatchObject({ reason: "CANCELLED", exitCode: 0 });
    expect(result.exit?.killed).toBe(false);
    expect(result.errors).toEqual([]);
  });

  test("with force ends every process, proven", async () => {
    const mine = seconds++;
    await using session = await open({ commandShell: forked(mine) });
    const executionId = await session.started();
    await session.untilOutput("ready");
    expect(await alive(String(mine))).toBeGreaterThan(0);
    expect(await runner().client.cancelExecution({ executionId, force: true })).toMatchObject({ cancelled: true });
    const result = await session.result();
    expect(summary(result)).toMatchObject({ reason: "CANCELLED", exitCode: 0 });
    expect(result.exit?.killed).toBe(true);
    expect(await alive(String(mine))).toBe(0);
  });

  test("is false for an execution that is not known or has ended, and needs an id", async () => {
    const { executionId } = await run({ commandArgv: ["true"] });
    for (const id of [executionId, freshId()])
      expect(await runner().client.cancelExecution({ executionId: id })).toMatchObject({ cancelled: false });
    expect(await refusal(runner().client.cancelExecution({ executionId: " \t" }))).toEqual({
      code: "InvalidArgument",
      message: "execution_id_required",
    });
  });
});

test("a caller that resets the stream ends the execution, which can then not be cancelled any more", async () => {
  const session = await open({ commandArgv: ["sleep", "300"] });
  const executionId = await session.started();
  session.reset();
  for (const deadline = performance.now() + 5_000; performance.now() < deadline; )
    if (!(await runner().client.cancelExecution({ executionId })).cancelled) return;
  throw new Error("the execution is still known after 5 s");
});

test("removing the Pod ends its executions with one exit event", async () => {
  const { id, target: targetId } = await runner().run();
  await using session = new ExecSession(runner().client, { targetId, commandShell: "echo up; sleep 300" });
  await session.started();
  await session.untilOutput("up");
  await runner().client.removeWorkload({ workloadId: id, force: true });
  const { reason } = summary(await session.result());
  expect(reason).toMatch(/^(COMPLETED|RUNNER_ERROR)$/);
});

describe("in-band errors, on a stream that ends OK:", () => {
  const cases: [string, ExecStart, string, string][] = [
    ["a blank target", { targetId: " ", commandArgv: ["x"] }, "target_id_required", "target_id required"],
    ["no command", { targetId: "x" }, "invalid_command", "command required"],
    [
      "two commands",
      { targetId: "x", commandArgv: ["a"], commandShell: "b" },
      "invalid_command",
      "command_argv and command_shell are mutually exclusive",
    ],
    [
      "a blank env name",
      { targetId: "x", commandArgv: ["a"], options: { env: [{ name: " " }] } },
      "invalid_command",
      "env name required",
    ],
    [
      "an env name of two dots",
      { targetId: "x", commandArgv: ["a"], options: { env: [{ name: ".." }] } },
      "invalid_command",
      "invalid env name: must not be '..'",
    ],
    [
      "a Pod that is not there",
      { targetId: "missing-workload", commandArgv: ["a"] },
      "exec_start_failed",
      'pods "missing-workload" not found',
    ],
    [
      "a name that no Pod can have",
      { targetId: "../secrets/x", commandArgv: ["a"] },
      "exec_start_failed",
      'pods "../secrets/x" not found',
    ],
  ];
  test.each(cases)("%s", async (_what, start, code, message) => {
    const result = await exec(runner().client, start);
    expect(result.kinds).toEqual(["error"]);
    expect(result.errors).toMatchObject([{ code, message, retryable: false }]);
  });

  test("a container that the Pod does not have", async () => {
    const result = await run({ targetId: `${await target()}:nobody`, commandArgv: ["a"] });
    expect(result.errors).toMatchObject([{ code: "exec_start_failed", message: "container not found: nobody" }]);
  });

  test("a first message that is no start", async () => {
    await using session = new ExecSession(runner().client);
    session.stdin("x");
    expect((await session.result()).errors).toMatchObject([
      { code: "exec_start_required", message: "exec start required" },
    ]);
  });

  test("a second start, while the execution goes on", async () => {
    await using session = await open({ commandShell: "read -r line; echo got $line" });
    await session.started();
    session.start({ targetId: "x", commandArgv: ["y"] });
    session.stdin("it\n");
    const result = await session.result();
    expect(result.errors).toMatchObject([{ code: "exec_already_started", message: "duplicate exec start received" }]);
    expect(summary(result)).toMatchObject({ reason: "COMPLETED", stdout: "got it\n" });
  });
});

test("a caller that half-closes without a message gets OK and no events", async () => {
  await using session = new ExecSession(runner().client);
  session.halfClose();
  expect((await session.result()).kinds).toEqual([]);
});

describe("a terminal", () => {
  test("has the size that the newest resize gave, also one sent before started", async () => {
    // The runtime applies a size when it gets to it: the command waits for it, not for us.
    const commandShell = "until stty size | grep -q '^[1-9]'; do sleep 0.05; done 2>/dev/null; stty size";
    await using session = await open({ commandShell, options: { tty: true } });
    session.resize(80, 24);
    session.resize(132, 43);
    session.resize(0, 10);
    expect(await session.untilOutput("43 132")).toContain("43 132");
    expect(summary(await session.result())).toMatchObject({ reason: "COMPLETED", exitCode: 0, stderr: "" });
  });

  test("merges stderr, and is told apart from none", async () => {
    const result = await run({
      commandShell: "test -t 0 && echo tty; echo err >&2",
      options: { tty: true, separateStderr: true },
    });
    expect(summary(result)).toMatchObject({ stdout: "tty\r\nerr\r\n", stderr: "" });
  });

  test("is hung up by half-close, which cancels at once (ruling 1)", async () => {
    await using session = await open({ commandShell: "echo up; sleep 300", options: { tty: true } });
    await session.started();
    await session.untilOutput("up");
    session.halfClose();
    const result = await session.result();
    expect(summary(result)).toMatchObject({ reason: "CANCELLED", exitCode: 0 });
    expect(result.exit?.killed).toBe(false);
  });
});
