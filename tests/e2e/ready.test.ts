import { expect, test } from "bun:test";
import { sharedRunner } from "../support/runner.ts";

const runner = sharedRunner();

test("Ready answers ok", async () => {
  expect((await runner().client.ready({})).status).toBe("ok");
});

test("a thousand Ready calls on one connection are all answered ok", async () => {
  const answers = await Promise.all(Array.from({ length: 1000 }, () => runner().client.ready({})));
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set(["ok"]));
});
