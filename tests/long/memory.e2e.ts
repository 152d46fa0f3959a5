import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { ExecSession } from "../support/exec.ts";
import { Gate } from "../support/gate.ts";
import { runnerProcess } from "../support/process.ts";
import { sharedRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";

/* Memory of the runner as a process of its own. The slow readers are grpcurl, a gRPC client that is not ours. */
const runner = sharedRunner();
setDefaultTimeout(3_600_000);
const GRPCURL = "tests/gen/grpcurl-v1.9.4/grpcurl";
const SECONDS = Number(process.env.E2E_SECONDS ?? 60);

const rssKiB = (pid: number) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);

test.skipIf(!existsSync(GRPCURL))(
  "output without end to slow readers, and idle executions, are held in little memory",
  async () => {
    const { target } = await runner().run();
    await using gate = await Gate.over(runner().backend.access);
    await using subject = await runnerProcess(gate, runner().backend.namespace);
    for (let index = 0; index < 50; index++) {
      await using session = new ExecSession(subject.client, {
        targetId: target,
        commandShell: "yes | head -c 1000000",
      });
      await session.result();
    }
    await Bun.sleep(2_000);
    const figures: Record<string, number> = {};
    for (const readers of [1, 20]) {
      const idle = rssKiB(subject.pid);
      const start = JSON.stringify({
        start: { target_id: target, command_argv: ["yes"], options: { timeout_ms: SECONDS * 1000 } },
      });
      const rpc = "agynio.api.runner.v1.RunnerService/Exec";
      const address = subject.baseUrl.slice("http://".length);
      const call = `(echo '${start}'; sleep ${SECONDS}) | ${GRPCURL} -plaintext -import-path proto -proto agynio/api/runner/v1/runner.proto -d @ ${address} ${rpc}`;
      const slowly = "while head -c 65536 | grep -q .; do sleep 1; done";
      const children = Array.from({ length: readers }, () =>
        Bun.spawn(["sh", "-c", `${call} | (${slowly})`], { stdout: "ignore", stderr: "inherit" }),
      );
      await until("all run", () => gate.upgrades.size >= readers || undefined);
      let peak = 0;
      for (let second = 0; second < SECONDS - 3; second++) {
        await Bun.sleep(1_000);
        peak = Math.max(peak, rssKiB(subject.pid));
      }
      figures[`KiB above idle with ${readers} slow readers`] = peak - idle;
      figures[`still running of ${readers}`] = gate.upgrades.size;
      for (const child of children) child.kill("SIGKILL");
      Bun.spawnSync(["pkill", "-9", "grpcurl"]);
      await until("all connections are given back", () => gate.upgrades.size === 0 || undefined);
    }
    const idle = rssKiB(subject.pid);
    const sessions: ExecSession[] = [];
    for (let index = 0; index < 500; index++) {
      const session = new ExecSession(subject.client, { targetId: target, commandArgv: ["sleep", "1000"] });
      sessions.push(session);
      await session.started();
    }
    await until("all run", () => gate.upgrades.size === 500 || undefined, 120_000);
    await Bun.sleep(3_000);
    figures["KiB for each of 500 idle executions"] = Math.round((rssKiB(subject.pid) - idle) / 500);
    console.log(figures);
    for (const session of sessions) session.reset();
    await until("all connections are given back", () => gate.upgrades.size === 0 || undefined);
    expect(figures["KiB above idle with 1 slow readers"]).toBeLessThan(32 * 1024);
    expect(figures["KiB above idle with 20 slow readers"]).toBeLessThan(64 * 1024);
    expect(figures["KiB for each of 500 idle executions"]).toBeLessThanOrEqual(120);
  },
);
