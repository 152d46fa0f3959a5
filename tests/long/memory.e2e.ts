import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { ExecSession, exec } from "../support/exec.ts";
import { Gate } from "../support/gate.ts";
import { logChunks } from "../support/logs.ts";
import { runnerProcess } from "../support/process.ts";
import { idling, script, sharedRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";

/* Memory of the runner as a process of its own. The slow readers are grpcurl, a gRPC client that is not ours. */
const runner = sharedRunner();
setDefaultTimeout(3_600_000);
const GRPCURL = "tests/gen/grpcurl-v1.9.4/grpcurl";
const SECONDS = Number(process.env.E2E_SECONDS ?? 60);

const rssKiB = (pid: number) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);

/** What `load` adds to the memory of a runner that has done some work; each case has a process of its own to compare with. */
async function added(
  load: (subject: Awaited<ReturnType<typeof runnerProcess>>, gate: Gate, target: string) => Promise<number>,
) {
  const { target } = await runner().run({ main: idling({ cmd: ["sleep", "36000"] }) });
  await using gate = await Gate.over(runner().backend.access);
  await using subject = await runnerProcess(gate, runner().backend.namespace);
  for (let index = 0; index < 50; index++) {
    await using session = new ExecSession(subject.client, { targetId: target, commandShell: "yes | head -c 1000000" });
    await session.result();
  }
  await Bun.sleep(2_000);
  const idle = rssKiB(subject.pid);
  const kib = (await load(subject, gate, target)) - idle;
  await until("all connections are given back", () => gate.upgrades.size === 0 || undefined);
  return kib;
}

test.skipIf(!existsSync(GRPCURL)).each([
  [1, 32],
  [20, 64],
])("%d slow readers of output without end take at most %d MiB", async (readers, limitMiB) => {
  const kib = await added(async ({ baseUrl, pid }, gate, target) => {
    const start = JSON.stringify({
      start: { target_id: target, command_argv: ["yes"], options: { timeout_ms: 2 * SECONDS * 1000 } },
    });
    const rpc = "agynio.api.runner.v1.RunnerService/Exec";
    const address = baseUrl.slice("http://".length);
    const call = `(echo '${start}'; sleep ${2 * SECONDS}) | ${GRPCURL} -plaintext -import-path proto -proto agynio/api/runner/v1/runner.proto -d @ ${address} ${rpc}`;
    const slowly = "while head -c 65536 | grep -q .; do sleep 1; done";
    const children = Array.from({ length: readers }, () =>
      Bun.spawn(["sh", "-c", `${call} | (${slowly})`], { stdout: "ignore", stderr: "inherit", detached: true }),
    );
    await until("all run", () => gate.upgrades.size >= readers || undefined);
    let peak = 0;
    for (let second = 0; second < SECONDS - 3; second++) {
      await Bun.sleep(1_000);
      peak = Math.max(peak, rssKiB(pid));
    }
    expect(gate.upgrades.size).toBeGreaterThanOrEqual(readers); // all of them still read
    for (const child of children) process.kill(-child.pid, "SIGKILL"); // with all of its pipeline
    return peak;
  });
  console.log(`${readers} slow readers: ${kib} KiB above idle`);
  expect(kib).toBeLessThan(limitMiB * 1024);
});

// The real cluster of CI rotates logs at 1 MiB; a log of this size is followed there by nobody.
test.skipIf(process.env.E2E_KUBECONFIG !== undefined)("a log of 1 GiB streams within 32 MiB", async () => {
  const PART = 32 * 1024 * 1024;
  const line = "0".repeat(255); // with its end a divisor of PART
  // Each part is written when the last one has been read: the embedded cluster keeps 64 MiB of a log.
  const parts = `for i in $(seq 32); do yes ${line} | head -c ${PART}; read go < go; done`;
  const kib = await added(async ({ client, pid }) => {
    const { id, target } = await runner().run({ main: script(`mkfifo go; ${parts}`) });
    let [read, peak] = [0, 0];
    for await (const data of logChunks(client, { workloadId: id, containerName: "main", follow: true })) {
      const part = Math.floor(read / PART);
      read += data.length;
      if (Math.floor(read / PART) === part) continue;
      peak = Math.max(peak, rssKiB(pid));
      await exec(runner().client, { targetId: target, commandShell: "echo > go" });
    }
    expect(read).toBe(32 * PART);
    return peak;
  });
  console.log(`a log of 1 GiB: ${kib} KiB above idle`);
  expect(kib).toBeLessThan(32 * 1024);
});

test("500 idle executions take at most 120 KiB each", async () => {
  const kib = await added(async ({ client, pid }, gate, target) => {
    const sessions: ExecSession[] = [];
    for (let index = 0; index < 500; index++) {
      const session = new ExecSession(client, { targetId: target, commandArgv: ["sleep", "1000"] });
      sessions.push(session);
      await session.started();
    }
    await until("all run", () => gate.upgrades.size === 500 || undefined, 120_000);
    await Bun.sleep(3_000);
    const rss = rssKiB(pid);
    for (const session of sessions) session.reset();
    return rss;
  });
  console.log(`500 idle executions: ${Math.round(kib / 500)} KiB each`);
  expect(kib / 500).toBeLessThanOrEqual(120);
});
