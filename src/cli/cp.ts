import type { Connection } from "./connection.ts";
import { connect } from "./connection.ts";
import { download } from "./download.ts";
import { FAILED, Failure } from "./failure.ts";
import { type Invocation, UsageError } from "./invocation.ts";
import { upload } from "./upload.ts";
import { workloadId } from "./workload.ts";

/** A path in a workload. */
export interface Remote {
  readonly word: string;
  readonly path: string;
}

/** Copies into a workload or out of it, whole or not at all as far as that can be had. */
export async function cp(invocation: Invocation): Promise<number> {
  const paths = [...invocation.operands];
  const destination = paths.pop() ?? "";
  const to = remote(destination);
  const from = paths.map(remote);
  if (to === undefined && from.some((path) => path === undefined))
    throw new UsageError("one side of cp is in a workload: <workload>:<path>");
  if (to !== undefined && from.some((path) => path !== undefined))
    throw new UsageError("cp does not copy from one workload to another");
  if (to !== undefined && invocation.has("container"))
    throw new UsageError(
      "--container is for copies out of a workload: the API takes files for the main container alone",
    );
  const ms = invocation.durationMs("timeout") ?? 0;
  using connection = await connect(invocation, ms);
  const idOf = (word: string): Promise<string> => workloadId(word, connection);
  try {
    if (to !== undefined) await upload(paths, { id: await idOf(to.word), path: to.path }, connection);
    else
      for (const source of from)
        if (source !== undefined) await downloadOne(source, destination, invocation, connection, idOf);
  } catch (error) {
    // The statuses of a failed execution are for `exec` alone.
    throw error instanceof Failure ? new Failure(error.message, FAILED, error) : error;
  }
  return 0;
}

async function downloadOne(
  { word, path }: Remote,
  destination: string,
  invocation: Invocation,
  connection: Connection,
  idOf: (word: string) => Promise<string>,
): Promise<void> {
  const container = invocation.text("container");
  const id = await idOf(word);
  await download({ targetId: container === undefined ? id : `${id}:${container}`, path }, destination, connection);
}

/** `<workload>:<path>`; undefined for a path of this machine, as which `./a:b` and `/a:b` can be written too. */
function remote(text: string): Remote | undefined {
  const [, word, path] = /^([0-9A-Za-z-]+):(.*)$/s.exec(text) ?? [];
  if (word === undefined || path === undefined) return undefined;
  if (!path.startsWith("/")) throw new UsageError(`"${text}": the path in a workload begins with /`);
  return { word, path };
}
