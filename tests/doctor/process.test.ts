import { expect, test } from "bun:test";
import { startMain } from "../support/main.ts";
import { Embedded } from "./embedded.ts";

const place = Embedded.shared();

test("the process prints what it finds on stdout, nothing on stderr, and ends with 0", async () => {
  await using main = startMain(place().env, "doctor", "--only", "exec");
  const text = await main.child.stdout.text();
  expect(text).toMatch(/^ok {4}config: .*\n(.*\n)+ok {4}exec: stdin, stdout and the exit code came through\n/);
  expect(await main.end()).toEqual({ status: 0, said: "" });
});

test.each(["SIGINT", "SIGTERM"] as const)("%s ends the checks; what they made is removed", async (signal) => {
  await using main = startMain(place().env, "doctor", "--json");
  const stop = place().cluster.journal("pods", ({ type }) => type === "ADDED" && main.child.kill(signal));
  const { checks }: { checks: { id: string; seen: string }[] } = JSON.parse(await main.child.stdout.text());
  stop();
  expect((await main.end()).status).toBe(1);
  expect(checks.find(({ id }) => id === "exec")?.seen).toBe("interrupted");
  expect(checks.at(-1)).toMatchObject({ id: "clean-up", status: "ok", seen: "probe objects removed: 1" });
  expect(await place().everything()).toEqual([]);
});
