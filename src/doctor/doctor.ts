import { errorText } from "../log.ts";
import type { Environment } from "../variables.ts";
import { Exam, type Options } from "./exam.ts";
import { examine, type Result } from "./examine.ts";
import { countsOf, jsonFor, linesFor, summary } from "./report.ts";

export interface DoctorParts {
  readonly options: Options;
  /** Of this program, for the JSON. */
  readonly version: string;
  readonly env: Environment;
  readonly out: (text: string) => void;
  /** Aborted when the process is to end: what was made is removed all the same. */
  readonly signal: AbortSignal;
  /** For tests: how long an answer may take, in ms. */
  readonly patienceMs?: number | undefined;
}

/** Makes the checks of `options` and tells of them. Resolves with the exit status: 0 when nothing failed, else 1. */
export async function doctor({ options, version, env, out, signal, patienceMs }: DoctorParts): Promise<number> {
  const { json, checks } = options;
  const exam = new Exam({ env, options, signal, patienceMs });
  const results: Result[] = [];
  const tell = (result: Result) => {
    const told = { ...result, seen: exam.redacted(result.seen) };
    results.push(told);
    if (!json) out(linesFor(told));
  };
  await examine(checks, exam, tell);
  for (const result of await cleanUp(exam)) tell(result);
  const counts = countsOf(results);
  out(json ? jsonFor(version, results) : summary(counts));
  return counts.fail > 0 || signal.aborted ? 1 : 0;
}

/** Removes what the checks made, whatever became of them. Tells of it when there was something to remove. */
async function cleanUp(exam: Exam): Promise<Result[]> {
  const id = "clean-up";
  const ends = await Promise.allSettled(exam.leftBehind.map((remove) => remove()));
  const [failure] = ends.flatMap((end) => (end.status === "rejected" ? [errorText(end.reason)] : []));
  if (failure !== undefined)
    return [
      {
        id,
        status: "FAIL",
        seen: `what doctor made could not be removed: ${failure}`,
        advice: `kubectl --namespace ${exam.namespace} delete pods,persistentvolumeclaims --selector app.kubernetes.io/managed-by=k8s-runner-doctor`,
      },
    ];
  return exam.removed === 0 ? [] : [{ id, status: "ok", seen: `probe objects removed: ${exam.removed}` }];
}
