import type { Exam } from "./exam.ts";

/** What a check found. `skip`: not asked for, not to be seen, or not possible since something it needs failed. */
export type Status = "ok" | "warn" | "FAIL" | "skip";

export interface Finding {
  readonly status: Status;
  /** What was seen, in one line. */
  readonly seen: string;
  /** What to do about it: a command or a value of the chart. */
  readonly advice?: string;
  /** The check whose failure kept this one from being made. */
  readonly blockedBy?: string;
}

/** A right of the runner, `<resource> <verb>`, as in `pods/exec get`. */
export type Right = string;

export interface Check {
  readonly id: string;
  /** Checks that are made before; when one of them failed, or could not be made for that reason, this one is not made. */
  readonly needs: readonly string[];
  /** Rights that this check uses itself; without one of them it is not made, and the check of that right tells of it. */
  readonly rights?: readonly Right[];
  /** A KubeError that it throws is a failure of this check. */
  run(exam: Exam): Promise<Finding> | Finding;
}

export const ok = (seen: string): Finding => ({ status: "ok", seen });
export const warn = (seen: string, advice: string): Finding => ({ status: "warn", seen, advice });
export const fail = (seen: string, advice: string): Finding => ({ status: "FAIL", seen, advice });
/** Not made, and nothing is wrong because of that. */
export const skip = (seen: string, advice?: string): Finding => ({
  status: "skip",
  seen,
  ...(advice === undefined ? {} : { advice }),
});
/** Not made, since the check `root` failed. */
export const blocked = (root: string): Finding => ({ status: "skip", seen: `needs ${root}`, blockedBy: root });
