import { afterAll, beforeAll, setDefaultTimeout } from "bun:test";
import { randomUUID } from "node:crypto";
import { Code, ConnectError } from "@connectrpc/connect";
import type { AppOptions } from "../../src/app.ts";
import { KubeError } from "../../src/kube/error.ts";
import type { Pod } from "../../src/kube/types.ts";
import { MANAGED_BY_LABEL, MANAGER, podName, WORKLOAD_ID_LABEL, WORKLOAD_KEY_LABEL } from "../../src/pod/names.ts";
import { sleep } from "../../src/time.ts";
import { type Backend, startBackend } from "../support/backend.ts";
import type { Kind } from "../support/faults/fault.ts";
import { Gate } from "../support/gate.ts";
import { Link } from "../support/link.ts";
import { startRunner, type TestRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";

/** Delays much shorter than in production: their length is not what is tested. */
export const QUICK = {
  watcher: { syncWaitMs: 100, backoff: { minMs: 5, maxMs: 60 }, shortWatchMs: 100, lifeMs: 20 },
} satisfies AppOptions["tuning"];

/** And doubts the cache as soon as it was silent for some hundred ms. */
export const WARY = {
  watcher: { ...QUICK.watcher, staleMs: 900, relistAfterMs: 500 },
  kube: { requestMs: 1_000, watchOpenMs: 1_000, watchIdleMs: 600 },
} satisfies AppOptions["tuning"];

/** What each of the five reads says of one workload. */
export interface Told {
  readonly inspect: string;
  readonly labels: string;
  readonly list: string;
  readonly find: string;
  readonly volume: string;
}

export const all = (word: string): Told => ({ inspect: word, labels: word, list: word, find: word, volume: word });
export const THERE = all("there");
export const ABSENT = all("absent");
export const UNAVAILABLE = all("Unavailable");

/** A runner whose way to the cluster leads over a link that can be cut and a gate that spoils requests. */
export interface Rig extends TestRunner {
  readonly gate: Gate;
  readonly link: Link;
  /** Every change that the watcher told since the start: `applied <name> <uid> <version>`. */
  readonly changes: string[];
}

/** For a test file: one cluster for all of its rigs. */
export function sharedCluster() {
  setDefaultTimeout(30_000); // for this file alone
  let made: Backend | undefined;
  const backend = () => {
    if (made === undefined) throw new Error("the cluster is there only while tests run");
    return made;
  };
  beforeAll(async () => {
    made = await startBackend();
  });
  const names = new Set<string>();
  afterAll(async () => {
    const { pods } = backend().admin;
    await Promise.all([...names].map((name) => pods.delete(name, { gracePeriodSeconds: 0 }).catch(ignoreNotFound)));
    await backend()[Symbol.asyncDispose]();
  });

  return {
    backend,

    /** `prepare` sets the faults of the very first request. */
    async rig(
      prepare: (gate: Gate) => void = () => undefined,
      tuning: AppOptions["tuning"] = QUICK,
      env: Record<string, string> = {},
    ): Promise<Rig> {
      const gate = await Gate.over(backend().access);
      prepare(gate);
      const link = await Link.to(new URL(gate.url));
      const runner = await startRunner({ backend: backend(), access: () => link.access(gate.access), tuning, env });
      const changes = changesOf(runner);
      return {
        ...runner,
        gate,
        link,
        changes,
        async [Symbol.asyncDispose]() {
          gate.fault = () => undefined;
          link.up();
          await runner[Symbol.asyncDispose]();
          await link[Symbol.asyncDispose]();
          await gate[Symbol.asyncDispose]();
        },
      };
    },

    /** A managed Pod that nobody schedules, with a workload_key and a claim named like it; the id. */
    async make(id: string = randomUUID(), labels = {}, annotations = {}): Promise<string> {
      names.add(podName(id));
      await backend().admin.pods.create(waitingPod(id, labels, annotations));
      return id;
    },

    label: (id: string, labels: Record<string, string>): Promise<Pod> =>
      backend().admin.pods.patch(podName(id), { metadata: { labels } }),

    async remove(id: string): Promise<void> {
      await backend().admin.pods.delete(podName(id), { gracePeriodSeconds: 0 });
    },
  };
}

/** Its gate is not ours, so that no sweep ends it. */
export const waitingPod = (
  id: string,
  labels: Record<string, string> = {},
  annotations: Record<string, string> = {},
): Pod => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    name: podName(id),
    annotations,
    labels: { [MANAGED_BY_LABEL]: MANAGER, [WORKLOAD_ID_LABEL]: id, [WORKLOAD_KEY_LABEL]: id, ...labels },
  },
  spec: {
    schedulingGates: [{ name: "faults.test/never" }],
    containers: [{ name: "main", image: "alpine:3.19" }],
    volumes: [{ name: "data", persistentVolumeClaim: { claimName: `c-${id}` } }],
  },
});

/** Every change that the runner's watcher tells from now on, as `type name uid version`. */
export function changesOf({ watcher }: Pick<TestRunner, "watcher">): string[] {
  const changes: string[] = [];
  watcher.subscribe(({ type, pod: { metadata } }) =>
    changes.push(`${type} ${metadata?.name} ${metadata?.uid} ${metadata?.resourceVersion}`),
  );
  return changes;
}

/** What the five reads say of this workload now. */
export async function told({ client }: Pick<TestRunner, "client">, id: string): Promise<Told> {
  const word = (call: Promise<boolean>) =>
    call.then(
      (there) => (there ? "there" : "absent"),
      (error: unknown) => {
        const { code } = ConnectError.from(error);
        return code === Code.NotFound ? "absent" : Code[code];
      },
    );
  const [inspect = "", labels = "", list = "", find = "", volume = ""] = await Promise.all([
    word(client.inspectWorkload({ workloadId: id }).then(() => true)),
    word(client.getWorkloadLabels({ workloadId: id }).then(() => true)),
    word(client.listWorkloads({}).then(({ workloads }) => workloads.some(({ workloadKey }) => workloadKey === id))),
    word(
      client
        .findWorkloadsByLabels({ labels: { [WORKLOAD_KEY_LABEL]: id }, all: true })
        .then(({ targetIds }) => targetIds.includes(id)),
    ),
    word(client.listWorkloadsByVolume({ volumeName: `c-${id}` }).then(({ targetIds }) => targetIds.includes(id))),
  ]);
  return { inspect, labels, list, find, volume };
}

/** How often this went wrong so far. */
export const count = ({ gate }: Pick<Rig, "gate">, what: string, kind?: Kind): number =>
  gate.fired.filter((each) => each.what === what && (kind === undefined || each.kind === kind)).length;

/** The label `n` of this workload, as GetWorkloadLabels tells it. */
export const labelOf = async ({ client }: Pick<TestRunner, "client">, id: string): Promise<string | undefined> =>
  (await client.getWorkloadLabels({ workloadId: id })).labels.n;

export const untilTold = (rig: Pick<TestRunner, "client">, id: string, wanted: Told, withinMs?: number) =>
  until(
    `${id} is ${JSON.stringify(wanted)}`,
    async () => (Bun.deepEquals(await told(rig, id), wanted) ? true : undefined),
    withinMs,
  );

/**
 * Asks all five reads again and again while `work` lasts, about a workload that is there all the time. How often it was
 * asked, and the answers that were lies: absent, or any failure that `allowed` does not name.
 */
export async function whileAsked(
  rig: Pick<TestRunner, "client">,
  id: string,
  work: () => Promise<unknown>,
  allowed: readonly string[] = [],
): Promise<{ asked: number; lies: string[] }> {
  let over = false;
  const working = work().finally(() => {
    over = true;
  });
  const lies: string[] = [];
  let asked = 0;
  do {
    const words: [string, string][] = Object.entries(await told(rig, id));
    for (const [read, word] of words) if (word !== "there" && !allowed.includes(word)) lies.push(`${read}: ${word}`);
    asked++;
    await sleep(2);
  } while (!over);
  await working;
  return { asked, lies };
}

function ignoreNotFound(error: unknown): void {
  if (!(error instanceof KubeError && error.notFound)) throw error;
}
