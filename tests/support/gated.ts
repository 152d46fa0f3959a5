import { afterAll, beforeAll } from "bun:test";
import { Gate } from "./gate.ts";
import { sharedRunner, startRunner, type TestRunner } from "./runner.ts";

/** For a test file: the shared runner, and another one of the same cluster that has a gate before its API server. */
export function gatedRunner(): { runner: () => TestRunner; gate: () => Gate; behind: () => TestRunner } {
  let made: { gate: Gate; behind: TestRunner } | undefined;
  const require = () => {
    if (made === undefined) throw new Error("the gated runner is started before all tests");
    return made;
  };
  // Before the shared runner's own, which ends the cluster.
  afterAll(async () => {
    const { gate, behind } = require();
    gate.refusals = [];
    await behind[Symbol.asyncDispose]();
    await gate[Symbol.asyncDispose]();
  });
  const runner = sharedRunner();
  beforeAll(async () => {
    const gate = await Gate.over(runner().backend.access);
    made = { gate, behind: await startRunner({ backend: runner().backend, access: () => gate.access }) };
  });
  return { runner, gate: () => require().gate, behind: () => require().behind };
}
