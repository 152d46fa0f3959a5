import { readFileSync } from "node:fs";
import { startBackend } from "../support/backend.ts";
import { Gate } from "../support/gate.ts";
import { linesOf } from "../support/main.ts";
import { runnerProcess } from "../support/process.ts";
import { until } from "../support/wait.ts";
import { attacks } from "./attacks.ts";

/*
 * Each attack in its full form against the runner as it is started, in a process of its own; the attacker and an honest
 * client are others, with other addresses. The attack is repeated until the honest client is done. Arguments: names of
 * attacks; none are all. The last line is `abuse: N passed, N failed`.
 */
const CALLS = 600;
const EVERY_MS = 5;
/** Of those calls: answered within a second. */
const IN_TIME = 594;
const MEMORY_MIB = 20;
/** How long memory may take to come back; the collector has its own time. */
const SETTLE_MS = 60_000;
/** The attacker's address, which is not that of the honest client. */
const ATTACKER = "127.0.0.2";

const backend = await startBackend({});
const gate = await Gate.over(backend.access);
const runner = await runnerProcess(gate, backend.namespace);
const { client, pid, baseUrl } = runner;
const { hostname: host, port } = new URL(baseUrl);
let hasEnded = false;
void runner.exited.then(() => {
  hasEnded = true;
});

const rssMiB = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

function start(script: string, ...args: string[]) {
  const child = Bun.spawn([process.execPath, `tests/abuse/${script}`, ...args], { stdout: "pipe", stderr: "pipe" });
  const problem = new Response(child.stderr).text();
  return { lines: linesOf(child.stdout), end: async () => ((await child.exited) === 0 ? undefined : await problem) };
}

/** The honest client's calls, with `meanwhile` again and again until they are done. */
async function honest(meanwhile: () => Promise<void>): Promise<{ inTime: number; p50Ms: number; slowestMs: number }> {
  const { lines, end } = start("honest.ts", baseUrl, String(CALLS), String(EVERY_MS));
  await lines.next(); // connected
  let isOver = false;
  const answer = lines.next().finally(() => {
    isOver = true;
  });
  while (!isOver) await meanwhile();
  const { value } = await answer;
  await end();
  return JSON.parse(value ?? "{}");
}

async function measure(name: string, baseMiB: number): Promise<string[]> {
  const problems: string[] = [];
  let [said, peakMiB, times] = ["", 0, 0];
  const { inTime, p50Ms, slowestMs } = await honest(async () => {
    const { lines, end } = start("attacker.ts", host, port, ATTACKER, name);
    for await (const line of lines) said = line;
    const problem = await end();
    if (problem !== undefined) problems.push(/error: .*/.exec(problem)?.[0] ?? problem);
    times += 1;
    peakMiB = Math.max(peakMiB, rssMiB());
  });
  if (!(inTime >= IN_TIME)) problems.push(`${inTime} of ${CALLS} honest calls in time`);
  let leftMiB = rssMiB() - baseMiB;
  await until(
    "memory is back",
    async () => {
      await client.ready({}); // so that the runner has something to do, as it has in life
      leftMiB = rssMiB() - baseMiB;
      return leftMiB <= MEMORY_MIB || undefined;
    },
    SETTLE_MS,
  ).catch(() => problems.push(`${leftMiB.toFixed(0)} MiB more than before`));
  if (hasEnded) problems.push("the runner has ended");
  console.log(
    `${problems.length === 0 ? "pass" : "FAIL"}  ${name}: ${times} x (${said}); honest: ${inTime} of ${CALLS} within 1 s, ` +
      `p50 ${p50Ms.toFixed(1)} ms, slowest ${slowestMs.toFixed(0)} ms; memory: ${peakMiB.toFixed(0)} MiB, ` +
      `then ${leftMiB.toFixed(0)} MiB above before${problems.map((problem) => `\n      ${problem}`).join("")}`,
  );
  return problems;
}

const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(attacks);
const outcomes: string[][] = [];
await honest(() => Bun.sleep(100)); // so that what every runner takes with its first work counts as before
const baseMiB = rssMiB();
console.log(`memory before: ${baseMiB.toFixed(0)} MiB`);
for (const name of names) outcomes.push(await measure(name, baseMiB));
await runner[Symbol.asyncDispose]();
await gate[Symbol.asyncDispose]();
await backend[Symbol.asyncDispose]();
const failed = outcomes.filter((problems) => problems.length > 0).length;
console.log(`abuse: ${outcomes.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
