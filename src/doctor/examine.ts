import { KubeError } from "../kube/error.ts";
import { errorText } from "../log.ts";
import { blocked, type Check, type Finding, fail, skip } from "./check.ts";
import type { Exam } from "./exam.ts";

/** A finding and whose it is. */
export interface Result extends Finding {
  readonly id: string;
}

/**
 * The checks that `only` names, by id or by the part of it before a dot, and all that those need; in their order. Throws an
 * Error that names what is no check.
 */
export function selected(checks: readonly Check[], only: readonly string[]): Check[] {
  const wanted = new Set<string>();
  for (const name of only) {
    const found = checks.filter(({ id }) => id === name || id.startsWith(`${name}.`));
    if (found.length === 0)
      throw new Error(`no check "${name}": known are ${checks.map((check) => check.id).join(", ")}`);
    for (const { id } of found) for (const each of [id, ...needsOf(id, checks)]) wanted.add(each);
  }
  return checks.filter(({ id }) => only.length === 0 || wanted.has(id));
}

/** What a check needs, and what that needs, the nearest first. */
function needsOf(id: string, checks: readonly Check[]): string[] {
  const needs = checks.find((check) => check.id === id)?.needs ?? [];
  return [...needs, ...needs.flatMap((need) => needsOf(need, checks))];
}

/** Makes the checks one after the other and tells of each at once. A failure is told once: what needs it is skipped. */
export async function examine(checks: readonly Check[], exam: Exam, tell: (result: Result) => void): Promise<Result[]> {
  /** For every check that failed, or was not made because of that: the one that failed. */
  const roots = new Map<string, string>();
  const results: Result[] = [];
  for (const check of checks) {
    const root = needsOf(check.id, checks)
      .map((need) => roots.get(need))
      .find((id) => id !== undefined);
    const finding = exam.signal.aborted
      ? skip("interrupted")
      : root === undefined
        ? await findingOf(check, exam, roots)
        : blocked(root);
    if (finding.status === "FAIL") roots.set(check.id, check.id);
    else if (finding.blockedBy !== undefined) roots.set(check.id, finding.blockedBy);
    const result = { id: check.id, ...finding };
    results.push(result);
    tell(result);
  }
  return results;
}

async function findingOf(check: Check, exam: Exam, roots: Map<string, string>): Promise<Finding> {
  const missing = check.rights?.find((right) => exam.denied.has(right));
  if (missing !== undefined) return blocked(`rbac.${missing.split(" ")[0]}`);
  try {
    return await check.run(exam);
  } catch (error) {
    if (exam.signal.aborted) return skip("interrupted");
    // The API server was reached before: whatever came in between is told here, and not again by every check that follows.
    if (error instanceof KubeError && error.unreachable) roots.set("api", check.id);
    return fail(errorText(error), "run doctor again; if it stays so, the message is the Kubernetes API's own");
  }
}
