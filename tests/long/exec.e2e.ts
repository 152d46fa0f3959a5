import { expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { ExecSession, exec, summary } from "../support/exec.ts";
import { Link } from "../support/link.ts";
import { sharedRunner, startRunner } from "../support/runner.ts";

/*
 * What must hold many times over (promises of exec and archives). Takes minutes; E2E_TRIES says how many times each case is
 * tried (default 200): E2E_TRIES=200 bun test ./tests/long/exec.e2e.ts, with the variables of any end-to-end run.
 */
setDefaultTimeout(3_600_000);
const TRIES = Number(process.env.E2E_TRIES ?? 200);
const few = Math.max(1, Math.ceil(TRIES / 10));

const runner = sharedRunner();
let shared: Promise<{ id: string; target: string }> | undefined;
const workload = async () => {
  shared ??= runner().run();
  return await shared;
};

const MIB = 1024 * 1024;
const LINE = "0123456789abcde\n";
const sha256 = (data: Uint8Array) => createHash("sha256").update(data).digest("hex");

test("output of any size, with and without a terminal, to fast and slow readers, is exact, and so is the code", async () => {
  const { target } = await workload();
  const sizes = [0, 1, 32_767, 32_768, 32_769, MIB, 64 * MIB];
  const codes = [0, 1, 42, 137, 255];
  const wrong = [];
  for (let index = 0; index < TRIES; index++) {
    // 64 MiB to a reader of 1 MiB a second takes a minute: now and then.
    const bytes = sizes[index % sizes.length] ?? 0;
    const tty = Math.floor(index / sizes.length) % 2 === 1;
    const slow = Math.floor(index / sizes.length / 2) % 2 === 1 && (bytes <= MIB || index < 100);
    const code = codes[index % codes.length];
    const raw = tty ? "stty raw -echo; " : "";
    await using session = new ExecSession(runner().client, {
      targetId: target,
      commandShell: `${raw}yes ${LINE.trim()} | head -c ${bytes}; exit ${code}`,
      options: { tty },
    });
    const since = performance.now();
    let read = 0;
    for (let event = await session.next(); event !== undefined; event = await session.next()) {
      if (event.case !== "stdout") continue;
      read += event.value.data.length;
      const due = slow ? (read / MIB) * 1000 - (performance.now() - since) : 0;
      if (due > 0) await Bun.sleep(due);
    }
    const result = await session.result();
    const expected = Buffer.alloc(bytes, LINE);
    if (result.exit?.exitCode !== code || sha256(result.stdout) !== sha256(expected))
      wrong.push({ index, bytes, tty, slow, code, ...summary(result), stdout: result.stdout.length });
  }
  expect(wrong).toEqual([]);
});

test("64 MiB of stdin arrive exactly", async () => {
  const { target } = await workload();
  const data = Buffer.alloc(64 * MIB, crypto.getRandomValues(new Uint8Array(65_521)));
  const wrong = [];
  for (let index = 0; index < few; index++) {
    const { stdout, exitCode } = summary(
      await exec(runner().client, { targetId: target, commandArgv: ["sha256sum"] }, data),
    );
    if (exitCode !== 0 || stdout.split(" ")[0] !== sha256(data)) wrong.push({ index, exitCode, stdout });
  }
  expect(wrong).toEqual([]);
});

test("a connection that is cut at any moment is never COMPLETED without the real status, and ends once", async () => {
  const link = await Link.to(runner().backend.access.server);
  await using _ = link;
  await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  const { target } = await workload();
  const wrong = [];
  for (let index = 0; index < Math.ceil(TRIES / 4); index++) {
    await using session = new ExecSession(behind.client, {
      targetId: target,
      commandShell: `yes ${LINE.trim()} | head -c 2000000; exit 7`,
    });
    await session.started();
    link.cutAfter(Math.floor(Math.random() * 2_200_000));
    const result = await session.result(); // throws when there is not exactly one end
    const { reason, exitCode } = summary(result);
    const whole = reason === "COMPLETED" && exitCode === 7 && result.stdout.length === 2_000_000;
    if (!whole && !(reason === "RUNNER_ERROR" && exitCode === -1)) wrong.push({ index, reason, exitCode });
    link.cut();
  }
  expect(wrong).toEqual([]);
});

test("a kill leaves nothing that was forked, by timeout and by Cancel", async () => {
  const { target } = await workload();
  const wrong = [];
  for (let index = 0; index < 2 * few; index++) {
    const byTimeout = index % 2 === 0;
    const seconds = 100_000 + index;
    await using session = new ExecSession(runner().client, {
      targetId: target,
      commandShell: `sleep ${seconds} & echo up; sleep ${seconds}`,
      options: byTimeout ? { timeoutMs: 1000n, killOnTimeout: true } : {},
    });
    const executionId = await session.started();
    await session.untilOutput("up");
    if (!byTimeout) await runner().client.cancelExecution({ executionId, force: true });
    const result = await session.result();
    const left = summary(
      await exec(runner().client, {
        targetId: target,
        commandShell: `for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null | grep -c '^sleep ${seconds}'`,
      }),
    ).stdout.trim();
    if (!result.exit?.killed || left !== "0") wrong.push({ index, byTimeout, killed: result.exit?.killed, left });
  }
  expect(wrong).toEqual([]);
});
