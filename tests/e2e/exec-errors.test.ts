import { describe, expect, test } from "bun:test";
import { ContainerRole, ContainerStatus } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { decode, ExecSession, type ExecStart, exec, summary } from "../support/exec.ts";
import { Gate } from "../support/gate.ts";
import { Link } from "../support/link.ts";
import { freshId, idling, type StartRequest, script, sharedRunner, startRunner } from "../support/runner.ts";
import { until, untilInspected } from "../support/wait.ts";

const runner = sharedRunner();
const failed = { reason: "RUNNER_ERROR", exitCode: -1, stdout: "", stderr: "" };
/** A Pod counts as running as soon as one of its containers does. */
const runWhole = async (request: StartRequest) => {
  const { id, target } = await runner().run(request);
  await untilInspected(runner().client, id, "runs with all its containers", ({ containers }) =>
    containers.every(({ status, role }) => role === ContainerRole.INIT || status === ContainerStatus.RUNNING),
  );
  return { id, target };
};
const refused = async (start: ExecStart, client = runner().client) => {
  const { kinds, errors } = await exec(client, start);
  expect(kinds).toEqual(["error"]);
  return errors.map(({ code, message, retryable }) => ({ code, message, retryable }))[0];
};

describe("refused in the stream, which then ends OK:", () => {
  const name = (text: string): ExecStart => ({ commandArgv: ["a"], options: { env: [{ name: text }] } });
  const regex =
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', " +
    "and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', " +
    "regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')";
  test.each<[string, ExecStart, string]>([
    ["a shell line of white space alone", { commandShell: " \t\n\u00a0" }, "command required"],
    ["an env name with a digit first", name("1X"), `invalid env name: ${regex}`],
    ["an env name of one dot", name("."), "invalid env name: must not be '.'"],
    ["an env name that two dots begin", name("..x"), "invalid env name: must not start with '..'"],
    ["an env name with two faults", name("..=x"), `invalid env name: ${regex}, must not start with '..'`],
  ])("%s, before any Pod is looked up", async (_what, start, message) => {
    expect(await refused({ targetId: "missing-workload", ...start })).toEqual({
      code: "invalid_command",
      message,
      retryable: false,
    });
  });

  test("a blank target, before the command is looked at", async () => {
    expect(await refused({ targetId: "\u00a0\n" })).toEqual({
      code: "target_id_required",
      message: "target_id required",
      retryable: false,
    });
  });

  test("a first message of any other kind, and one of none", async () => {
    for (const first of [{}, { msg: { case: "resize" as const, value: { cols: 80, rows: 24 } } }]) {
      await using session = new ExecSession(runner().client);
      session.send(first);
      const { kinds, errors } = await session.result();
      expect(kinds).toEqual(["error"]);
      expect(errors).toMatchObject([{ code: "exec_start_required", message: "exec start required" }]);
    }
  });

  test("targets that name no Pod or container of ours, each as it was written", async () => {
    const { id, target } = await runner().run();
    const pods = [
      `${id} `,
      ` ${target}`,
      target.toUpperCase(),
      `workload-${target}`,
      "workload-",
      "ü",
      "x".repeat(300),
    ];
    for (const pod of pods)
      expect(await refused({ targetId: pod, commandArgv: ["true"] })).toEqual({
        code: "exec_start_failed",
        message: `pods "${pod}" not found`,
        retryable: false,
      });
    for (const container of ["", " main", "Main", "main:main", "../main"])
      for (const pod of [id, target])
        expect(await refused({ targetId: `${pod}:${container}`, commandArgv: ["true"] })).toEqual({
          code: "exec_start_failed",
          message: `container not found: ${container}`,
          retryable: false,
        });
  });
});

describe("a container that does not run", () => {
  test("because it has not started or has ended, is an exit without a word", async () => {
    const { id, containers } = await runner().start({
      initContainers: [script("true", { name: "first" }), script("sleep 300", { name: "second" })],
    });
    await untilInspected(runner().client, id, "initializes", (inspection) =>
      inspection.containers.some(({ name, startedAt }) => name === "second" && startedAt !== undefined),
    );
    for (const targetId of [containers?.main ?? "", `${id}:main`, `${id}:first`]) {
      const result = await exec(runner().client, { targetId, commandArgv: ["true"] });
      expect(result.kinds).toEqual(["started", "exit"]);
      expect(summary(result)).toEqual(failed);
    }
    const running = await exec(runner().client, { targetId: `${id}:second`, commandArgv: ["echo", "up"] });
    expect(summary(running)).toMatchObject({ reason: "COMPLETED", stdout: "up\n" });
  });

  test("any more, since it ended meanwhile, ends its executions, and those of no other container", async () => {
    const flag = `/tmp/end-${freshId()}`;
    const { id, target } = await runWhole({
      main: script(`until [ -e ${flag} ]; do sleep 0.05; done; rm ${flag}; exit 3`),
      sidecars: [idling({ name: "side" })],
    });
    await using beside = new ExecSession(runner().client, { targetId: `${id}:side`, commandArgv: ["cat"] });
    await beside.started();
    const inside = await exec(runner().client, { targetId: target, commandShell: `echo up; touch ${flag}; sleep 300` });
    const { reason, exitCode, stdout } = summary(inside);
    // The kubelet tells the kill or drops the connection: which comes first is its business (clients.md 5).
    expect(["COMPLETED 137", "RUNNER_ERROR -1"]).toContain(`${reason} ${exitCode}`);
    expect(stdout).toBe("up\n");
    beside.stdin("on");
    beside.eof();
    expect(summary(await beside.result())).toMatchObject({ reason: "COMPLETED", stdout: "on" });
  });
});

describe("a cluster that is away", () => {
  test("in the middle of an execution ends it; what was read is in the tails, and a new one works", async () => {
    const link = await Link.to(runner().backend.access.server);
    await using _ = link;
    await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
    const { target } = await runner().run();
    for (const options of [{ separateStderr: true }, { tty: true }]) {
      await using session = new ExecSession(behind.client, {
        targetId: target,
        commandShell: "echo up; sleep 300",
        options,
      });
      const executionId = await session.started();
      await session.untilOutput("up");
      link.cut();
      const result = await session.result();
      expect(summary(result)).toMatchObject({ reason: "RUNNER_ERROR", exitCode: -1 });
      expect(result.exit?.killed).toBe(false);
      expect(decode(result.exit?.stdoutTail ?? new Uint8Array()).trimEnd()).toBe("up");
      expect((await behind.client.cancelExecution({ executionId })).cancelled).toBe(false);
      const again = await exec(behind.client, { targetId: target, commandArgv: ["echo", "again"] });
      expect(summary(again)).toMatchObject({ reason: "COMPLETED", stdout: "again\n" });
    }
  });

  test("is retryable where a Pod cannot be looked up, and an exit where it was", async () => {
    const link = await Link.to(runner().backend.access.server);
    await using _ = link;
    await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
    const { target } = await runner().run();
    await using session = new ExecSession(behind.client, { targetId: target, commandShell: "echo up; sleep 300" });
    const executionId = await session.started();
    await session.untilOutput("up");
    link.down();
    expect(await refused({ targetId: freshId(), commandArgv: ["true"] }, behind.client)).toEqual({
      code: "exec_start_failed",
      message: "cluster_unreachable",
      retryable: true,
    });
    expect(summary(await exec(behind.client, { targetId: target, commandArgv: ["true"] }))).toEqual(failed);
    expect(summary(await session.result())).toMatchObject({ reason: "RUNNER_ERROR", exitCode: -1, stdout: "up\n" });
    expect((await behind.client.cancelExecution({ executionId, force: true })).cancelled).toBe(false);
  });

  test("or refuses: retryable as it answers (ruling 19), and an exit where exec itself is refused", async () => {
    await using gate = await Gate.over(runner().backend.access);
    await using behind = await startRunner({ backend: runner().backend, access: () => gate.access });
    const { target } = await runner().run();
    const answers = [
      [429, "TooManyRequests", "cluster_unreachable", true],
      [503, "ServiceUnavailable", "cluster_unreachable", true],
      [500, "InternalError", "boom", true],
      [403, "Forbidden", "boom", false],
    ] as const;
    const seen = [];
    for (const [status, reason] of answers) {
      gate.refusals = [{ method: "GET", path: /\/pods\/workload-[^/]+$/, status, reason, message: "boom" }];
      seen.push(await refused({ targetId: freshId(), commandArgv: ["true"] }, behind.client));
    }
    expect(seen.map((each) => each?.retryable)).toEqual(answers.map(([, , , retryable]) => retryable));
    expect(seen.map((each) => each?.code)).toEqual(answers.map(() => "exec_start_failed"));
    for (const [index, [, , message]] of answers.entries()) expect(seen[index]?.message).toContain(message);

    gate.refusals = [{ method: "GET", path: /\/exec$/, status: 403, reason: "Forbidden", message: "boom" }];
    await until("the Pod is known", async () => {
      const result = await exec(behind.client, { targetId: target, commandArgv: ["true"] });
      return result.errors.length === 0 ? (expect(summary(result)).toEqual(failed) ?? true) : undefined;
    });
    expect(gate.requests.some((request) => /\/exec\?/.test(request))).toBe(true);
  });
});

describe("CancelExecution", () => {
  test("works from another connection, and once: a second one finds nothing or the same end", async () => {
    await using other = await startRunner({ backend: runner().backend });
    const { target } = await runner().run();
    await using session = new ExecSession(runner().client, { targetId: target, commandArgv: ["sleep", "300"] });
    const executionId = await session.started();
    // The table is the process's own: a second runner knows nothing of it.
    expect((await other.client.cancelExecution({ executionId })).cancelled).toBe(false);
    const body = JSON.stringify({ executionId: ` ${executionId}\n` });
    const post = () =>
      fetch(`${runner().baseUrl}/agynio.api.runner.v1.RunnerService/CancelExecution`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      }).then((response) => response.json());
    expect(await post()).toEqual({ cancelled: true });
    expect(summary(await session.result())).toMatchObject({ reason: "CANCELLED", exitCode: 0 });
    expect(await post()).toEqual({});
  });

  test("without force kills nothing: a program without a terminal runs on", async () => {
    const { target } = await runner().run();
    const flag = `/tmp/runs-on-${freshId()}`;
    await using session = new ExecSession(runner().client, {
      targetId: target,
      commandShell: `touch ${flag}; echo up; while [ -e ${flag} ]; do sleep 0.05; done; echo ran on >${flag}.end`,
    });
    const executionId = await session.started();
    await session.untilOutput("up");
    await runner().client.cancelExecution({ executionId });
    expect((await session.result()).exit?.killed).toBe(false);
    await exec(runner().client, { targetId: target, commandShell: `rm ${flag}` });
    const end = await until("the program ends by itself", async () => {
      const result = await exec(runner().client, { targetId: target, commandShell: `cat ${flag}.end` });
      return summary(result).stdout || undefined;
    });
    expect(end).toBe("ran on\n");
    await exec(runner().client, { targetId: target, commandShell: `rm ${flag}.end` });
  });
});

// The embedded cluster has no images: its containers always have the machine's own shell.
test.if(Boolean(process.env.E2E_KUBECONFIG))(
  "without a shell a program still runs, and a kill is not claimed (real cluster only)",
  async () => {
    const tools = { volume: "tools", mountPath: "/tools" };
    const { target } = await runWhole({
      volumes: [
        { name: "tools", kind: 1 },
        { name: "empty", kind: 1 },
      ],
      initContainers: [
        script("for tool in cat printf sleep; do cp /bin/busybox /tools/$tool; done", { mounts: [tools] }),
      ],
      main: idling({
        entrypoint: "/tools/sleep",
        cmd: ["300"],
        mounts: [tools, { volume: "empty", mountPath: "/bin" }],
      }),
      sidecars: [idling({ name: "same-image" })],
    });
    const run = async (start: ExecStart, stdin?: string) =>
      summary(await exec(runner().client, { targetId: target, ...start }, stdin));
    // The first one finds out that there is no shell; what it was sent is not lost by that.
    expect(await run({ commandArgv: ["/tools/cat"] }, "all of it")).toMatchObject({
      reason: "COMPLETED",
      stdout: "all of it",
    });
    expect(await run({ commandArgv: ["/tools/printf", "%s", "$a b"] })).toMatchObject({ exitCode: 0, stdout: "$a b" });
    for (const start of [
      { commandArgv: ["/tools/nothing"] },
      { commandArgv: ["nothing"] },
      { commandShell: "true" },
      { commandArgv: ["/tools/cat"], options: { workdir: "/" } },
      { commandArgv: ["/tools/cat"], options: { env: [{ name: "A", value: "b" }] } },
    ])
      expect(await run(start)).toEqual(failed);
    // What one container lacks is not held against another of the same image, nor the other way round.
    expect(await run({ targetId: `${target}:same-image`, commandShell: "echo shell" })).toMatchObject({
      stdout: "shell\n",
    });
    expect(await run({ commandArgv: ["/tools/printf", "x"] })).toMatchObject({ exitCode: 0, stdout: "x" });

    for (const [targetId, commandArgv, killed] of [
      [target, ["/tools/sleep", "300"], false],
      [`${target}:same-image`, ["sleep", "300"], true],
    ] as const) {
      await using session = new ExecSession(runner().client, { targetId, commandArgv: [...commandArgv] });
      const executionId = await session.started();
      await runner().client.cancelExecution({ executionId, force: true });
      const result = await session.result();
      expect(summary(result)).toMatchObject({ reason: "CANCELLED", exitCode: 0 });
      expect(result.exit?.killed).toBe(killed);
    }
  },
);
