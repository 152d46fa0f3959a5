import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { parsedIdentity } from "../src/gateway/enroll.ts";
import { createLog } from "../src/log.ts";
import { Secret } from "../src/secret.ts";
import { Companion, companionProgram } from "../src/ziti.ts";
import { fakeCompanion, type Mode } from "./support/companion.ts";
import { IDENTITY, SERVICE } from "./support/gateway.ts";

const started = (mode: Mode, timing: { silentMs?: number; endMs?: number }) => {
  const { program, recorded } = fakeCompanion(mode);
  const companion = new Companion({
    program: companionProgram(program),
    identity: parsedIdentity(new Secret(JSON.stringify(IDENTITY))),
    service: SERVICE,
    socketPath: "/no/such",
    log: createLog({ level: "silent" }),
    timing,
  });
  return { companion, recorded };
};

test("a companion of which nothing is heard is killed, and that is why the service is not served", async () => {
  const { companion } = started("hang", { silentMs: 100, endMs: 100 });
  const { message } = await companion.failed;
  expect(message).toBe(`listen on ziti service ${SERVICE}: ziti companion: it hangs: nothing heard of it for 0.1 s`);
  await companion.end();
});

test("so is one that falls silent after it was bound", async () => {
  let patience = 3_600_000;
  const timing = {
    get silentMs() {
      return patience;
    },
  };
  const { companion, recorded } = started("hang-bound", timing);
  patience = 100;
  await companion.bound;
  expect((await companion.failed).message).toBe("ziti companion: it hangs: nothing heard of it for 0.1 s");
  await companion.end();
  expect(existsSync(`/proc/${(await recorded()).pid}`)).toBe(false);
});

test("one that was told to end is not a failure, however it ends", async () => {
  for (const mode of ["serve", "hang-bound"] as const) {
    const { companion } = started(mode, { endMs: 100 });
    await companion.bound;
    await companion.end();
    expect(await Promise.race([companion.failed, Promise.resolve("none")])).toBe("none");
  }
});

test("a program that cannot be started is told by its path", () => {
  expect(() => companionProgram("no-such-companion")).toThrow(
    "create ziti context: no program no-such-companion, which ZITI_COMPANION names",
  );
});
