import { expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { ExecSession, exec, summary } from "../support/exec.ts";
import { type CutKind, Link } from "../support/link.ts";
import { idling, sharedRunner, startRunner } from "../support/runner.ts";
import { tar } from "../support/tar.ts";

/*
 * What must hold many times over (promises of exec and archives). Takes minutes; E2E_TRIES says how many times each case is
 * tried (default 200): E2E_TRIES=200 bun test ./tests/long/exec.e2e.ts, with the variables of any end-to-end run.
 */
const TRIES = Number(process.env.E2E_TRIES ?? 200);
const few = Math.max(1, Math.ceil(TRIES / 10));

const runner = sharedRunner();
setDefaultTimeout(3_600_000);
let shared: Promise<{ id: string; target: string }> | undefined;
const workload = async () => {
  shared ??= runner().run({ main: idling({ cmd: ["sleep", "36000"] }) });
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

test("a connection that is cut at any moment is never COMPLETED without the real status, and ends once, soon", async () => {
  const link = await Link.to(runner().backend.access.server);
  await using _ = link;
  await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  const { target } = await workload();
  const start = { targetId: target, commandShell: `yes ${LINE.trim()} | head -c 2000000; exit 7` };
  const wrong: object[] = [];
  const ended = async (session: ExecSession, kind: CutKind, limitMs: number) => {
    const result = await session.result(); // throws when there is not exactly one end
    const ms = link.cutAt === undefined ? 0 : performance.now() - link.cutAt;
    const { reason, exitCode } = summary(result);
    const whole = reason === "COMPLETED" && exitCode === 7 && result.stdout.length === 2_000_000;
    if ((!whole && !(reason === "RUNNER_ERROR" && exitCode === -1)) || ms > limitMs)
      wrong.push({ kind, reason, exitCode, ms, bytes: result.stdout.length });
    return whole;
  };
  let cuts = 0;
  for (let index = 0; index < Math.ceil(TRIES / 4); index++) {
    const kind = index % 2 === 0 ? "reset" : "fin";
    await using session = new ExecSession(behind.client, start);
    await session.started();
    link.cutAfter(Math.floor(Math.random() * 2_200_000), "server", kind);
    if (!(await ended(session, kind, 2_000))) cuts += 1;
    link.cut();
  }
  expect(cuts).toBeGreaterThan(0);
  // Silence takes its minute: all at once.
  const sessions = Array.from({ length: few }, () => new ExecSession(behind.client, start));
  await Promise.all(sessions.map((session) => session.started()));
  link.cutAfter(Math.floor(Math.random() * 1_000_000), "server", "silence");
  await Promise.all(sessions.map((session) => ended(session, "silence", 65_000)));
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
    const since = performance.now();
    const result = await session.result();
    const ms = performance.now() - since;
    const left = summary(
      await exec(runner().client, {
        targetId: target,
        commandShell: `for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null | grep -c '^sleep ${seconds}'`,
      }),
    ).stdout.trim();
    if (!result.exit?.killed || left !== "0" || ms > (byTimeout ? 4_000 : 3_000))
      wrong.push({ index, byTimeout, killed: result.exit?.killed, left, ms });
  }
  expect(wrong).toEqual([]);
});

test("a command that leaves 10 MiB of stdin unread ends within a second", async () => {
  const { target } = await workload();
  const ends: Record<string, number> = {};
  const late = [];
  for (let index = 0; index < few; index++) {
    const since = performance.now();
    const start = { targetId: target, commandShell: "exit 4" };
    const { reason, exitCode } = summary(await exec(runner().client, start, new Uint8Array(10 * MIB)));
    const ms = performance.now() - since;
    const end = `${reason} ${exitCode}`;
    ends[end] = (ends[end] ?? 0) + 1;
    if (ms > 1_000) late.push(ms);
  }
  // A cluster may lose the end itself; that is never told as another one.
  const others = Object.keys(ends).filter((end) => end !== "COMPLETED 4" && end !== "RUNNER_ERROR -1");
  console.log("ends of a command with unread input:", ends);
  expect({ late, others }).toEqual({ late: [], others: [] });
});

test("an archive that is cut anywhere is never OK with another tree", async () => {
  const link = await Link.to(runner().backend.access.server);
  await using _ = link;
  await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  const { id, target } = await workload();
  const wrong = [];
  let [whole, failed] = [0, 0];
  for (let index = 0; index < Math.ceil(TRIES / 4); index++) {
    const members = Array.from({ length: 1 + Math.floor(Math.random() * 20) }, (_, at) => ({
      name: `d${index}/f${at}`,
      data: crypto.getRandomValues(new Uint8Array(Math.floor(Math.random() ** 2 * 65_536))),
    }));
    const tarPayload = tar([{ name: `d${index}/` }, ...members]);
    // Beyond its end as well, for some are to arrive.
    const offset = index === 0 ? 1_000 : Math.floor(Math.random() * 1.5 * (tarPayload.length + 8_000));
    link.cutAfter(offset, "runner", index % 2 === 0 ? "reset" : "fin");
    const ok = await behind.client.putArchive({ workloadId: id, path: "/tmp", tarPayload }).then(
      () => true,
      () => false,
    );
    link.cut();
    if (!ok) {
      failed += 1;
      continue;
    }
    whole += 1;
    const found = summary(
      await exec(runner().client, { targetId: target, commandShell: `cd /tmp && sha256sum d${index}/*` }),
    ).stdout;
    const expected = members.map(({ name, data }) => `${sha256(data)}  ${name}`).sort();
    if (found.trim().split("\n").sort().join() !== expected.join()) wrong.push({ index, found, expected });
  }
  expect(wrong).toEqual([]);
  console.log(`archives: ${whole} arrived whole, ${failed} failed`);
  expect(failed).toBeGreaterThan(0);
  if (TRIES >= 40) expect(whole).toBeGreaterThan(0);
});
