import { expect, test } from "bun:test";
import { durationMs, durationProblem } from "../src/duration.ts";

test.each([
  ["2m", 120_000],
  ["90s", 90_000],
  ["1h30m", 5_400_000],
  ["500ms", 500],
  ["1.5h", 5_400_000],
  [".5s", 500],
  ["-2s", -2_000],
  ["+1us", 0.001],
  ["0", 0],
])("%s is %d ms", (text, ms) => {
  expect(durationMs(text)).toBeCloseTo(ms, 9);
});

test.each(["", "2", "m", "1 m", "1x", "1m2", "--1s", "1m;"])("%p is no duration", (text) => {
  expect(durationMs(text)).toBeUndefined();
});

test.each([
  ["", 'time: invalid duration ""'],
  ["soon", 'time: invalid duration "soon"'],
  ["1m;", 'time: unknown unit "m;" in duration "1m;"'],
  ["--1s", 'time: invalid duration "--1s"'],
  ["2", 'time: missing unit in duration "2"'],
  ["1h2", 'time: missing unit in duration "1h2"'],
  ["1h3x", 'time: unknown unit "x" in duration "1h3x"'],
  ["1h.", 'time: invalid duration "1h."'],
])("Go says of %p: %s", (text, problem) => {
  expect(durationProblem(text)).toBe(problem);
});

test.each(["2m", "1h30m", "0", "-1s"])("Go takes %p", (text) => {
  expect(durationProblem(text)).toBeUndefined();
});
