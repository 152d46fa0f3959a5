import type { Result } from "./examine.ts";

/** Longest line, in UTF-16 units: some messages of the API server quote whole objects. */
const LINE_LIMIT = 1500;

/** `status  id: seen`, and what to do on a line of its own. */
export function linesFor({ id, status, seen, advice }: Result): string {
  const first = `${status.padEnd(4)}  ${id}: ${oneLine(seen)}\n`;
  return advice === undefined ? first : `${first}        ${oneLine(advice)}\n`;
}

export type Counts = Readonly<Record<"ok" | "warn" | "fail" | "skip", number>>;

export function countsOf(results: readonly Result[]): Counts {
  const counts = { ok: 0, warn: 0, fail: 0, skip: 0 };
  for (const { status } of results) counts[status === "FAIL" ? "fail" : status]++;
  return counts;
}

export const summary = ({ ok, warn, fail, skip }: Counts): string =>
  `\n${ok} ok, ${warn} to look at, ${fail} failed, ${skip} not checked\n`;

/** `{version, ok, counts, checks: [{id, status, seen, advice?, blockedBy?}]}`; `status` is `fail` where lines say `FAIL`. */
export const jsonFor = (version: string, results: readonly Result[]): string =>
  `${JSON.stringify({
    version,
    ok: countsOf(results).fail === 0,
    counts: countsOf(results),
    checks: results.map(({ status, ...result }) => ({ ...result, status: status.toLowerCase() })),
  })}\n`;

/** Texts come from the cluster too: without line breaks or escapes that a terminal would follow. */
function oneLine(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, " ").trim();
  return (line.length > LINE_LIMIT ? `${line.slice(0, LINE_LIMIT)}...` : line).toWellFormed();
}
