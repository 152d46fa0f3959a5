import { expect, test } from "bun:test";
import { durationMs } from "../src/duration.ts";

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
