import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService, VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Fault, ProxiedRequest } from "../support/faults/fault.ts";
import { Gate } from "../support/gate.ts";
import { gatedRunner } from "../support/gated.ts";
import { runnerProcess } from "../support/process.ts";
import { freshId, idling, type RunnerClient, type StartRequest } from "../support/runner.ts";
import { sweeping } from "../support/sweeping.ts";
import { refusal, until } from "../support/wait.ts";

// Ruling 6: a start that fails at any point, however it does, leaves nothing of itself behind, and the id can be used again.
const { runner, gate, behind } = gatedRunner();
setDefaultTimeout(60_000);

/** What nobody but the cluster may ever be told. */
const CANARY = `canary-${freshId()}`;

/** A start that makes everything there is to make: a Pod, two claims, three Secrets. */
function wholeStart(workloadId: string) {
  const credential = (registry: string) => ({ registry, username: "u", password: `${CANARY}-password` });
  return {
    workloadId,
    main: idling({
      env: [{ name: "TOKEN", value: `${CANARY}-env` }],
      inlineFileMounts: [{ path: "/tmp/inline/file" }],
    }),
    inlineFiles: { "/tmp/inline/file": new TextEncoder().encode(`${CANARY}-file`) },
    imagePullCredentials: [credential("one.test"), credential("two.test")],
    volumes: ["a", "b"].map((name) => ({
      name,
      kind: VolumeKind.NAMED,
      persistentName: runner().ledger.claimName(`${workloadId.slice(0, 8)}-${name}`),
    })),
    additionalProperties: runner().ledger.mark,
  } satisfies StartRequest;
}

/** GETs of two claims, POST of the Pod, of two claims, of three Secrets, and the gate. */
const CALLS = 9;

/** Requests of a start, not those of the cache. */
const isOfStart = ({ method, path }: ProxiedRequest): boolean =>
  method !== "GET" || /persistentvolumeclaims\/./.test(path);

/** Everything there is of a start: its Pod (gated or not), its claims, its Secrets. */
async function state(workloadId: string, { volumes }: ReturnType<typeof wholeStart>) {
  const pod = await runner().ledger.podNamed(`workload-${workloadId}`);
  const claims = await Promise.all(volumes.map(({ persistentName }) => runner().claim(persistentName)));
  return {
    pod: pod === undefined ? "none" : (pod.spec?.schedulingGates ?? []).length > 0 ? "gated" : "whole",
    claims: claims.filter((claim) => claim !== undefined).length,
    secrets: (await runner().secrets(workloadId)).length,
  };
}

const WHOLE = { pod: "whole", claims: 2, secrets: 3 };
const NOTHING = { pod: "none", claims: 0, secrets: 0 };

/** Undone now or a moment later (a caller that left is told nothing; Secrets are collected), or whole. */
async function settled(workloadId: string, request: ReturnType<typeof wholeStart>): Promise<"whole" | "nothing"> {
  return until(`${workloadId} is whole or gone`, async () => {
    const now = await state(workloadId, request);
    if (Bun.deepEquals(now, WHOLE)) return "whole" as const;
    return Bun.deepEquals(now, NOTHING) ? ("nothing" as const) : undefined;
  });
}

async function startAgain(client: RunnerClient, request: StartRequest): Promise<Code | undefined> {
  return client.startWorkload(request).then(
    () => undefined,
    (error: unknown) => ConnectError.from(error).code,
  );
}

describe.each<Fault>(["error before", "error after", "reset before", "reset after"])("%s a call", (fault) => {
  test.each(Array.from({ length: CALLS }, (_, index) => index + 1))("number %d of a start", async (number) => {
    const workloadId = runner().ledger.workload(freshId());
    const request = wholeStart(workloadId);
    let calls = 0;
    gate().fault = (each) => (isOfStart(each) && ++calls === number ? fault : undefined);
    const refused = await startAgain(behind().client, request);
    gate().fault = () => undefined;
    expect(calls).toBeGreaterThanOrEqual(number); // it fired
    expect(await settled(workloadId, request)).toBe(refused === undefined ? "whole" : "nothing");
    expect(await startAgain(runner().client, request)).toBe(refused === undefined ? Code.AlreadyExists : undefined);
    expect(await state(workloadId, request)).toEqual(WHOLE);
    await runner().client.removeWorkload({ workloadId, force: true, removeVolumes: true });
  });
});

test.each(Array.from({ length: CALLS }, (_, index) => index + 1))("a caller that leaves at call %d", async (number) => {
  const workloadId = runner().ledger.workload(freshId());
  const request = wholeStart(workloadId);
  const abort = new AbortController();
  let calls = 0;
  // The call goes on when the runner has heard of it.
  const heard = () =>
    behind()
      .logLines()
      .some((line) => line.workload_id === workloadId && line.code === "Canceled");
  gate().fault = async (each) => {
    if (!isOfStart(each) || ++calls !== number) return;
    abort.abort();
    await until("the runner has heard that the caller left", () => (heard() ? true : undefined));
  };
  const code = await behind()
    .client.startWorkload(request, { signal: abort.signal })
    .then(
      () => undefined,
      (error: unknown) => ConnectError.from(error).code,
    );
  expect(code).toBe(Code.Canceled);
  // From the third call on there is something to undo; before that there was nothing all the time.
  const undone = () =>
    gate().requests.some((each) => each.startsWith("DELETE") && each.includes(`/pods/workload-${workloadId}`));
  await until("the undoing has begun", () => (number < 3 || undone() ? true : undefined));
  await until("nothing is left", async () =>
    Bun.deepEquals(await state(workloadId, request), NOTHING) ? true : undefined,
  );
  gate().fault = () => undefined;
  expect(await startAgain(runner().client, request)).toBeUndefined();
  await runner().client.removeWorkload({ workloadId, force: true, removeVolumes: true });
});

describe.each([
  ["completes the start", "20s"],
  ["undoes the start when its time is up", "0"],
])("a runner that is told to end %s", (_name, grace) => {
  test.each(Array.from({ length: CALLS }, (_, index) => index + 1))("at call %d of it", async (number) => {
    const workloadId = runner().ledger.workload(freshId());
    const request = wholeStart(workloadId);
    await using own = await Gate.over(runner().backend.access);
    await using ending = await runnerProcess(own, runner().backend.namespace, { SHUTDOWN_GRACE: grace });
    const arrived = Promise.withResolvers<void>();
    const released = Promise.withResolvers<undefined>();
    let calls = 0;
    own.fault = (each) => {
      if (!isOfStart(each) || ++calls !== number) return undefined;
      arrived.resolve();
      return released.promise;
    };
    const answer = startAgain(ending.client, request);
    await arrived.promise;
    await ending.terminate();
    const late = createClient(RunnerService, createGrpcTransport({ baseUrl: ending.baseUrl }));
    // One that was on its way as the port closed is reset.
    await until(
      "new calls are refused",
      async () => (await refusal(late.ready({}))).code === "Unavailable" || undefined,
    );
    if (grace === "0") expect(await answer).toBe(Code.Unavailable); // told at once
    released.resolve(undefined);
    expect(await answer).toBe(grace === "0" ? Code.Unavailable : undefined);
    expect(await ending.exited).toBe(0);
    expect(ending.log()).not.toContain("in the middle of changes");
    // What was deleted goes in the cluster's own time; it is not asked for by anybody else.
    expect(await settled(workloadId, request)).toBe(grace === "0" ? "nothing" : "whole");
    await removed(workloadId);
  });
});

/** Also when it is not there. */
const removed = (workloadId: string) =>
  runner()
    .client.removeWorkload({ workloadId, force: true, removeVolumes: true })
    .catch((error: unknown) => expect(ConnectError.from(error).code).toBe(Code.NotFound));

test("no fault brings a secret into the log, at debug level", () => {
  const log = behind().logText();
  expect(log).toContain("StartWorkload");
  expect(log).not.toContain(CANARY);
  for (const secret of ["password", "file", "env"])
    expect(log).not.toContain(Buffer.from(`${CANARY}-${secret}`).toString("base64").slice(0, 40));
});

test("a runner that is killed at any call leaves nothing that the sweep of the next one does not end", async () => {
  const starts: [string, ReturnType<typeof wholeStart>][] = [];
  for (let number = 1; number <= CALLS + 1; number++) {
    const workloadId = runner().ledger.workload(freshId());
    const request = wholeStart(workloadId);
    starts.push([workloadId, request]);
    await using doomed = await runnerProcess(gate(), runner().backend.namespace);
    let calls = 0;
    gate().fault = (each) => {
      if (!isOfStart(each) || ++calls !== number) return undefined;
      doomed.kill();
      return "reset before";
    };
    const code = await startAgain(doomed.client, request);
    gate().fault = () => undefined;
    expect(code === undefined).toBe(number > CALLS);
  }
  await sweeping(runner().backend, { gatedMs: 100 }, async () => {
    for (const [index, [workloadId, request]] of starts.entries())
      expect(await settled(workloadId, request)).toBe(index === CALLS ? "whole" : "nothing");
  });
  for (const [workloadId, request] of starts.slice(0, CALLS)) {
    expect(await startAgain(runner().client, request)).toBeUndefined();
    await runner().client.removeWorkload({ workloadId, force: true, removeVolumes: true });
  }
});
