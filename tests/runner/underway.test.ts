import { expect, test } from "bun:test";
import { Underway } from "../../src/runner/underway.ts";

const MANY_MS = 3_600_000;

test("what is under way is waited for, also when it fails and when more begins meanwhile", async () => {
  const underway = new Underway();
  expect(await underway.settled(MANY_MS)).toBe(0);
  const [first, second] = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
  const answer = underway.add(first.promise);
  let left: number | undefined;
  const settled = underway.settled(MANY_MS).then((count) => {
    left = count;
  });
  underway.add(second.promise).catch(() => {});
  first.resolve("done");
  expect(await answer).toBe("done");
  expect(left).toBeUndefined();
  second.reject(new Error("failed"));
  await settled;
  expect(left).toBe(0);
});

test("what does not end in time is counted", async () => {
  const underway = new Underway();
  const endless = Promise.withResolvers<void>();
  underway.add(endless.promise);
  underway.add(Promise.resolve());
  expect(await underway.settled(5)).toBe(1);
  endless.resolve();
  expect(await underway.settled(MANY_MS)).toBe(0);
});

test("who waits for it leaves when told to, and it goes on", async () => {
  const underway = new Underway();
  const work = Promise.withResolvers<void>();
  const caller = new AbortController();
  const carried = underway.carry(work.promise, caller.signal);
  caller.abort(new Error("left"));
  await expect(carried).rejects.toThrow("left");
  expect(await underway.settled(0)).toBe(1);
  work.reject(new Error("nobody hears it"));
  expect(await underway.settled(MANY_MS)).toBe(0);
});
