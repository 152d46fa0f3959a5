import { describe, expect, test } from "bun:test";
import { ExecSession, type ExecStart, exec, summary } from "../support/exec.ts";
import { idling, sharedRunner } from "../support/runner.ts";

const runner = sharedRunner();

/** One workload for the tests that only need a container to run in. */
let shared: Promise<{ id: string; target: string }> | undefined;
const target = async () => {
  shared ??= runner().run({
    main: idling({ env: [{ name: "WHO", value: "main" }] }),
    sidecars: [idling({ name: "helper", env: [{ name: "WHO", value: "helper" }] })],
  });
  return await shared;
};
const run = async (start: ExecStart, stdin?: string | Uint8Array) =>
  exec(runner().client, { targetId: (await target()).target, ...start }, stdin);

test("a program runs with its arguments as they are, and says how it ended", async () => {
  const args = ["%s|%s|%s", "two words", "$HOME `id` \"quoted\" 'too'", "-n"];
  const result = await run({ commandArgv: ["printf", ...args] });
  expect(summary(result)).toEqual({
    reason: "COMPLETED",
    exitCode: 0,
    stdout: "two words|$HOME `id` \"quoted\" 'too'|-n",
    stderr: "",
  });
  expect(result.kinds).toEqual(["started", "stdout", "exit"]);
  expect(result.exit?.killed).toBe(false);
});

test("a shell line runs in the image's shell, tabs and quotes unchanged", async () => {
  const result = await run({ commandShell: `  printf 'a\tb' ; echo "$((6 * 7))" ` });
  expect(summary(result)).toMatchObject({ reason: "COMPLETED", stdout: "a\tb42\n" });
});

test.each([0, 1, 42, 126, 127, 137, 255])("exit code %d is told as it is", async (code) => {
  expect(summary(await run({ commandShell: `exit ${code}` }))).toMatchObject({ reason: "COMPLETED", exitCode: code });
});

test("a process that a signal ended shows 128 and the signal", async () => {
  expect(summary(await run({ commandShell: "kill -9 $$" }))).toMatchObject({ reason: "COMPLETED", exitCode: 137 });
});

describe("stderr", () => {
  const both = "echo out; echo err >&2";

  test("is told apart without options, and when that is asked for", async () => {
    for (const start of [{}, { options: { separateStderr: true } }])
      expect(summary(await run({ commandShell: both, ...start }))).toMatchObject({ stdout: "out\n", stderr: "err\n" });
  });

  test("joins stdout, its sequence and its tail, with any options that do not ask", async () => {
    const result = await run({ commandShell: both, options: { workdir: "/" } });
    expect(result.kinds).toEqual(["started", "stdout", "exit"]);
    expect(summary(result).stdout.split("\n").toSorted()).toEqual(["", "err", "out"]);
    expect(result.exit?.stdoutTail).toHaveLength(8);
    expect(result.exit?.stderrTail).toHaveLength(0);
  });
});

describe("options", () => {
  test("workdir and env reach the command", async () => {
    const options = { workdir: "/tmp", env: [{ name: "FOO", value: "a b=$c" }] };
    expect(summary(await run({ commandShell: 'pwd; echo "$FOO"', options })).stdout).toMatch(/\/tmp\na b=\$c\n$/);
    expect(summary(await run({ commandArgv: ["env"], options })).stdout).toContain("FOO=a b=$c\n");
  });

  test("a workdir that is not there ends the command before it runs", async () => {
    const result = summary(
      await run({ commandArgv: ["echo", "ran"], options: { workdir: "/no/such", separateStderr: true } }),
    );
    expect(result).toMatchObject({ reason: "COMPLETED", stdout: "" });
    expect(result.exitCode).toBeGreaterThan(0);
  });

  test("exit_tail_bytes bounds the tails, which hold the last bytes", async () => {
    const result = await run({
      commandShell: "echo 0123456789; echo abcdef >&2",
      options: { separateStderr: true, exitTailBytes: 4n },
    });
    const tails = [result.exit?.stdoutTail, result.exit?.stderrTail].map((tail) => Buffer.from(tail ?? []).toString());
    expect(tails).toEqual(["789\n", "def\n"]);
  });

  test("tails hold 64 KiB when nothing is said, and 256 KiB at most", async () => {
    const commandShell = "head -c 400000 /dev/zero";
    expect((await run({ commandShell })).exit?.stdoutTail).toHaveLength(65_536);
    const most = await run({ commandShell, options: { exitTailBytes: 2n ** 63n } });
    expect(most.exit?.stdoutTail).toHaveLength(262_144);
  });
});

describe("stdin", () => {
  test("sent before started is read arrives whole, and eof ends it", async () => {
    expect(summary(await run({ commandArgv: ["cat"] }, "hello\n"))).toMatchObject({
      reason: "COMPLETED",
      stdout: "hello\n",
    });
  });

  test("of a mebibyte of any bytes comes back exactly through cat", async () => {
    const data = crypto.getRandomValues(new Uint8Array(65_536));
    const input = Buffer.concat(Array.from({ length: 16 }, () => data));
    const { stdout, exit } = await run({ commandArgv: ["cat"] }, input);
    expect(exit?.exitCode).toBe(0);
    expect(Buffer.from(stdout).equals(input)).toBe(true);
  });

  test("after its end is a fault of the caller", async () => {
    await using session = new ExecSession(runner().client, {
      targetId: (await target()).target,
      commandArgv: ["sleep", "30"],
    });
    await session.started();
    session.eof();
    session.stdin("late");
    expect(summary(await session.result())).toMatchObject({ reason: "RUNNER_ERROR", exitCode: -1 });
  });

  test("half-close without a terminal is the end of stdin, and the command runs on to its end (ruling 1)", async () => {
    await using session = new ExecSession(runner().client, {
      targetId: (await target()).target,
      commandShell: "cat; echo ended; exit 3",
      options: { separateStderr: true },
    });
    session.halfClose();
    expect(summary(await session.result())).toMatchObject({ reason: "COMPLETED", exitCode: 3, stdout: "ended\n" });
  });
});

test("four mebibytes of output arrive exactly, in sequence", async () => {
  const { stdout, exit } = await run({ commandShell: "yes 0123456789abcde | head -c 4194304" });
  expect(exit?.exitCode).toBe(0);
  const line = Buffer.from("0123456789abcde\n");
  expect(stdout.length).toBe(4_194_304);
  expect(Buffer.from(stdout).equals(Buffer.concat(Array.from({ length: 262_144 }, () => line)))).toBe(true);
});

test("a target is the Pod's name or the workload's id, each also with a container (ruling 2)", async () => {
  const { id, target: pod } = await target();
  const commandShell = 'echo "$WHO"';
  for (const [targetId, who] of [
    [pod, "main"],
    [id, "main"],
    [`${pod}:helper`, "helper"],
    [`${id}:helper`, "helper"],
    [`${id}:main`, "main"],
  ] as const)
    expect(summary(await run({ targetId, commandShell })).stdout).toBe(`${who}\n`);
});

test("a program that is not there or cannot be run is RUNNER_ERROR, however it was wrapped (ruling 20)", async () => {
  const options = { workdir: "/tmp", env: [{ name: "A", value: "b" }] };
  for (const program of ["no-such-program", "/no/such/program", "/etc/passwd", "/tmp"])
    for (const start of [{}, { options }, { options: { tty: true } }]) {
      const result = await run({ commandArgv: [program], ...start });
      expect(summary(result)).toEqual({ reason: "RUNNER_ERROR", exitCode: -1, stdout: "", stderr: "" });
      expect(result.kinds).toEqual(["started", "exit"]);
    }
});
