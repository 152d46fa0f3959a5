import { expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { Gate } from "../support/gate.ts";
import { runnerProcess } from "../support/process.ts";
import { relay } from "../support/relay.ts";
import { type RunnerClient, sharedRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";

const runner = sharedRunner();
setDefaultTimeout(120_000);

/** A Service with one Pod behind it at a time: connections go to where it points when they come. */
async function service() {
  let port = 0;
  const server = createServer((near) => relay(near, connect(port, "127.0.0.1")));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, // listening on TCP, so neither string nor null
    pointAt: (baseUrl: string) => {
      port = Number(new URL(baseUrl).port);
    },
    [Symbol.asyncDispose]: async () => void server.close(),
  };
}

/**
 * As gRPC's clients retry what is UNAVAILABLE: a few times, with pauses. This client (connect-node 2.2.0 on Bun 1.4.5) has
 * other codes for a connection that was lost, and for a call that it has not sent as its connection was told to go away.
 */
const mayBeRetried = ({ code, rawMessage }: ConnectError): boolean =>
  code === Code.Unavailable || code === Code.Aborted || code === Code.Canceled || rawMessage.includes("GOAWAY");
const ATTEMPTS = 5;

test("runners that replace one another under load lose no unary call that may be retried", async () => {
  const { id } = await runner().run();
  await using gate = await Gate.over(runner().backend.access);
  await using at = await service();
  const clients: RunnerClient[] = [
    createGrpcTransport({ baseUrl: at.baseUrl }),
    createGrpcTransport({ baseUrl: at.baseUrl }),
    createConnectTransport({ baseUrl: at.baseUrl, httpVersion: "1.1" }),
  ].map((transport) => createClient(RunnerService, transport));
  const calls = [
    (client: RunnerClient) => client.ready({}),
    (client: RunnerClient) => client.inspectWorkload({ workloadId: id }),
    (client: RunnerClient) => client.touchWorkload({ workloadId: id }),
    (client: RunnerClient) => client.listWorkloads({}),
  ];
  const told = { ok: 0, retried: new Map<string, number>(), lost: [] as string[] };
  const call = async (make: () => Promise<unknown>): Promise<void> => {
    for (let attempt = 1; ; attempt++) {
      const error = await make().then(
        () => undefined,
        (failure: unknown) => ConnectError.from(failure),
      );
      if (error === undefined) return void told.ok++;
      if (!mayBeRetried(error) || attempt === ATTEMPTS) return void told.lost.push(error.message);
      told.retried.set(error.message, (told.retried.get(error.message) ?? 0) + 1);
      await Bun.sleep(20 * 2 ** attempt);
    }
  };

  await using processes = new AsyncDisposableStack();
  const start = async () =>
    processes.use(await runnerProcess(gate, runner().backend.namespace, { SHUTDOWN_GRACE: "10s" }));
  let current = await start();
  at.pointAt(current.baseUrl);
  let over = false;
  const load = clients.flatMap((client) =>
    calls.map(async (make) => {
      while (!over) await call(() => make(client));
    }),
  );
  try {
    for (let round = 0; round < 3; round++) {
      const before = told.ok;
      const next = await start();
      // As a rollout does it: the new one is ready, then the old one is told to end while callers still come to it.
      await until("the next one is ready", async () => ((await fetch(`${next.baseUrl}/readyz`)).ok ? true : undefined));
      await until("calls went through", () => (told.ok > before + 100 ? true : undefined));
      await current.terminate();
      at.pointAt(next.baseUrl);
      expect(await current.exited).toBe(0);
      current = next;
    }
  } finally {
    over = true;
    await Promise.all(load);
  }
  console.log(`rolling: ${told.ok} calls, retried ${JSON.stringify([...told.retried])}`);
  expect(told.lost).toEqual([]);
});
