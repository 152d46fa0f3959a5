import type { Connection } from "./connection.ts";
import { Failure } from "./failure.ts";

/** Fewer letters of an id are no prefix but a slip: `rm` of the only workload by one letter must not be possible. */
const LEAST_LETTERS = 4;
const POD_PREFIX = "workload-";
const WHOLE = /^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})$/;

/**
 * The id that a word means: a whole id, the Pod's name, or the first letters of an id, 4 at least, that only one workload has. The
 * runner is asked only for the last; it answers with all of its workloads or not at all. Throws Failure.
 */
export async function workloadId(word: string, connection: Connection): Promise<string> {
  const text = word.startsWith(POD_PREFIX) ? word.slice(POD_PREFIX.length) : word;
  if (WHOLE.test(text)) return text;
  const { targetIds } = await connection.client.findWorkloadsByLabels({ all: true }, connection.limits());
  if (targetIds.includes(text)) return text;
  if (text.length < LEAST_LETTERS) throw new Failure(`"${word}" is no id, and too short for the beginning of one`);
  const found = targetIds.filter((id) => id.startsWith(text));
  const [first] = found;
  if (first === undefined) throw new Failure(`not_found: no workload's id is or begins with "${text}"`);
  if (found.length > 1)
    throw new Failure(`"${text}" is the beginning of ${found.length} ids: ${found.slice(0, 5).join(", ")}`);
  return first;
}
