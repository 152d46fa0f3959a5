import { expect, test } from "bun:test";
import { chart } from "../../bench/chart.ts";
import type { Line, Report } from "../../bench/figures.ts";
import { page, together, withFigures } from "../../bench/report.ts";

const line = (over: Partial<Line>): Line => ({
  Row: "ready",
  Measured: "Ready",
  Callers: 32,
  Calls: 1000,
  P50: 0.5,
  P99: 2,
  Rate: 20_000,
  InBytes: false,
  CPU: 0.04,
  RatioP50: null,
  RatioRate: null,
  Goals: null,
  ...over,
});
const baseline = (met: boolean): Line =>
  line({
    Measured: "bare <handler>",
    RatioP50: [2, 1.9, 2.1],
    RatioRate: [0.5, 0.4, 0.6],
    Goals: [{ Text: "rate ≥ 0.75", Met: met }],
  });
const report = (met: boolean): Report => ({
  ...{ CPUs: 2, CPU: "", Kernel: "6.1", Go: "1.26", Quick: false },
  Lines: [line({}), baseline(met)],
  Figures: [{ Row: "memory", Measured: "idle", Unit: "MB", Value: 71.26, Goals: [{ Text: "≤ 80 MB", Met: true }] }],
});

test("a goal is met or missed as the run says, in the table, in the sum and in the plot", () => {
  expect(page(report(true))).toContain("Of 2 goals 2 are met and 0 missed");
  expect(page(report(true))).toContain("rate ≥ 0.75: met");
  expect(page(report(false))).toContain("Of 2 goals 1 are met and 1 missed");
  expect(page(report(false))).toContain("rate ≥ 0.75: **missed**");
  expect(chart(report(true))).toContain("0.50 met");
  expect(chart(report(false))).toContain("0.50 missed");
});

test("a row names its baselines below it, with units", () => {
  const rows = page(report(true))
    .split("\n")
    .filter((text) => text.startsWith("|"))
    .map((text) => text.split("|").map((cell) => cell.trim()));
  expect(rows[2]?.slice(1, 9)).toEqual(["ready", "32", "Ready", "1000", "0.50 ms", "2.00 ms", "20000/s", "0.040 s"]);
  expect(rows[3]?.slice(1, 4)).toEqual(["", "", "bare <handler>"]);
  expect(rows[3]?.slice(9, 11)).toEqual(["2.00 (1.90–2.10)", "0.50 (0.40–0.60)"]);
  expect(rows.at(-1)?.slice(1, 5)).toEqual(["memory", "idle", "71.3 MB", "≤ 80 MB: met"]);
});

test("the plot is well-formed: what a name holds is text", () => {
  expect(chart(report(true))).toContain("bare &lt;handler>");
});

test("only what is between the markers is written", () => {
  const text = "before\n<!-- figures: written by bench/report.ts -->\nold\n<!-- end of figures -->\nafter";
  const written = withFigures(text, "new");
  expect(written).toBe("before\n<!-- figures: written by bench/report.ts -->\n\nnew\n\n<!-- end of figures -->\nafter");
  expect(withFigures(written, "new")).toBe(written);
  expect(() => withFigures("no markers", "new")).toThrow("no ");
});

test("runs of different rows make one page", () => {
  const all = together([report(true), { ...report(false), Quick: true, Figures: null }]);
  expect(all?.Lines?.length).toBe(4);
  expect(all?.Figures?.length).toBe(1);
  expect(all?.Quick).toBe(true);
  expect(together([report(true), { ...report(true), CPUs: 1 }])).toMatchObject({ CPUs: 2 }); // held to a part of the machine
  expect(together([])).toBeUndefined();
});
