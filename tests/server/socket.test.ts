import { expect, test } from "bun:test";
import { existsSync, mkdtempSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { bidiTransports, echoed, startTestServer } from "./harness.ts";

const socketPath = () => join(mkdtempSync(join(tmpdir(), "socket-")), "s");
const baseUrl = "http://localhost"; // names nothing: the connection is made by us
const over = (path: string) => createGrpcTransport({ baseUrl, nodeOptions: { createConnection: () => connect(path) } });

test("the Unix socket is the same server as the port, in every protocol", async () => {
  await using server = await startTestServer();
  const path = socketPath();
  await server.server.listenOnSocket(path);
  const nodeOptions = { createConnection: () => connect(path) };
  const transports = [over(path), createConnectTransport({ baseUrl, httpVersion: "2", nodeOptions })];
  for (const transport of transports) {
    const client = createClient(RunnerService, transport);
    expect((await client.ready({})).status).toBe("ok");
    expect(await echoed(client, "one", "two")).toEqual(["one", "two"]);
  }
  const response = await fetch(`${baseUrl}/agynio.api.runner.v1.RunnerService/Ready`, {
    unix: path,
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
  expect(await response.json()).toEqual({ status: "ok" });
  expect(server.calls.filter((name) => name === "Ready").length).toBe(3);
});

test("closing refuses both, lets calls of both end, and takes the socket away", async () => {
  const server = await startTestServer();
  const path = socketPath();
  await server.server.listenOnSocket(path);
  const [, overTcp] = bidiTransports[0] ?? expect.unreachable();
  const calls = [over(path), overTcp(server.baseUrl)].map((transport) =>
    createClient(RunnerService, transport).getWorkloadLabels({ workloadId: "x" }),
  );
  const held = [await server.held(), await server.held()];
  const closed = server.server.close(3_600_000);
  const late = createClient(RunnerService, over(path)).ready({}).catch(ConnectError.from);
  expect(await late).toBeInstanceOf(ConnectError);
  for (const { release } of held) release();
  for (const call of calls) expect((await call).labels).toEqual({ released: "yes" });
  await closed;
  expect(existsSync(path)).toBe(false);
  await expect(server.server.listenOnSocket(path)).rejects.toThrow(`listen on ${path}: the server is closing`);
});

test("a call through the socket that outlives the grace ends with UNAVAILABLE", async () => {
  const server = await startTestServer();
  const path = socketPath();
  await server.server.listenOnSocket(path);
  const call = createClient(RunnerService, over(path)).getWorkloadLabels({ workloadId: "x" }).catch(ConnectError.from);
  await server.held();
  await server.server.close(0);
  expect(await call).toMatchObject({ code: Code.Unavailable, rawMessage: "the runner is shutting down" });
});

test("a path where no socket can be made is told, and the port goes on", async () => {
  await using server = await startTestServer();
  await expect(server.server.listenOnSocket("/no/such/s")).rejects.toThrow(/^listen on \/no\/such\/s: /);
  const [, overTcp] = bidiTransports[0] ?? expect.unreachable();
  expect((await createClient(RunnerService, overTcp(server.baseUrl)).ready({})).status).toBe("ok");
});
