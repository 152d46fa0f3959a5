/*
 * Nothing leaks (P19): the runner as a process of its own, on the embedded cluster, or on a real one by E2E_KUBECONFIG, with
 * workloads that stay, workloads that come and go, executions and reads, for as long as it is told to:
 *
 *   bun tests/long/soak.ts --minutes 30 --pods 500 --churn 20 --execs 5
 *
 * `churn` is starts and removals together, `execs` executions, each a second. Prints a line a minute, then what it found, and
 * last `soak: N passed, N failed`. The slope of resident memory (least squares over all samples after the fifth minute) is
 * judged from ten minutes on: before, a heap that finds its size has one, too.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { sleep } from "../../src/time.ts";
import { type Backend, startBackend } from "../support/backend.ts";
import { exec, summary } from "../support/exec.ts";
import { linesOf } from "../support/main.ts";
import { ENGINE } from "../support/process.ts";
import { idling, type RunnerClient } from "../support/runner.ts";
import { until, untilRunning } from "../support/wait.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "30" },
    pods: { type: "string", default: "500" },
    churn: { type: "string", default: "20" },
    execs: { type: "string", default: "5" },
  },
});
const MINUTES = numberOf("minutes");
const PODS = numberOf("pods");
const CHURN = numberOf("churn");
const EXECS = numberOf("execs");

const SAMPLE_MS = 2_000;
/** What the heap may take to find its size, and how long a soak must be for its slope to be judged. */
const SETTLED_MINUTES = 5;
const JUDGED_MINUTES = 10;
const MAX_SLOPE = 1;
const MAX_DESCRIPTORS = 10;
const MAX_P99_MS = 50;
const STARTERS = 8;
/** A machine that cannot bear the load shall say so by work that is not done, and not by drowning. */
const MOST_UNDER_WAY = 100;

/** An interrupt ends the soak early, with all that it made. */
let interrupted = false;
for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.on(signal, () => {
    interrupted = true;
  });

interface Sample {
  readonly minute: number;
  readonly mib: number;
}

function numberOf(name: keyof typeof values): number {
  const value = Number(values[name]);
  if (!(value > 0)) throw new Error(`--${name} must be a number above 0`);
  return value;
}

const residentMiB = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

/** MiB a minute by least squares; 0 where there is nothing to see. */
function slopeOf(samples: readonly Sample[]): number {
  const mean = (numbers: readonly number[]) => numbers.reduce((sum, each) => sum + each, 0) / numbers.length;
  const x = mean(samples.map(({ minute }) => minute));
  const y = mean(samples.map(({ mib }) => mib));
  const spread = samples.reduce((sum, { minute }) => sum + (minute - x) ** 2, 0);
  return spread === 0 ? 0 : samples.reduce((sum, { minute, mib }) => sum + (minute - x) * (mib - y), 0) / spread;
}

/** The runner under test with its event loop watched (loop-delay.ts). */
async function startRunner({ access, namespace }: Backend) {
  const directory = mkdtempSync(join(tmpdir(), "soak-"));
  const kubeconfig = join(directory, "config");
  const { headers, tls } = await access.credentials();
  const base64 = (text: string | undefined) => (text === undefined ? undefined : Buffer.from(text).toString("base64"));
  const cluster = { server: access.server.origin, "certificate-authority-data": base64(tls.ca) };
  const user = {
    token: headers.authorization?.replace(/^Bearer /, ""),
    "client-certificate-data": base64(tls.cert),
    "client-key-data": base64(tls.key),
  };
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      "current-context": "c",
      contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
      clusters: [{ name: "c", cluster }],
      users: [{ name: "u", user }],
    }),
  );
  const env = { KUBECONFIG: kubeconfig, KUBE_NAMESPACE: namespace, GRPC_ADDR: "127.0.0.1:0", ...ENGINE };
  const child = Bun.spawn([process.execPath, "--preload", "./tests/long/loop-delay.ts", "src/main.ts"], {
    env,
    stdout: "pipe",
    stderr: "pipe",
  });
  const address = Promise.withResolvers<string>();
  void (async () => {
    for await (const line of linesOf(child.stderr)) {
      const { addr, level } = JSON.parse(line);
      if (addr !== undefined) address.resolve(addr);
      if (level === "error") console.log(line);
    }
    address.reject(new Error("the runner has ended"));
  })();
  const delays = linesOf(child.stdout)[Symbol.asyncIterator]();
  const client = createClient(RunnerService, createGrpcTransport({ baseUrl: `http://${await address.promise}` }));
  return {
    pid: child.pid,
    client,
    get hasEnded() {
      return child.exitCode !== null;
    },
    /** Of its event loop since the last time it was asked. */
    async delay(): Promise<{ p99Ms: number; mostMs: number; samples: number }> {
      child.kill("SIGUSR2");
      return JSON.parse((await delays.next()).value ?? "{}");
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.exited;
      rmSync(directory, { recursive: true });
    },
  };
}

const main = idling({ cmd: ["sleep", "86400"] });

/** Everything that is done to the runner; each piece of it either succeeds or is a failure of the soak. */
class Load {
  readonly failures: string[] = [];
  readonly counts = { started: 0, removed: 0, executions: 0, reads: 0 };
  readonly #client: RunnerClient;
  readonly #stays: { readonly id: string; readonly target: string }[] = [];
  readonly #passing: string[] = [];
  readonly #underWay = new Set<Promise<void>>();

  constructor(client: RunnerClient) {
    this.#client = client;
  }

  async fill(pods: number): Promise<void> {
    const starters = Array.from({ length: STARTERS }, async () => {
      while (this.#stays.length < pods) {
        const stay = { id: "", target: "" };
        this.#stays.push(stay);
        const { id, containers } = await this.#client.startWorkload({ main });
        Object.assign(stay, { id, target: containers?.main ?? "" });
      }
    });
    await Promise.all(starters);
    for (const { id } of this.#stays) await untilRunning(this.#client, id);
  }

  /** Begins each kind of work so many times a second, whether the last has ended or not, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([
      this.#every(2 / CHURN, signal, (index) => this.#pass(index)),
      this.#every(1 / EXECS, signal, (index) => this.#execute(index)),
      this.#every(0.1, signal, (index) => this.#read(index)),
    ]);
    await Promise.all(this.#underWay);
  }

  async clear(): Promise<void> {
    for (const id of [...this.#passing, ...this.#stays.map(({ id }) => id)])
      if (id !== "") await this.#client.removeWorkload({ workloadId: id, force: true });
  }

  async #every(seconds: number, signal: AbortSignal, work: (index: number) => Promise<void>): Promise<void> {
    const begun = performance.now();
    for (let index = 0; !signal.aborted; index++) {
      if (this.#underWay.size < MOST_UNDER_WAY) {
        const piece = work(index)
          .catch((error: unknown) => void this.failures.push(String(error)))
          .finally(() => this.#underWay.delete(piece));
        this.#underWay.add(piece);
      }
      const due = begun + (index + 1) * seconds * 1000;
      await sleep(Math.max(1, due - performance.now()), signal).catch(() => undefined); // the end, looked at above
    }
  }

  /** One comes, and the oldest of those before goes. */
  async #pass(index: number): Promise<void> {
    const { id } = await this.#client.startWorkload({ main });
    this.#passing.push(id);
    this.counts.started += 1;
    const oldest = index < 20 ? undefined : this.#passing.shift();
    if (oldest === undefined) return;
    await this.#client.removeWorkload({ workloadId: oldest, force: true });
    this.counts.removed += 1;
  }

  async #execute(index: number): Promise<void> {
    const { target } = this.#stays[index % this.#stays.length] ?? { target: "" };
    const { exitCode, stdout } = summary(
      await exec(this.#client, { targetId: target, commandArgv: ["echo", `${index}`] }),
    );
    if (exitCode !== 0 || stdout !== `${index}\n`) throw new Error(`an execution ended with ${exitCode}: ${stdout}`);
    this.counts.executions += 1;
  }

  async #read(index: number): Promise<void> {
    const { id } = this.#stays[index % this.#stays.length] ?? { id: "" };
    const { stateRunning } = await this.#client.inspectWorkload({ workloadId: id });
    if (!stateRunning) throw new Error(`${id} does not run`);
    if (index % 10 === 0) await this.#client.listWorkloads({});
    this.counts.reads += 1;
  }
}

async function soak() {
  await using backend = await startBackend();
  await using runner = await startRunner(backend);
  const load = new Load(runner.client);
  try {
    await load.fill(PODS);
    console.log(`${PODS} Pods run`);
    await sleep(2_000);
    const before = descriptors(runner.pid);
    await runner.delay(); // from here on
    const ending = new AbortController();
    const running = load.run(ending.signal);
    const samples: Sample[] = [];
    const begun = performance.now();
    for (let told = 0; ; ) {
      await sleep(SAMPLE_MS);
      const minute = (performance.now() - begun) / 60_000;
      samples.push({ minute, mib: residentMiB(runner.pid) });
      if (Math.floor(minute) > told) {
        told = Math.floor(minute);
        console.log(JSON.stringify({ minute: told, mib: Math.round(residentMiB(runner.pid)), ...load.counts }));
      }
      if (minute >= MINUTES || interrupted || runner.hasEnded) break;
    }
    ending.abort(new Error("the soak is over"));
    await running;
    const delay = await runner.delay();
    const after = await until(
      "descriptors are given back",
      () => (descriptors(runner.pid) <= before + MAX_DESCRIPTORS ? descriptors(runner.pid) : undefined),
      10_000,
    ).catch(() => descriptors(runner.pid));
    const settled = samples.filter(({ minute }) => minute >= SETTLED_MINUTES);
    return { load, before, after, delay, slope: slopeOf(settled.length > 0 ? settled : samples) };
  } finally {
    await load.clear();
  }
}

const { load, before, after, delay, slope } = await soak();
const result = {
  row: "soak",
  minutes: MINUTES,
  pods: PODS,
  ...load.counts,
  failures: load.failures.length,
  slopeMibPerMinute: Number(slope.toFixed(3)),
  descriptors: [before, after],
  loopP99Ms: Number(delay.p99Ms.toFixed(1)),
  loopMostMs: Number(delay.mostMs.toFixed(1)),
};
console.log(JSON.stringify(result));
for (const failure of load.failures.slice(0, 10)) console.log(`failure: ${failure}`);
const promised = (share: number) => share * MINUTES * 60 * 0.9; // what was begun last may not have ended
const checks: [string, boolean][] = [
  ["no failure", load.failures.length === 0],
  ["all work was done", load.counts.executions >= promised(EXECS) && load.counts.started >= promised(CHURN / 2)],
  [`descriptors within ${MAX_DESCRIPTORS}`, Math.abs(after - before) <= MAX_DESCRIPTORS],
  [`event loop p99 under ${MAX_P99_MS} ms`, delay.samples > 0 && delay.p99Ms < MAX_P99_MS],
];
if (MINUTES >= JUDGED_MINUTES) checks.push([`slope at most ${MAX_SLOPE} MiB/min`, slope <= MAX_SLOPE]);
for (const [name, holds] of checks) console.log(`${holds ? "(pass)" : "(fail)"} ${name}`);
const failed = checks.filter(([, holds]) => !holds).length;
console.log(`soak: ${checks.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
