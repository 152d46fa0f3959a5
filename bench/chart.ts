import type { Line, Report } from "./figures.ts";

const WIDTH = 920;
const LABEL = 465;
const BAR = 300;
const ROW = 26;
const TOP = 74;
/** The ratio at the right end; what is beyond is cut there and says so. */
const MOST = 2;

interface Bar {
  readonly label: string;
  readonly value: number;
  readonly least: number;
  readonly greatest: number;
  readonly goal: number | undefined;
  readonly met: boolean | undefined;
}

/**
 * One bar for each row and baseline with a goal on a ratio: how the runner does as a share of its baseline, so that more is
 * better everywhere (of p50 the inverse). The line is the baseline, the tick the goal.
 */
export function chart({ Lines }: Report): string {
  const bars = barsOf(Lines ?? []);
  const height = TOP + bars.length * ROW + 34;
  const x = (value: number) => LABEL + (Math.min(value, MOST) / MOST) * BAR;
  const body = bars.map((bar, index) => barAt(bar, TOP + index * ROW, x));
  const scale = [0, 0.5, 1, 1.5, 2].map(
    (value) => `<text class="small" x="${x(value)}" y="${TOP - 10}" text-anchor="middle">${value}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="title">
<title id="title">The runner beside its baselines</title>
<style>
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
  .head { font-size: 16px; font-weight: 600; } .small { font-size: 11px; fill: #59636e; }
  .met { fill: #1a7f6b; } .missed { fill: #bc4c00; } .range { stroke: #59636e; } .goal { stroke: #1f2328; stroke-width: 2; }
  .base { stroke: #59636e; stroke-dasharray: 3 3; } .back { fill: #ffffff; } .track { fill: #eef1f4; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; } .back { fill: #0d1117; } .track { fill: #1c232c; }
    .met { fill: #3fb69b; } .missed { fill: #f0883e; } .range, .base { stroke: #9198a1; } .goal { stroke: #e6edf3; }
  }
</style>
<rect class="back" width="${WIDTH}" height="${height}" rx="6"/>
<text class="head" x="16" y="26">The runner beside its baselines</text>
<text class="small" x="16" y="44">Share of the baseline (dashed), more is better; the tick is the goal, the thin line the rounds' range</text>
${scale.join("\n")}
${body.join("\n")}
<line class="base" x1="${x(1)}" x2="${x(1)}" y1="${TOP - 4}" y2="${height - 30}"/>
<text class="small" x="16" y="${height - 12}">Green: the goal is met. Orange: it is missed.</text>
</svg>
`;
}

function barAt({ label, value, least, greatest, goal, met }: Bar, y: number, x: (value: number) => number): string {
  const middle = y + ROW / 2 - 2;
  const tick =
    goal === undefined ? "" : `<line class="goal" x1="${x(goal)}" x2="${x(goal)}" y1="${y + 1}" y2="${y + ROW - 5}"/>`;
  return [
    `<text x="${LABEL - 10}" y="${middle + 4}" text-anchor="end">${escaped(label)}</text>`,
    `<rect class="track" x="${LABEL}" y="${y + 3}" width="${BAR}" height="${ROW - 10}" rx="2"/>`,
    `<rect class="${met === false ? "missed" : "met"}" x="${LABEL}" y="${y + 3}" width="${x(value) - LABEL}" height="${ROW - 10}" rx="2"/>`,
    `<line class="range" x1="${x(least)}" x2="${x(greatest)}" y1="${middle}" y2="${middle}"/>`,
    tick,
    `<text x="${LABEL + BAR + 12}" y="${middle + 4}">${value.toFixed(2)}${value > MOST ? " →" : ""}${met === undefined ? "" : met ? " met" : " missed"}</text>`,
  ].join("");
}

function barsOf(lines: readonly Line[]): Bar[] {
  let subject: Line | undefined;
  return lines.flatMap((line): Bar[] => {
    if (line.RatioP50 === null || line.RatioRate === null) {
      subject = line;
      return [];
    }
    const of = subject === undefined ? "" : `${subject.Measured}, ${subject.Callers}×`;
    return (line.Goals ?? []).flatMap(({ Text, Met }) => {
      const limit = Number(/[\d.]+$/.exec(Text)?.[0]);
      const isRate = Text.startsWith("rate");
      if (!isRate && !Text.startsWith("p50")) return [];
      const [all, low, high] = (isRate ? line.RatioRate : line.RatioP50) ?? [0, 0, 0];
      const share = isRate
        ? { value: all, least: low, greatest: high, goal: limit }
        : { value: 1 / all, least: 1 / high, greatest: 1 / low, goal: 1 / limit };
      return [{ label: `${of} : ${line.Measured}`, met: Met, ...share }];
    });
  });
}

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
