import { readFileSync, writeFileSync } from "node:fs";
import { chart } from "./chart.ts";
import type { Line, Report, Verdict } from "./figures.ts";

/**
 * Puts the figures of a run (`load -json`) into docs/performance.md, between its markers, and draws docs/performance.svg.
 * Arguments: files of figures, whose rows follow each other on the page. Whether a goal is met was decided where it was measured, and nothing here is edited by hand.
 */

const ms = (value: number): string => `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
const ratio = (values: Line["RatioP50"]): string => {
  if (values === null) return "";
  const [all, least, greatest] = values.map((value) => value.toFixed(2));
  return `${all} (${least}–${greatest})`;
};
const rate = ({ Rate, InBytes }: Line): string =>
  InBytes ? `${(Rate / 1e6).toFixed(0)} MB/s` : `${Rate.toFixed(Rate < 10 ? 1 : 0)}/s`;
const cpu = ({ CPU, InBytes }: Line): string => (CPU === null ? "" : `${CPU.toPrecision(2)} s${InBytes ? "/GiB" : ""}`);
const verdicts = (goals: readonly Verdict[] | null): string =>
  (goals ?? []).map(({ Text, Met }) => `${Text}: ${Met ? "met" : "**missed**"}`).join(", ");

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, at) => Math.max(3, title.length, ...rows.map((row) => row[at]?.length ?? 0)));
  const line = (cells: readonly string[]) => `| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

const LINE_HEAD = [
  "Row",
  "Callers",
  "Measured",
  "Calls",
  "p50",
  "p99",
  "Rate",
  "CPU",
  "Ratio of p50",
  "of rate",
  "Goal",
];

export function page({ CPUs, CPU, Kernel, Go, Quick, Lines, Figures }: Report): string {
  const lines = Lines ?? [];
  const figures = Figures ?? [];
  const goals = [...lines, ...figures].flatMap(({ Goals }) => Goals ?? []);
  const missed = goals.filter(({ Met }) => !Met).length;
  const rows = lines.map((line) => {
    const isFirst = line.RatioP50 === null;
    return [
      ...(isFirst ? [line.Row, String(line.Callers)] : ["", ""]),
      ...[line.Measured, String(line.Calls), ms(line.P50), ms(line.P99), rate(line), cpu(line)],
      ...[ratio(line.RatioP50), ratio(line.RatioRate), verdicts(line.Goals)],
    ];
  });
  const machine = `${CPUs} cores${CPU === "" ? "" : ` (${CPU})`}, Linux ${Kernel}, Bun ${Bun.version}, Go ${Go}`;
  return [
    `${machine}${Quick ? "; the short form, one round of each row" : ""}. Of ${goals.length} goals ${goals.length - missed} are met and ${missed} missed.`,
    "",
    table(LINE_HEAD, rows),
    "",
    table(
      ["Row", "Measured", "Value", "Goal"],
      figures.map(({ Row, Measured, Unit, Value, Goals }) => [
        Row,
        Measured,
        `${Number(Value.toPrecision(3))} ${Unit}`.trim(),
        verdicts(Goals),
      ]),
    ),
  ].join("\n");
}

const BEGIN = "<!-- figures: written by bench/report.ts -->";
const END = "<!-- end of figures -->";

/** `text` with what is between the markers replaced. Throws when it has not both. */
export function withFigures(text: string, figures: string): string {
  const [before, rest] = text.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined) throw new Error(`no "${BEGIN}" and "${END}" in the page`);
  return `${before}${BEGIN}\n\n${figures}\n\n${END}${after}`;
}

/** Runs of different rows as one; the machine is that of the first, as a later one may have been held to a part of it. */
export function together(reports: readonly Report[]): Report | undefined {
  const [first] = reports;
  return (
    first && {
      ...first,
      Quick: reports.some(({ Quick }) => Quick),
      Lines: reports.flatMap(({ Lines }) => Lines ?? []),
      Figures: reports.flatMap(({ Figures }) => Figures ?? []),
    }
  );
}

if (import.meta.main) {
  // As load/table.go writes them.
  const report = together(process.argv.slice(2).map((file) => JSON.parse(readFileSync(file, "utf8")) as Report));
  if (report === undefined) throw new Error("no file of figures is given");
  const document = "docs/performance.md";
  writeFileSync(document, withFigures(readFileSync(document, "utf8"), page(report)));
  writeFileSync("docs/performance.svg", chart(report));
}
