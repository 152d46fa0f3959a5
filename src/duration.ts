/** Milliseconds of each unit that Go's time.ParseDuration knows. */
const UNITS: ReadonlyMap<string, number> = new Map([
  ["ns", 1e-6],
  ["us", 1e-3],
  ["µs", 1e-3],
  ["μs", 1e-3],
  ["ms", 1],
  ["s", 1_000],
  ["m", 60_000],
  ["h", 3_600_000],
]);

/** Milliseconds of a duration in Go's syntax (`90s`, `1h30m`, `1.5h`, `-2m`, `0`); undefined when it is none. */
export function durationMs(text: string): number | undefined {
  const [, sign, rest = ""] = /^([-+]?)(.*)$/s.exec(text) ?? [];
  if (rest === "0") return 0;
  const parts = [...rest.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map(([part]) => part).join("") !== rest) return undefined;
  const sum = parts.reduce((total, [, number, unit = ""]) => total + Number(number) * (UNITS.get(unit) ?? 0), 0);
  return sign === "-" ? -sum : sum;
}

/** Why Go's time.ParseDuration refuses this text, in its words; undefined when it takes it. */
export function durationProblem(text: string): string | undefined {
  if (durationMs(text) !== undefined) return undefined;
  const quoted = JSON.stringify(text);
  let rest = text.replace(/^[-+]/, "");
  if (rest === "") return `time: invalid duration ${quoted}`;
  while (rest !== "") {
    const [part, number = "", unit = ""] = /^(\d+\.?\d*|\.\d+)?([^.\d]*)/.exec(rest) ?? [];
    if (number === "") break;
    if (unit === "") return `time: missing unit in duration ${quoted}`;
    if (!UNITS.has(unit)) return `time: unknown unit ${JSON.stringify(unit)} in duration ${quoted}`;
    rest = rest.slice(part?.length);
  }
  return `time: invalid duration ${quoted}`;
}
