import { expect, setDefaultTimeout, test } from "bun:test";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { Health, HealthCheckResponse_ServingStatus as Status } from "../../src/gen/grpc/health/v1/health_pb.ts";
import { ExecSession, summary } from "../support/exec.ts";
import { Gate } from "../support/gate.ts";
import { runnerProcess } from "../support/process.ts";
import { script, sharedRunner } from "../support/runner.ts";
import { refusal, until } from "../support/wait.ts";

// The end of a process that a kubelet asks for: what is under way when it comes, and what each caller is told.
const runner = sharedRunner();
setDefaultTimeout(90_000);

const REASON = "the runner is shutting down";
/** What a kubelet gives a Pod by default before it kills. */
const POD_GRACE_MS = 30_000;

/** Who calls: by every protocol, half of them over the connection that others use as well. */
const http1 = (baseUrl: string): Transport => createConnectTransport({ baseUrl, httpVersion: "1.1" });
const http2 = (baseUrl: string): Transport => createConnectTransport({ baseUrl, httpVersion: "2" });
const web = (baseUrl: string): Transport => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" });
const grpc = (baseUrl: string): Transport => createGrpcTransport({ baseUrl });
const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => make(index));

/** Takes all of a stream. */
async function eachOf(stream: AsyncIterable<unknown>, taken: () => void = () => undefined): Promise<void> {
  for await (const _ of stream) taken();
}

test("SIGTERM with 20 unary calls, 10 executions, 10 followed logs and 2 event streams under way: each is told its end", async () => {
  const { id, target } = await runner().run({ main: script("echo hello; trap exit TERM; sleep 600 & wait") });
  await using gate = await Gate.over(runner().backend.access);
  const released = Promise.withResolvers<undefined>();
  let held = 0;
  gate.fault = ({ method }) => {
    if (method !== "PATCH") return undefined;
    held++;
    return released.promise;
  };
  const grace = process.env.SHUTDOWN_GRACE ?? "5s"; // more than the calls take that are to end well, on any machine
  await using it = await runnerProcess(gate, runner().backend.namespace, { SHUTDOWN_GRACE: grace });
  const clients = [grpc, http2, http1, web].map((transport) => createClient(RunnerService, transport(it.baseUrl)));
  const client = (index: number, among = clients) => among[index % among.length] ?? expect.unreachable();

  const logs = times(10, (index) =>
    client(index).streamWorkloadLogs({ workloadId: id, containerName: "main", follow: true })[Symbol.asyncIterator](),
  );
  for (const log of logs) expect((await log.next()).value?.event.case).toBe("chunk");
  // Read all the time, as they may begin with much of the past: what is not read takes room from other calls of a connection.
  const events = times(2, (index) => {
    const told = Promise.withResolvers<void>();
    const ended = refusal(eachOf(client(index).streamEvents({}), () => told.resolve()));
    return { told: told.promise, ended };
  });
  for (const { told } of events) await told;
  const bidi = clients.slice(0, 2);
  const execs = times(10, (index) => {
    const options = { tty: index % 2 === 0 };
    const commandShell = "echo ready; sleep 500";
    return new ExecSession(client(index, bidi), { targetId: target, commandShell, options });
  });
  for (const exec of execs) {
    await exec.started();
    await exec.untilOutput("ready");
  }
  const health = createClient(Health, grpc(it.baseUrl)).watch({})[Symbol.asyncIterator]();
  await until("it serves", async () => ((await health.next()).value?.status === Status.SERVING ? true : undefined));
  const unary = times(20, (index) => client(index).touchWorkload({ workloadId: id }));
  await until("20 calls wait for the API server", () => (held === 20 ? true : undefined));

  const at = performance.now();
  await it.terminate();
  expect((await health.next()).value?.status).toBe(Status.NOT_SERVING);
  expect(await health.next().catch(ConnectError.from)).toMatchObject({ code: Code.Unavailable, rawMessage: REASON });
  for (const transport of [grpc, http1])
    expect(await refusal(createClient(RunnerService, transport(it.baseUrl)).ready({}))).toMatchObject({
      code: "Unavailable",
    });
  released.resolve(undefined);
  expect((await Promise.allSettled(unary)).filter(({ status }) => status === "fulfilled").length).toBe(20);
  for (const exec of execs) {
    const result = await exec.result(); // rejects where the RPC does not end OK
    expect(summary(result)).toMatchObject({ reason: "CANCELLED", exitCode: 0 });
    expect(result.kinds.slice(-2)).toEqual(["stdout", "exit"]);
  }
  for (const log of logs)
    expect(await refusal(eachOf({ [Symbol.asyncIterator]: () => log }))).toEqual({
      code: "Unavailable",
      message: REASON,
    });
  for (const { ended } of events) expect(await ended).toEqual({ code: "Unavailable", message: REASON });
  expect(await it.exited).toBe(0);
  const ms = performance.now() - at;
  console.log(`drained within ${Math.round(ms)} ms, SHUTDOWN_GRACE ${grace}`);
  expect(ms).toBeLessThan(POD_GRACE_MS);
  // Terminals are hung up, and what was forked in them with it; other processes are nobody's to kill (ruling 4).
  await until("the terminals' processes have gone", async () => {
    const count = await new ExecSession(runner().client, { targetId: target, commandShell: "ps -o args" }).result();
    return summary(count)
      .stdout.split("\n")
      .filter((line) => /^sleep 500/.test(line)).length <= 5
      ? true
      : undefined;
  });
});
