import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { ExecStartRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { commandOf, killCommand, saysNotFound } from "../../src/runner/command.ts";

// The wrapper scripts run here under this machine's own /bin/sh; the end-to-end files run them in containers.
let directory = "";
beforeAll(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), "command-")));
  mkdirSync(join(directory, "a b"));
  writeFileSync(join(directory, "plain"), "no program");
  writeFileSync(join(directory, "show"), `#!/bin/sh\nfor each in "$@"; do printf '%s\\0' "$each"; done\n`);
  chmodSync(join(directory, "show"), 0o755);
});
afterAll(() => rmSync(directory, { recursive: true }));

const start = (init: MessageInitShape<typeof ExecStartRequestSchema>) =>
  commandOf(create(ExecStartRequestSchema, init));

async function run(init: MessageInitShape<typeof ExecStartRequestSchema>) {
  const id = randomUUID();
  const child = Bun.spawn(start(init).marked(id), { stdout: "pipe", stderr: "pipe", stdin: "ignore" });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.bytes(), child.exited]);
  return { stdout, stderr: Buffer.from(stderr).toString(), code, notFound: saysNotFound(stderr, id) };
}

test("any argument, directory and value of env reaches the program byte for byte", async () => {
  const word = fc
    .string({ unit: "binary", maxLength: 20 })
    .filter((text) => !text.includes("\0") && text.isWellFormed());
  await fc.assert(
    fc.asyncProperty(fc.array(word, { maxLength: 5 }), word, async (args, value) => {
      const options = { workdir: join(directory, "a b"), env: [{ name: "X", value }] };
      const shown = await run({ commandArgv: [join(directory, "show"), ...args], options });
      expect(shown.stdout).toBe(args.map((arg) => `${arg}\0`).join(""));
      const env = await run({ commandArgv: ["/bin/sh", "-c", 'printf "%s\\0%s" "$PWD" "$X"'], options });
      expect(env.stdout).toBe(`${join(directory, "a b")}\0${value}`);
    }),
    { numRuns: 60 },
  );
});

test("env names that are no identifiers, and one that looks like an option, reach a program", async () => {
  const env = [
    { name: "a.b", value: "1" },
    { name: "-c-d", value: "2" },
  ];
  const { stdout } = await run({ commandArgv: ["env"], options: { env } });
  expect(stdout.split("\n")).toEqual(expect.arrayContaining(["a.b=1", "-c-d=2"]));
});

test("a program that is not there or cannot be run is told apart from a command's own 127 (ruling 20)", async () => {
  const missing = ["no-such-program", join(directory, "no-such"), join(directory, "plain"), directory];
  for (const program of missing) {
    expect(await run({ commandArgv: [program] })).toMatchObject({ notFound: true, code: 127 });
    const options = { workdir: "/", env: [{ name: "X", value: "1" }] };
    expect(await run({ commandArgv: [program], options })).toMatchObject({ notFound: true, code: 127 });
  }
  expect(await run({ commandShell: "exit 127" })).toMatchObject({ notFound: false, code: 127 });
  expect(await run({ commandShell: "exit 126" })).toMatchObject({ notFound: false, code: 126 });
  expect(await run({ commandShell: "no-such-program" })).toMatchObject({ notFound: false, code: 127 });
});

test("a program is found on the PATH that env gives", async () => {
  const options = { env: [{ name: "PATH", value: `${directory}:/usr/bin:/bin` }] };
  expect(await run({ commandArgv: ["show", "x"] })).toMatchObject({ notFound: true });
  expect(await run({ commandArgv: ["show", "x"], options })).toMatchObject({ stdout: "x\0", code: 0 });
});

test("a directory that is not there ends the command before it runs, with the shell's status", async () => {
  const { code, stdout, notFound } = await run({ commandArgv: ["echo", "ran"], options: { workdir: "/no/such" } });
  expect({ stdout, notFound, failed: code !== 0 }).toEqual({ stdout: "", notFound: false, failed: true });
});

test("bad commands are refused in the contract's words", () => {
  const env = (name: string) => ({ commandArgv: ["x"], options: { env: [{ name, value: "" }] } });
  expect(() => start({})).toThrow("command required");
  expect(() => start({ commandShell: " \n" })).toThrow("command required");
  expect(() => start({ commandArgv: ["x"], commandShell: "y" })).toThrow(
    "command_argv and command_shell are mutually exclusive",
  );
  expect(() => start(env(" "))).toThrow("env name required");
  expect(() => start(env("1x"))).toThrow("invalid env name: a valid environment variable name must consist of");
});

test.if(process.platform === "linux")(
  "kill ends what was forked, what left its environment, and nothing else",
  async () => {
    const id = randomUUID();
    const tree = 'sleep 1000 & (env -i sleep 1001 & wait) & sh -c "sleep 1002 & sleep 1003" & echo ready; wait';
    const marked = start({ commandShell: tree }).marked(id);
    const other = Bun.spawn(["sleep", "1000"]);
    const child = Bun.spawn(marked, { stdout: "pipe" });
    for await (const data of child.stdout) if (Buffer.from(data).includes("ready")) break;
    const kill = Bun.spawn(killCommand(id), { stdout: "pipe", stderr: "pipe" });
    expect({ status: await kill.exited, said: await kill.stderr.text() }).toEqual({ status: 0, said: "" });
    await child.exited;
    const left = Bun.spawnSync([
      "/bin/sh",
      "-c",
      "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null",
    ]);
    expect(left.stdout.toString()).not.toMatch(/sleep 100[123]/);
    expect(other.exitCode).toBeNull();
    other.kill();
    await other.exited;
  },
);

test.if(process.platform === "linux")(
  "kill of an execution that has ended finds nothing, which is proof enough",
  async () => {
    expect(await Bun.spawn(killCommand(randomUUID())).exited).toBe(0);
  },
);
