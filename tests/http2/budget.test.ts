import { expect, test } from "bun:test";
import { Budget, type Violation } from "../../src/http2/budget.ts";

/** How often this may be spent at one moment, and what is used up then. */
function endure(spend: (budget: Budget, index: number) => Violation | undefined, limit = 1_000_000) {
  const budget = new Budget(0);
  for (let index = 0; index < limit; index++) {
    const violation = spend(budget, index);
    if (violation !== undefined) return { after: index, violation };
  }
  return undefined;
}

test("each kind has its budget", () => {
  const kinds = {
    pings: 1_000,
    settings: 100,
    resets: 1_500,
    streams: 10_000,
    small: 25_000,
    empty: 1_000,
    others: 1_000,
  } as const;
  for (const [kind, after] of Object.entries(kinds))
    expect(endure((budget) => budget.spend(kind as keyof typeof kinds))).toEqual({
      after,
      violation: kind as keyof typeof kinds,
    });
});

test("budgets are refilled over time, up to their size", () => {
  const budget = new Budget(0);
  const take = (count: number, now: number) => {
    budget.at(now);
    return budget.spend("resets", count);
  };
  expect(take(1_500, 0)).toBeUndefined();
  expect(take(500, 1_000)).toBeUndefined();
  expect(take(1_500, 60_000)).toBeUndefined();
  expect(take(1, 60_001)).toBe("resets");
});

test("pings are earned by what is sent, but not hoarded", () => {
  const budget = new Budget(0);
  for (let index = 0; index < 10_000; index++) budget.earnPing();
  expect(budget.spend("pings", 1_000)).toBeUndefined();
  for (let index = 0; index < 10_000; index++) {
    budget.earnPing();
    expect(budget.spend("pings")).toBeUndefined();
  }
  expect(budget.spend("pings")).toBe("pings");
});

test("whole DATA frames and the ends of streams cost nothing, small ones and empty ones do", () => {
  expect(endure((budget) => budget.spendData(16_384, false), 60_000)).toBeUndefined();
  expect(endure((budget) => budget.spendData(0, true), 60_000)).toBeUndefined();
  expect(endure((budget) => budget.spendData(6, true), 60_000)).toBeUndefined();
  expect(endure((budget) => budget.spendData(0, false))).toEqual({ after: 1_000, violation: "empty" });
  expect(endure((budget) => budget.spendData(6, false))).toEqual({ after: 25_000, violation: "small" });
});

test("a header block is bounded in bytes and in pieces", () => {
  expect(endure((budget, index) => budget.spendBlock(0, index === 0))).toEqual({ after: 17, violation: "headerBlock" });
  expect(endure((budget, index) => budget.spendBlock(16_384, index === 0))).toEqual({
    after: 4,
    violation: "headerBlock",
  });
});

test("many large header blocks are too much", () => {
  expect(endure((budget) => budget.spendBlock(16_384, true))).toEqual({ after: 512, violation: "headerBytes" });
});
