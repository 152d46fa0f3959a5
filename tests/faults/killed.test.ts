import { afterAll, beforeAll, expect, test } from "bun:test";
import { aboutOf } from "../support/faults/fault.ts";
import { Gate } from "../support/gate.ts";
import { runnerProcess } from "../support/process.ts";
import { freshId, idling } from "../support/runner.ts";
import { ABSENT, sharedCluster, THERE, told } from "./rig.ts";

/*
 * Row "SIGKILL after k-th API call", column READ: whatever the runner was doing when it was killed, the next one tells
 * nothing before it has the whole list, and then the truth.
 */
const cluster = sharedCluster();
let gate: Gate;
beforeAll(async () => {
  gate = await Gate.over(cluster.backend().access);
});
afterAll(() => gate[Symbol.asyncDispose]());

const credential = { registry: "r.test", username: "u", password: "p" };

/** A runner that starts a workload and is killed once its call of this number is carried out; whether it lived so long. */
async function life(workloadId: string, number: number): Promise<boolean> {
  const doomed = Promise.withResolvers<Awaited<ReturnType<typeof runnerProcess>>>();
  let calls = 0;
  gate.fault = async () => {
    if (++calls === number) (await doomed.promise).kill();
    return undefined;
  };
  await using runner = await runnerProcess(gate, cluster.backend().namespace);
  doomed.resolve(runner);
  const started = runner.client.startWorkload({ workloadId, main: idling(), imagePullCredentials: [credential] });
  const survived = await started.then(
    () => calls < number,
    () => false,
  );
  if (!survived) await runner.exited;
  return !survived;
}

/** What the next runner tells, once the whole list is there, of a workload that was there all the time, of one that never was, and of this. */
async function afterwards(fresh: string): Promise<void> {
  const [lasting, missing] = [await cluster.make(), freshId()];
  const complete = Promise.withResolvers<undefined>();
  gate.fault = (each) => (aboutOf(each).resource === "pods" && each.method === "GET" ? complete.promise : undefined);
  await using next = await runnerProcess(gate, cluster.backend().namespace);
  let answered = 0;
  const ask = (id: string) => told(next, id).finally(() => answered++);
  const answers = Promise.all([lasting, missing, fresh].map(ask));
  for (let round = 0; round < 50; round++) await next.client.ready({});
  expect(answered).toBe(0);
  complete.resolve(undefined);
  const made = await cluster
    .backend()
    .admin.pods.get(`workload-${fresh}`)
    .catch(() => undefined);
  const { volume, list, ...rest } = (await answers)[2] ?? ABSENT;
  expect((await answers).slice(0, 2)).toEqual([THERE, ABSENT]);
  expect(rest).toEqual({ inspect: made ? "there" : "absent", labels: made ? "there" : "absent", find: "absent" });
  expect([volume, list]).toEqual(["absent", "absent"]); // without a claim and a key of that name
  await next.client.removeWorkload({ workloadId: fresh, force: true }).catch(() => undefined);
}

test("killed at any call of its life, and started again", async () => {
  let number = 1;
  for (; ; number++) {
    const fresh = freshId();
    const killed = await life(fresh, number);
    await afterwards(fresh);
    if (!killed) break;
  }
  expect(number).toBeGreaterThan(4); // what is there now, the Pod, its Secret, the end of its gate
}, 60_000);
