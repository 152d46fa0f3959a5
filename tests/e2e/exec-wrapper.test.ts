import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { ExecSession, type ExecStart, exec, summary } from "../support/exec.ts";
import { Gate } from "../support/gate.ts";
import { freshId, idling, type RunnerClient, sharedRunner, startRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";

// What the wrapper is for (docs/exec.md): secrets that stay out of URLs, and ends that nothing holds back.
const runner = sharedRunner();
let shared: Promise<{ id: string; target: string }> | undefined;
const workload = async () => {
  shared ??= runner().run();
  return await shared;
};

/** More than all buffers between a container and a caller that does not read. */
const SIZE = 100_000_000;

/** Whether a wrapper was sent this signal. */
const asked = ({ requests }: Gate, signal: string) =>
  requests.some((url) => url.includes(`command=${signal}`)) || undefined;

/** Whether none of the container's processes has this among its arguments, around an execution's id. */
async function isGone(target: string, [before, executionId, after]: readonly string[]): Promise<true | undefined> {
  // In two parts, so that the command that looks is not what it finds.
  const [first, second] = [executionId?.slice(0, 8), executionId?.slice(8)];
  const all = "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $p; done 2>/dev/null";
  const commandShell = `id=${first}; ${all} | grep -c "${before}$id${second}${after}"`;
  return summary(await exec(runner().client, { targetId: target, commandShell })).stdout === "0\n" || undefined;
}

const wrapper = (id: string) => ["=", id, ""];
const holder = (id: string) => ["", id, " URG"];

/** Runs through a gate, and tells which of `secrets` a URL held. */
async function leaked(secrets: readonly string[], run: (client: RunnerClient) => Promise<void>): Promise<string[]> {
  await using gate = await Gate.over(runner().backend.access);
  await using behind = await startRunner({ backend: runner().backend, access: () => gate.access });
  await run(behind.client);
  const urls = gate.requests.filter((request) => request.includes("/exec?")).map(decodeURIComponent);
  expect(urls.length).toBeGreaterThan(0);
  return secrets.filter((secret) => urls.some((url) => url.includes(secret)));
}

test.each([false, true])("no value of env and no shell text stands in a URL, with a terminal: %p", async (tty) => {
  const { target } = await workload();
  const [value, text] = [`canary-${freshId()}`, `canary-${freshId()}`];
  const options = { env: [{ name: "CANARY", value }], tty, separateStderr: !tty };
  const filler = "# filler\n".repeat(20_000);
  const starts: [ExecStart, string][] = [
    [{ commandShell: `echo ${text}` }, text],
    [{ commandShell: `echo $CANARY ${text}`, options }, `${value} ${text}`],
    [{ commandArgv: ["sh", "-c", "echo $CANARY"], options }, value],
    [{ commandShell: `${filler}echo $CANARY ${text}`, options }, `${value} ${text}`],
  ];
  const held = await leaked([value, text], async (client) => {
    for (const [start, said] of starts) {
      const result = summary(await exec(client, { targetId: target, ...start }));
      expect({ ...result, stdout: result.stdout.trimEnd() }).toMatchObject({
        reason: "COMPLETED",
        exitCode: 0,
        stdout: said,
        stderr: "",
      });
    }
  });
  expect(held).toEqual([]);
});

test("a terminal is as it was after a hand-over: it echoes, and what was typed ahead is not lost", async () => {
  const { target } = await workload();
  const options = { env: [{ name: "A", value: "b" }], tty: true };
  await using session = new ExecSession(runner().client, {
    targetId: target,
    commandShell: "read x; echo =$x=",
    options,
  });
  session.stdin("typed\r");
  expect(summary(await session.result()).stdout).toBe("typed\r\n=typed=\r\n");
});

test("an image without stty gets a terminal all the same, the old way", async () => {
  const { target } = await runner().run({
    main: idling({ entrypoint: "/bin/sleep", cmd: ["300"], env: [{ name: "PATH", value: "/no/such" }] }),
  });
  for (const _ of ["found out", "known"])
    expect(
      summary(
        await exec(runner().client, {
          targetId: target,
          commandArgv: ["/bin/sh", "-c", "echo up"],
          options: { tty: true },
        }),
      ),
    ).toMatchObject({ stdout: "up\r\n" });
  for (const _ of ["found out", "known"])
    expect(
      summary(await exec(runner().client, { targetId: target, commandShell: "echo up", options: { tty: true } })),
    ).toMatchObject({ reason: "COMPLETED", stdout: "up\r\n" });
});

test.each([false, true])(
  "what still holds the output does not hold back the end of the command, with a terminal: %p",
  async (tty) => {
    const { target } = await workload();
    const flag = `/tmp/holds-${freshId()}`;
    // With a terminal the end of its leader hangs up what is in the foreground, and so the child first ignores that.
    const commandShell = `trap '' HUP; (echo behind; while [ ! -e ${flag} ]; do sleep 0.05; done) & echo before; exit 3`;
    const result = summary(await exec(runner().client, { targetId: target, commandShell, options: { tty } }));
    expect(result).toMatchObject({ reason: "COMPLETED", exitCode: 3 });
    expect(result.stdout).toContain("before");
    expect(summary(await exec(runner().client, { targetId: target, commandShell: `touch ${flag}` })).exitCode).toBe(0);
  },
);

test("a caller that leaves while its command is held releases it", async () => {
  const { target } = await workload();
  await using gate = await Gate.over(runner().backend.access);
  await using behind = await startRunner({ backend: runner().backend, access: () => gate.access });
  await using session = new ExecSession(behind.client, {
    targetId: target,
    commandShell: `head -c ${SIZE} /dev/zero`,
  });
  const id = await session.started();
  await until("the wrapper is held", () => asked(gate, "URG"));
  await until("its holder waits", async () => ((await isGone(target, holder(id))) ? undefined : true));
  session.reset();
  await until("the holder has released it", () => isGone(target, holder(id)));
});

test.each([false, true])(
  "a command whose output is taken slowly is held in place, and released when all of it has come, with a terminal: %p",
  async (tty) => {
    const { target } = await workload();
    await using gate = await Gate.over(runner().backend.access);
    await using behind = await startRunner({ backend: runner().backend, access: () => gate.access });
    await using session = new ExecSession(behind.client, {
      targetId: target,
      commandShell: `${tty ? "stty raw; " : ""}head -c ${SIZE} /dev/zero; exit 3`,
      options: { tty },
    });
    const id = await session.started();
    await until("the wrapper is held", () => asked(gate, "URG"));
    const result = await session.result();
    expect({ ...summary(result), stdout: result.stdout.length }).toMatchObject({
      reason: "COMPLETED",
      exitCode: 3,
      stdout: SIZE,
    });
    await until("the wrapper is released", () => isGone(target, wrapper(id)));
  },
);

test.each([
  ["long is held in place, however fast it is taken", 20, true],
  ["not so long is not held", 4, false],
])("a command whose output is %s", async (_name, mebibytes, isHeld) => {
  const { target } = await workload();
  const half = mebibytes << 20;
  const size = 2 * half;
  await using gate = await Gate.over(runner().backend.access);
  await using behind = await startRunner({ backend: runner().backend, access: () => gate.access });
  await using session = new ExecSession(behind.client, {
    targetId: target,
    commandShell: `head -c ${half} /dev/zero; sleep 1; head -c ${half} /dev/zero; read line; exit 3`,
  });
  const id = await session.started();
  for (let bytes = 0; bytes < size; ) {
    const event = await session.next();
    if (event?.case !== "stdout") throw new Error(`${event?.case} after ${bytes} bytes`);
    bytes += event.value.data.length;
  }
  if (isHeld) await until("the wrapper is held", () => asked(gate, "URG"));
  session.stdin("\n");
  const result = await session.result();
  expect({ ...summary(result), stdout: result.stdout.length }).toMatchObject({
    reason: "COMPLETED",
    exitCode: 3,
    stdout: size,
  });
  await until("the wrapper is released", () => isGone(target, wrapper(id)));
  if (!isHeld) expect(asked(gate, "URG")).toBeUndefined();
});

test("ten mebibytes of input that nobody reads do not hold back the end of the command", async () => {
  const { target } = await workload();
  const result = await exec(
    runner().client,
    { targetId: target, commandShell: "echo up; exit 4" },
    new Uint8Array(10 << 20),
  );
  expect(summary(result)).toMatchObject({ reason: "COMPLETED", exitCode: 4, stdout: "up\n" });
});

test("a value that no program can be given is RUNNER_ERROR, and nothing runs", async () => {
  const { target } = await workload();
  const flag = `/tmp/ran-${freshId()}`;
  const options = { env: [{ name: "A", value: "b\0c" }] };
  const result = await exec(runner().client, { targetId: target, commandArgv: ["touch", flag], options });
  expect(summary(result)).toMatchObject({ reason: "RUNNER_ERROR", exitCode: -1 });
  expect(summary(await exec(runner().client, { targetId: target, commandArgv: ["ls", flag] })).exitCode).not.toBe(0);
});

test("the connection of a client that was killed is given back", async () => {
  const { target } = await workload();
  await using gate = await Gate.over(runner().backend.access);
  await using behind = await startRunner({ backend: runner().backend, access: () => gate.access });
  const client = Bun.spawn([process.execPath, "tests/support/exec-client.ts", behind.baseUrl, target], {
    stdout: "pipe",
  });
  const said = client.stdout.getReader();
  expect(Buffer.from((await said.read()).value ?? []).toString()).toBe("up\n");
  expect(gate.upgrades.size).toBe(1);
  client.kill("SIGKILL");
  await until("the exec connection is closed", () => gate.upgrades.size === 0 || undefined, 5_000);
});

test.skipIf(process.env.E2E_AUDIT_LOG === undefined)(
  "the audit log of the cluster holds no env and no shell text",
  async () => {
    const { target } = await workload();
    const [seen, value, text] = [`seen-${freshId()}`, `canary-${freshId()}`, `canary-${freshId()}`];
    const options = { env: [{ name: "CANARY", value }] };
    await exec(runner().client, { targetId: target, commandShell: `echo $CANARY ${text}`, options });
    await exec(runner().client, { targetId: target, commandArgv: ["echo", seen], options });
    const log = await until("the last exec is in the log", () => {
      const all = readFileSync(process.env.E2E_AUDIT_LOG ?? "", "utf8");
      return all.includes(seen) ? all : undefined;
    });
    expect([value, text].filter((secret) => log.includes(secret))).toEqual([]);
  },
);
