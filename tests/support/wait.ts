import { Code, ConnectError } from "@connectrpc/connect";
import type { InspectWorkloadResponse } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { sleep } from "../../src/time.ts";
import type { RunnerClient } from "./runner.ts";

/**
 * Longest wait for anything, in milliseconds: a Pod's start on a busy machine fits, a test's own limit is never reached. Who shows
 * that nothing comes by itself must wait for less than the 30 s after which the watcher lists anew.
 */
const WITHIN_MS = Number(process.env.E2E_WITHIN_MS ?? 25_000);
/** Pause between two questions, in milliseconds. It only spares the server: nothing passes or fails by it. */
const EVERY_MS = 20;

/**
 * Asks until there is an answer: the first result of `probe` that is not undefined. What the probe throws ends the wait.
 * Throws after `withinMs` with `what`, a clause such as "the Pod is gone".
 */
export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  withinMs = WITHIN_MS,
): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const answer = await probe();
    if (answer !== undefined) return answer;
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await sleep(EVERY_MS);
  }
}

/** The inspection as soon as `accept` holds for it. NOT_FOUND is waited out, any other error ends the wait (clients.md 8). */
export function untilInspected(
  client: RunnerClient,
  workloadId: string,
  what: string,
  accept: (inspection: InspectWorkloadResponse) => boolean,
): Promise<InspectWorkloadResponse> {
  return until(`workload ${workloadId} ${what}`, async () => {
    const inspection = await inspect(client, workloadId);
    return inspection && accept(inspection) ? inspection : undefined;
  });
}

export const untilRunning = (client: RunnerClient, workloadId: string): Promise<InspectWorkloadResponse> =>
  untilInspected(client, workloadId, "runs", ({ stateRunning }) => stateRunning);

/** `phase` in lower case, as InspectWorkload's state_status has it. */
export const untilPhase = (client: RunnerClient, workloadId: string, phase: string): Promise<InspectWorkloadResponse> =>
  untilInspected(client, workloadId, `is ${phase}`, ({ stateStatus }) => stateStatus === phase);

export const untilGone = (client: RunnerClient, workloadId: string): Promise<true> =>
  until(`workload ${workloadId} is gone`, async () =>
    (await inspect(client, workloadId)) === undefined ? true : undefined,
  );

/** The inspection, undefined for NOT_FOUND; every other error is thrown. */
export async function inspect(client: RunnerClient, workloadId: string): Promise<InspectWorkloadResponse | undefined> {
  try {
    return await client.inspectWorkload({ workloadId });
  } catch (error) {
    if (ConnectError.from(error).code === Code.NotFound) return undefined;
    throw error;
  }
}

/** How a call was refused: the code's name and the message. Throws when it was not. */
export async function refusal(call: Promise<unknown>): Promise<{ code: string; message: string }> {
  const answer = await call.then(
    (value) => ({ value }),
    (error: unknown) => ConnectError.from(error),
  );
  if (answer instanceof ConnectError) return { code: Code[answer.code], message: answer.rawMessage };
  throw new Error(
    `expected a refusal, got ${JSON.stringify(answer.value, (_, v) => (typeof v === "bigint" ? `${v}` : v))}`,
  );
}
