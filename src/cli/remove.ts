import { CALL_MS, type Connection, connect } from "./connection.ts";
import { FAILED, failureText } from "./failure.ts";
import { type Invocation, UsageError } from "./invocation.ts";
import { OutputClosed, print, tell } from "./output.ts";
import { untilGone } from "./wait.ts";
import { workloadId } from "./workload.ts";

/** With --wait, where --timeout does not say: longer than any usual grace period. */
const WAIT_MS = 120_000;

/** Stops workloads: their Pods are deleted, with time to end; volumes stay. */
export function stop(invocation: Invocation): Promise<number> {
  const timeoutSec = graceSeconds(invocation);
  return each(invocation, async (id, { client, limits }) => {
    await client.stopWorkload({ workloadId: id, timeoutSec }, limits());
  });
}

/** Removes workloads, and with --volumes what they kept. */
export function rm(invocation: Invocation): Promise<number> {
  const [force, removeVolumes] = [invocation.on("force"), invocation.on("volumes")];
  return each(invocation, async (id, { client, limits }) => {
    await client.removeWorkload({ workloadId: id, force, removeVolumes }, limits());
  });
}

/** In whole seconds, as the API has it; 0 is the Pod's own. */
function graceSeconds(invocation: Invocation): number {
  const ms = invocation.durationMs("grace");
  if (ms === undefined) return 0;
  const seconds = Math.ceil(ms / 1000);
  if (seconds === 0) throw new UsageError('--grace: there is always a second; "k8s-runner rm --force" gives none');
  return Math.min(seconds, 0xffffffff);
}

/** One after another, each told when it is done; a failure is told and does not keep the next from its turn. */
async function each(
  invocation: Invocation,
  act: (id: string, connection: Connection) => Promise<void>,
): Promise<number> {
  using connection = await connect(
    invocation,
    invocation.durationMs("timeout") ?? (invocation.on("wait") ? WAIT_MS : CALL_MS),
  );
  let status = 0;
  const accepted: string[] = [];
  const attempt = async (word: string, work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      if (error instanceof OutputClosed) throw error;
      tell(invocation.operands.length > 1 ? `${word}: ${failureText(error)}` : failureText(error));
      status = FAILED;
    }
  };
  for (const word of invocation.operands)
    await attempt(word, async () => {
      const id = await workloadId(word, connection);
      await act(id, connection);
      accepted.push(id);
      if (!invocation.on("wait")) await print(`${id}\n`);
    });
  if (invocation.on("wait"))
    for (const id of accepted)
      await attempt(id, async () => {
        await untilGone(id, connection);
        await print(`${id}\n`);
      });
  return status;
}
