import { describe, expect, test } from "bun:test";
import { createClient } from "@connectrpc/connect";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { bidiTransports } from "../server/harness.ts";
import { decode, ExecSession, type ExecStart, exec, summary } from "../support/exec.ts";
import { freshId, sharedRunner, startRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";

const runner = sharedRunner();
let shared: Promise<{ id: string; target: string }> | undefined;
const target = async () => {
  shared ??= runner().run();
  return (await shared).target;
};
const open = async (start: ExecStart) => new ExecSession(runner().client, { targetId: await target(), ...start });
const run = async (start: ExecStart, stdin?: string | Uint8Array) =>
  exec(runner().client, { targetId: await target(), ...start }, stdin);

/** Bytes without a period, so that a piece lost, doubled or moved is seen. */
const noise = (length: number) => Buffer.from(crypto.getRandomValues(new Uint8Array(length)));
const noiseOf = (pieces: number) => Buffer.concat(Array.from({ length: pieces }, () => noise(65_536)));

describe("what the caller sends:", () => {
  test("data and its end in one message, and the end a second time", async () => {
    await using session = await open({ commandShell: "cat; echo; echo ended" });
    session.send({ msg: { case: "stdin", value: { data: Buffer.from("last words"), eof: true } } });
    session.eof();
    expect(summary(await session.result())).toMatchObject({ reason: "COMPLETED", stdout: "last words\nended\n" });
  });

  test("an empty message, an empty piece of stdin, and a resize without a terminal change nothing", async () => {
    await using session = await open({ commandShell: "read -r line; echo got $line" });
    session.send({});
    session.stdin("");
    session.resize(80, 24);
    await session.started();
    session.send({});
    session.stdin("it\n");
    const result = await session.result();
    expect(summary(result)).toMatchObject({ reason: "COMPLETED", exitCode: 0, stdout: "got it\n" });
    expect(result.kinds).toEqual(["started", "stdout", "exit"]);
  });

  test("a dialogue, one line at a time in both directions", async () => {
    await using session = await open({ commandShell: "while read -r line; do echo got $line; done; exit 4" });
    await session.started();
    for (let turn = 0; turn < 20; turn++) {
      session.stdin(`line ${turn}\n`);
      await session.untilOutput(`got line ${turn}\n`);
    }
    session.eof();
    expect(summary(await session.result())).toMatchObject({ reason: "COMPLETED", exitCode: 4 });
  });

  test("stdin that half-close ends, after which all output still comes (ruling 1)", async () => {
    const input = noiseOf(16);
    await using session = await open({ commandShell: "cat; exit 3" });
    for (let at = 0; at < input.length; at += 32_768) session.stdin(input.subarray(at, at + 32_768));
    session.halfClose();
    const { stdout, exit } = await session.result();
    expect(exit).toMatchObject({ exitCode: 3, killed: false });
    expect(input.equals(stdout)).toBe(true);
  });

  test("stdin that the process does not read leaves its end as it is", async () => {
    for (const commandShell of ["exit 5", "head -c 10 >/dev/null; exit 5", "exec <&-; exit 5"])
      expect(summary(await run({ commandShell }, noise(32_768)))).toMatchObject({ reason: "COMPLETED", exitCode: 5 });
  });

  test("any message restarts the idle time, one that is ignored too", async () => {
    await using session = await open({ commandArgv: ["sleep", "60"], options: { idleTimeoutMs: 1_500n } });
    await session.started();
    const startedAt = performance.now();
    await until("two seconds of messages", () => {
      session.resize(80, 24);
      return performance.now() - startedAt > 2_000 ? true : undefined;
    });
    expect(summary(await session.result())).toMatchObject({ reason: "IDLE_TIMEOUT", exitCode: -1 });
    expect(performance.now() - startedAt).toBeGreaterThan(3_450);
  });
});

describe("bytes", () => {
  test("of all values go in, and come out of both outputs, exactly and apart", async () => {
    const input = noiseOf(16);
    const result = await run({ commandShell: "tee /dev/stderr", options: { separateStderr: true } }, input);
    expect(summary(result)).toMatchObject({ reason: "COMPLETED", exitCode: 0 });
    expect(input.equals(result.stdout)).toBe(true);
    expect(input.equals(result.stderr)).toBe(true);
    expect(input.subarray(-65_536).equals(result.exit?.stdoutTail ?? Buffer.alloc(0))).toBe(true);
    expect(input.subarray(-65_536).equals(result.exit?.stderrTail ?? Buffer.alloc(0))).toBe(true);
  });

  test("are what tails count, in the middle of a character too", async () => {
    const result = await run({ commandArgv: ["printf", "äöü"], options: { exitTailBytes: 3n } });
    expect(Buffer.from(result.exit?.stdoutTail ?? []).toString("hex")).toBe("b6c3bc");
    expect(decode(result.stdout)).toBe("äöü");
  });

  test("of a joined stderr stay in their order with stdout", async () => {
    const commandShell = "for i in 1 2 3 4 5; do echo out $i; sleep 0.1; echo err $i >&2; sleep 0.1; done";
    const { stdout, stderr } = summary(await run({ commandShell, options: { separateStderr: false } }));
    expect(stdout).toBe([1, 2, 3, 4, 5].map((i) => `out ${i}\nerr ${i}\n`).join(""));
    expect(stderr).toBe("");
  });

  test("that the caller does not take hold the process up, and none is lost", async () => {
    const mebibytes = 128;
    const counter = `/tmp/held-up-${freshId()}`;
    const commandShell = `block=$(head -c 1048575 /dev/zero | tr '\\0' x)
      i=0; while [ $i -lt ${mebibytes} ]; do echo "$block"; i=$((i + 1)); echo $i >${counter}; done`;
    await using session = await open({ commandShell });
    await session.started();
    await using beside = await startRunner({ backend: runner().backend });
    const targetId = await target();
    const written = async () => {
      const result = await exec(beside.client, { targetId, commandShell: `cat ${counter} 2>/dev/null` });
      return Number(summary(result).stdout);
    };
    let last = 0;
    let sameFor = 0;
    const held = await until("the process stands still", async () => {
      const now = await written();
      sameFor = now > 0 && now === last ? sameFor + 1 : 0;
      last = now;
      return sameFor >= 8 ? now : undefined;
    });
    expect(held).toBeLessThan(mebibytes);
    const { stdout, exit } = await session.result();
    expect(exit?.exitCode).toBe(0);
    expect(stdout.length).toBe(mebibytes * 1_048_576);
    const line = Buffer.from(`${"x".repeat(1_048_575)}\n`);
    for (let at = 0; at < stdout.length; at += line.length)
      if (!line.equals(stdout.subarray(at, at + line.length))) throw new Error(`other bytes after ${at}`);
    await run({ commandShell: `rm ${counter}` });
  });
});

describe("executions in one container", () => {
  test("get each their own input, though one reads it only after the other has had all", async () => {
    const go = `/tmp/${freshId()}`;
    const late = noiseOf(256); // more than is kept on the way: some of it waits in the runner
    await using session = await open({ commandShell: `echo up; until [ -e ${go} ]; do sleep 0.05; done; cat` });
    await session.untilOutput("up\n");
    const piece = 48 * 1024; // more than is sent at once, so that one can wait half sent
    for (let at = 0; at < late.length; at += piece) session.stdin(late.subarray(at, at + piece));
    session.eof();
    const early = noiseOf(64);
    expect(early.equals((await run({ commandArgv: ["cat"] }, early)).stdout)).toBe(true);
    await run({ commandArgv: ["touch", go] });
    const { stdout, exit } = await session.result();
    expect(exit).toMatchObject({ exitCode: 0 });
    expect(Buffer.compare(Buffer.concat([Buffer.from("up\n"), late]), stdout)).toBe(0);
  });

  test("are independent of each other: forty at the same time", async () => {
    const results = await Promise.all(
      Array.from({ length: 40 }, async (_, n) => ({
        n,
        ...summary(
          await run({ commandShell: `cat; echo err ${n} >&2; exit $((${n} % 7))`, requestId: "same" }, `in ${n}\n`),
        ),
      })),
    );
    for (const { n, ...result } of results)
      expect(result).toEqual({ reason: "COMPLETED", exitCode: n % 7, stdout: `in ${n}\n`, stderr: `err ${n}\n` });
  });

  test("end alone: cancelling one, with all its processes, leaves the others and the container running", async () => {
    const sessions = await Promise.all(
      [1, 2, 3].map(() => open({ commandShell: "echo up; sleep 300 & read -r line; echo got $line; kill $!" })),
    );
    try {
      const ids = await Promise.all(sessions.map((session) => session.started()));
      await Promise.all(sessions.map((session) => session.untilOutput("up")));
      expect(new Set(ids).size).toBe(3);
      const [first, ...others] = sessions;
      await runner().client.cancelExecution({ executionId: ids[0] ?? "", force: true });
      expect((await first?.result())?.exit?.killed).toBe(true);
      for (const other of others) {
        other.stdin("on\n");
        expect(summary(await other.result())).toMatchObject({ reason: "COMPLETED", stdout: "up\ngot on\n" });
      }
      const { id } = (await shared) ?? { id: "" };
      expect((await runner().client.inspectWorkload({ workloadId: id })).stateRunning).toBe(true);
    } finally {
      for (const session of sessions) await session[Symbol.asyncDispose]();
    }
  });
});

describe("a command", () => {
  test("gets arguments of any characters and of several kilobytes as they are", async () => {
    const args = [
      "",
      " ",
      "\n",
      "*",
      "~",
      "-e",
      "--",
      "=",
      "\u00e4\u{1f600}",
      "\x1b[31m",
      "&a=b#c?d%2e+e",
      "x".repeat(8_000),
    ];
    expect(summary(await run({ commandArgv: ["printf", "%s\\n", ...args] })).stdout).toBe(
      args.map((arg) => `${arg}\n`).join(""),
    );
  });

  test("gets env of any name and value; of one name given twice the last value holds", async () => {
    const env = [
      ["a.b", "dots"],
      ["-u", "a dash"],
      ["_", "under"],
      ["TWICE", "first"],
      ["EMPTY", ""],
      ["LINES", "one\ntwo=2 $HOME `id` \"'"],
      ["TWICE", "last"],
    ].map(([name = "", value = ""]) => ({ name, value }));
    const { stdout } = summary(await run({ commandArgv: ["env"], options: { env } }));
    for (const line of ["a.b=dots", "-u=a dash", "EMPTY=", "LINES=one\ntwo=2 $HOME `id` \"'", "TWICE=last"])
      expect(`\n${stdout}`).toContain(`\n${line}\n`);
    expect(stdout).not.toContain("TWICE=first");
  });

  test("is looked for on the PATH that its env gives, and a directory may have any name", async () => {
    const directory = `/tmp/-a b ${freshId()}`;
    const script = `mkdir '${directory}'; printf '#!/bin/sh\\necho "here: $1"\\n' >'${directory}/tool'; chmod +x '${directory}/tool'`;
    expect(summary(await run({ commandShell: script }))).toMatchObject({ exitCode: 0, stderr: "" });
    const env = [{ name: "PATH", value: `/nowhere:${directory}:/usr/bin:/bin` }];
    const found = await run({ commandArgv: ["tool", "x"], options: { env } });
    expect(summary(found)).toMatchObject({ reason: "COMPLETED", stdout: "here: x\n" });
    const inside = await run({ commandArgv: ["./tool", "y"], options: { workdir: directory } });
    expect(summary(inside)).toMatchObject({ reason: "COMPLETED", stdout: "here: y\n" });
    expect(summary(await run({ commandArgv: ["tool"] })).reason).toBe("RUNNER_ERROR");
    await run({ commandArgv: ["rm", "-r", "--", directory] });
  });
});

test.each(bidiTransports)(
  "megabytes of output are whole over %s, and the tail is their end",
  async (_, transportFor) => {
    const client = createClient(RunnerService, transportFor(runner().baseUrl));
    const input = noiseOf(64);
    const commandShell = "cat";
    const { stdout, exit } = await exec(client, { targetId: await target(), commandShell }, input);
    expect(input.equals(stdout)).toBe(true);
    expect(exit).toMatchObject({ exitCode: 0 });
    expect(input.subarray(-65_536).equals(exit?.stdoutTail ?? new Uint8Array())).toBe(true);
  },
);
