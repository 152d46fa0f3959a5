import { Gateway } from "../../src/gateway/client.ts";
import { StateReporter } from "../../src/gateway/report.ts";
import { createLog } from "../../src/log.ts";
import { Secret } from "../../src/secret.ts";
import type { PodChanges } from "../../src/watcher.ts";
import { FakeGateway, type Script, TOKEN } from "../support/gateway.ts";
import { Pods } from "./pods.ts";

export interface ReportingOptions {
  readonly pods?: PodChanges;
  readonly gateway?: FakeGateway;
  readonly script?: Script;
  readonly timing?: { callMs?: number; waitsMs?: readonly number[]; replayMs?: number };
  readonly now?: () => number;
  readonly token?: string;
}

/** Nothing is replayed or timed out by chance; waits between attempts are a millisecond. */
const QUIET = { callMs: 3_600_000, waitsMs: [1, 1], replayMs: 3_600_000 };

/** A reporter over Pods of the test's making, with a real client of a fake gateway. */
export async function reporting({ script, timing, now, token = TOKEN, ...given }: ReportingOptions = {}) {
  const pods = new Pods();
  const gateway = given.gateway ?? (await FakeGateway.start(script));
  const client = new Gateway({ address: gateway.address, tls: false, token: new Secret(token) });
  const lines: string[] = [];
  const log = createLog({ level: "debug", stream: { write: (line) => void lines.push(line) } });
  const reporter = new StateReporter({
    pods: given.pods ?? pods,
    gateway: client,
    log,
    timing: { ...QUIET, ...timing },
    ...(now === undefined ? {} : { now }),
  });
  const stopping = new AbortController();
  const running = reporter.run(stopping.signal);
  return {
    pods,
    gateway,
    reporter,
    running,
    text: () => lines.join(""),
    lines: (msg: string) => lines.map((line) => JSON.parse(line)).filter((line) => line.msg === msg),
    /** What the gateway was told of a workload, in order. */
    told: (workload: string) => gateway.of(workload).map(({ status }) => status),
    /** Waits until nothing is to be sent. */
    settled: async () => {
      while (reporter.pending > 0) await new Promise(setImmediate);
    },
    stop: () => stopping.abort(new Error("the test is over")),
    [Symbol.asyncDispose]: async () => {
      stopping.abort(new Error("the test is over"));
      await running;
      client.close();
      if (given.gateway === undefined) await gateway[Symbol.asyncDispose]();
    },
  };
}

/** An answer that does not come. */
export const never = () => new Promise<never>(() => {});

/** Answers that a test gives one by one. */
export function held() {
  const waiting: (() => void)[] = [];
  return {
    waiting,
    wait: () => new Promise<void>((resolve) => waiting.push(resolve)),
    release: () => waiting.shift()?.(),
  };
}
