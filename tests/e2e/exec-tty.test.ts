import { describe, expect, test } from "bun:test";
import { decode, ExecSession, exec, summary } from "../support/exec.ts";
import { freshId, sharedRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";

const runner = sharedRunner();
let shared: Promise<{ target: string }> | undefined;
const target = async () => {
  shared ??= runner().run();
  return (await shared).target;
};
type Options = { env?: { name: string; value: string }[]; timeoutMs?: bigint };
const open = async (commandShell: string, options: Options = {}) =>
  new ExecSession(runner().client, { targetId: await target(), commandShell, options: { ...options, tty: true } });
const shell = async (commandShell: string) =>
  summary(await exec(runner().client, { targetId: await target(), commandShell }));

test("a terminal is one: the program controls it, and its exit code is told", async () => {
  await using session = await open(
    "for fd in 0 1 2; do test -t $fd || exit 1; done; (echo to the terminal >/dev/tty); exit 42",
  );
  const result = await session.result();
  expect(summary(result)).toEqual({
    reason: "COMPLETED",
    exitCode: 42,
    stdout: "to the terminal\r\n",
    stderr: "",
  });
  expect(decode(result.exit?.stdoutTail ?? new Uint8Array())).toBe("to the terminal\r\n");
  expect(result.exit?.stderrTail).toHaveLength(0);
});

test("what is typed before started is read is there for the program, and is echoed", async () => {
  await using session = await open('read -r line; echo "got $line as $TERM"', {
    env: [{ name: "TERM", value: "xterm-256color" }],
  });
  session.stdin("hello\n");
  const { stdout, ...end } = summary(await session.result());
  expect(end).toMatchObject({ reason: "COMPLETED", exitCode: 0 });
  expect(stdout).toContain("hello\r\ngot hello as xterm-256color\r\n");
});

test("any byte passes unchanged both ways once the program has set the terminal so", async () => {
  const all = Uint8Array.from({ length: 256 }, (_, value) => value);
  await using session = await open("stty raw -echo; echo ready; head -c 2560; echo over");
  await session.started();
  await session.untilOutput("ready\n");
  for (let round = 0; round < 10; round++) session.stdin(all);
  const { stdout, exit } = await session.result();
  expect(exit?.exitCode).toBe(0);
  const expected = Buffer.concat([
    Buffer.from("ready\n"),
    ...Array.from({ length: 10 }, () => all),
    Buffer.from("over\n"),
  ]);
  expect(Buffer.from(stdout).equals(expected)).toBe(true);
});

test("keys that a terminal gives a meaning have it: end of input, interrupt", async () => {
  await using reading = await open("echo up; cat; exit 7");
  await reading.started();
  await reading.untilOutput("up");
  reading.stdin("\x04");
  expect(summary(await reading.result())).toMatchObject({ reason: "COMPLETED", exitCode: 7 });

  await using sleeping = await open("echo up; exec sleep 300");
  await sleeping.started();
  await sleeping.untilOutput("up");
  sleeping.stdin("\x03");
  expect(summary(await sleeping.result())).toMatchObject({ reason: "COMPLETED", exitCode: 130 });
});

describe("the size of a terminal", () => {
  /** Tells each size that it sees from a signal, so that nothing is told twice. */
  const watching = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";

  test("changes with each resize while the program runs, which is told so", async () => {
    await using session = await open(watching);
    await session.started();
    await session.untilOutput("ready");
    for (const [cols, rows] of [
      [100, 30],
      [81, 25],
      [500, 200],
    ] as const) {
      session.resize(cols, rows);
      await session.untilOutput(`${rows} ${cols}\r\n`);
    }
  });

  test("is the newest one after a storm of them", async () => {
    await using session = await open(watching);
    await session.started();
    await session.untilOutput("ready");
    for (let cols = 20; cols <= 1_000; cols++) session.resize(cols, 50);
    const output = await session.untilOutput("50 1000\r\n");
    session.stdin("\x03");
    expect((await session.result()).errors).toEqual([]);
    expect(output.trimEnd().split("\r\n").at(-1)).toBe("50 1000");
  });

  test("keeps 16 bits of each number, and none that is zero is taken", async () => {
    await using session = await open(watching);
    await session.started();
    await session.untilOutput("ready");
    session.resize(65_536 + 90, 20);
    await session.untilOutput("20 90\r\n");
    session.resize(0, 40);
    session.resize(40, 0);
    session.resize(91, 21);
    expect(await session.untilOutput("21 91\r\n")).not.toMatch(/\b40\b/);
  });
});

describe("a terminal is hung up", () => {
  const ends: [string, (session: ExecSession, executionId: string) => unknown][] = [
    ["by half-close", (session) => session.halfClose()],
    ["by CancelExecution", (_, executionId) => runner().client.cancelExecution({ executionId })],
    ["when the RPC is reset", (session) => session.reset()],
  ];
  test.each(ends)("%s: programs get the signal, but one that is to live on does", async (_how, end) => {
    const name = `/tmp/hung-up-${freshId()}`;
    const told = (file: string) => async () => (await shell(`cat ${name}.${file}`)).stdout || undefined;
    const living = `echo on >${name}.on; while [ -e ${name}.on ]; do sleep 0.05; done; echo lived >${name}.lived`;
    // As a daemon does it, with a session of its own; where that takes a program of one's own (macOS), deaf to the signal.
    await using session = await open(
      `{ command -v setsid && exec setsid sh -c '${living}'; trap '' HUP; ${living}; } </dev/null >/dev/null 2>&1 &
       trap 'echo hangup >${name}.signal; exit' HUP; echo up; while :; do sleep 0.05; done`,
    );
    const executionId = await session.started();
    await session.untilOutput("up");
    await until("the other program runs", told("on"));
    await end(session, executionId);
    await until("the program has the signal", told("signal"));
    await shell(`rm ${name}.on`);
    expect(await until("the other program ends by itself", told("lived"))).toBe("lived\n");
    await shell(`rm ${name}.*`);
  });

  test("by a timeout, which is the reason told", async () => {
    const word = `/tmp/hung-up-${freshId()}`;
    await using session = await open(`trap 'echo hangup >${word}; exit' HUP; echo up; while :; do sleep 0.05; done`, {
      timeoutMs: 1_000n,
    });
    const result = await session.result();
    expect(summary(result)).toMatchObject({ reason: "TIMEOUT", exitCode: -1, stdout: "up\r\n" });
    expect(result.exit?.killed).toBe(false);
    await until("the program has the signal", async () => (await shell(`cat ${word}`)).stdout || undefined);
    await shell(`rm ${word}`);
  });

  test("and ended with force, nothing of it lives on, not even what ignores every signal that it can", async () => {
    const stubborn = "echo pid $$; while :; do sleep 0.05; done";
    await using session = await open(`trap '' HUP TERM INT; sh -c '${stubborn}' & ${stubborn}`);
    const executionId = await session.started();
    const pids = async () => [...(await session.untilOutput("pid ")).matchAll(/pid (\d+)\r/g)].map(([, pid]) => pid);
    while ((await pids()).length < 2) await session.next();
    // A process that has ended has no arguments any more, even while nobody has asked for its end.
    const look = `for p in ${(await pids()).join(" ")}; do grep -q . /proc/$p/cmdline 2>/dev/null && echo $p; done`;
    expect((await shell(look)).stdout.split("\n")).toHaveLength(3);
    await runner().client.cancelExecution({ executionId, force: true });
    const result = await session.result();
    expect(summary(result)).toMatchObject({ reason: "CANCELLED", exitCode: 0, stderr: "" });
    expect(result.exit?.killed).toBe(true);
    expect((await shell(look)).stdout).toBe("");
  });
});
