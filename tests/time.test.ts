import { expect, spyOn, test } from "bun:test";
import { Backoff, boundedSignal, sleep, startTimer } from "../src/time.ts";

test("sleep rejects with the signal's reason, before and while it sleeps", async () => {
  const reason = new Error("enough");
  const controller = new AbortController();
  const sleeping = sleep(60_000, controller.signal);
  controller.abort(reason);
  expect(await sleeping.catch((error) => error)).toBe(reason);
  expect(await sleep(0, controller.signal).catch((error) => error)).toBe(reason);
});

test("a timer of more than 2^31 ms is cut into parts that setTimeout keeps", () => {
  using timers = recordedTimers();
  let fired = 0;
  using _ = startTimer(2 ** 32, () => fired++);
  timers.fire(0);
  timers.fire(1);
  expect(fired).toBe(0);
  timers.fire(2);
  expect(fired).toBe(1);
  expect(timers.delays()).toEqual([2 ** 31 - 1, 2 ** 31 - 1, 2]);
});

test("a backoff doubles up to its maximum, keeps to a Retry-After, and starts anew after a reset", async () => {
  using timers = recordedTimers();
  const next = async (backoff: Backoff, atLeastMs?: number) => {
    const controller = new AbortController();
    const waiting = backoff.wait(controller.signal, atLeastMs);
    controller.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
  };
  const backoff = new Backoff({ minMs: 100, maxMs: 350, random: () => 0 });
  for (const atLeastMs of [0, 0, 0, 0, 3000]) await next(backoff, atLeastMs);
  backoff.reset();
  await next(backoff);
  await next(new Backoff({ minMs: 100, maxMs: 350, random: () => 1 }));
  expect(timers.delays()).toEqual([100, 200, 350, 350, 3000, 100, 75]);
});

test("a bounded signal follows its parent, or times out", async () => {
  const parent = new AbortController();
  using following = boundedSignal(60_000, parent.signal);
  const reason = new Error("enough");
  parent.abort(reason);
  expect(following.signal.reason).toBe(reason);
  expect(following.timedOut).toBe(false);
  using short = boundedSignal(1);
  await new Promise((resolve) => short.signal.addEventListener("abort", resolve));
  expect(short.timedOut).toBe(true);
});

/** Every setTimeout from now on; `fire` calls what the one of that index was to call. */
function recordedTimers() {
  const spy = spyOn(globalThis, "setTimeout");
  return {
    delays: () => spy.mock.calls.map(([, ms]) => ms),
    fire: (index: number) => {
      const callback: unknown = spy.mock.calls[index]?.[0];
      if (typeof callback === "function") callback();
    },
    [Symbol.dispose]: () => spy.mockRestore(),
  };
}
