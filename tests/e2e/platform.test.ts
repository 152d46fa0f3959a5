import { afterAll, expect, test } from "bun:test";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ExecExitReason, RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { ContainerRole, ContainerStatus } from "../../src/gen/agynio/api/runners/v1/runners_pb.ts";
import { fakeCompanion } from "../support/companion.ts";
import { ExecSession } from "../support/exec.ts";
import { FakeGateway, TOKEN } from "../support/gateway.ts";
import { script, sharedRunner } from "../support/runner.ts";
import { until, untilGone } from "../support/wait.ts";

/* A runner that has joined a platform: what comes through the overlay, and what the gateway hears of real Pods. */
const gateway = await FakeGateway.start();
const companion = fakeCompanion("serve");
const runner = sharedRunner(() => ({
  env: {
    ZITI_ENABLED: "true",
    SERVICE_TOKEN: TOKEN,
    GATEWAY_ADDRESS: gateway.address,
    ZITI_COMPANION: companion.program,
  },
}));
afterAll(() => gateway.down());

async function overOverlay() {
  const { port } = await companion.recorded();
  const baseUrl = `http://127.0.0.1:${port}`;
  const session = new Http2SessionManager(baseUrl);
  const client = createClient(RunnerService, createGrpcTransport({ baseUrl, sessionManager: session }));
  return { client, [Symbol.dispose]: () => session.abort() };
}

test("an execution of one listener can be cancelled through the other", async () => {
  const { target } = await runner().run();
  using overlay = await overOverlay();
  const ways = [
    [overlay.client, runner().client],
    [runner().client, overlay.client],
  ] as const;
  for (const [from, through] of ways) {
    await using session = new ExecSession(from, { targetId: target, commandArgv: ["sleep", "300"] });
    const executionId = await session.started();
    expect((await through.cancelExecution({ executionId, force: true })).cancelled).toBe(true);
    const { exit } = await session.result();
    expect(exit).toMatchObject({ reason: ExecExitReason.CANCELLED, killed: true });
  }
});

test("a workload is reported when it runs and when it has failed, with its containers; a stop is no failure", async () => {
  const { id } = await runner().start({
    main: script("while ! [ -e /tmp/fail ]; do sleep 0.1; done; exit 3"),
    sidecars: [script("while ! [ -e /tmp/fail ]; do sleep 0.1; done", { name: "side" })],
  });
  await until("it is reported as running", () => gateway.record.get(id)?.status === "RUNNING" || undefined);
  expect(gateway.of(id)[0]?.request.containers).toMatchObject([
    { name: "main", role: ContainerRole.MAIN, status: ContainerStatus.RUNNING, restartCount: 0 },
    { name: "side", role: ContainerRole.SIDECAR, status: ContainerStatus.RUNNING },
  ]);
  for (const container of ["", ":side"]) {
    await using session = new ExecSession(runner().client, {
      targetId: `workload-${id}${container}`,
      commandArgv: ["touch", "/tmp/fail"],
    });
    await session.result();
  }
  await until("it is reported as failed", () => gateway.record.get(id)?.status === "FAILED" || undefined);
  expect(gateway.of(id)[1]?.request.containers).toMatchObject([
    { name: "main", status: ContainerStatus.TERMINATED, exitCode: 3, reason: "Error" },
    { name: "side", status: ContainerStatus.TERMINATED, exitCode: 0, reason: "Completed" },
  ]);
  expect(gateway.of(id).length).toBe(2);

  const { id: stopped } = await runner().run({ main: script("trap 'exit 7' TERM; sleep 300 & wait") });
  await until("it is reported as running", () => gateway.record.get(stopped)?.status === "RUNNING" || undefined);
  await runner().client.stopWorkload({ workloadId: stopped, timeoutSec: 10 });
  await untilGone(runner().client, stopped);
  expect(gateway.of(stopped).map(({ status }) => status)).toEqual(["RUNNING"]);
});
