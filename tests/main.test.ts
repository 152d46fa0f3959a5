import { expect, test } from "bun:test";
import { once } from "node:events";
import { connect } from "node:http2";
import { linesOf } from "./support/main.ts";

/** The process as it is started, with nothing in its environment but what is given. */
function runner(env: Record<string, string>, ...args: string[]) {
  return Bun.spawn([process.execPath, "src/main.ts", ...args], { env, stdout: "pipe", stderr: "pipe" });
}

/** A kubeconfig of a cluster that is not there: nothing of it is needed to start and to serve. */
const kubeconfig = `${import.meta.dir}/support/nowhere.yaml`;
const env = { KUBE_NAMESPACE: "workloads", KUBECONFIG: kubeconfig, GRPC_ADDR: "127.0.0.1:0" };

/** Log lines until one with this message, which is returned. */
async function untilLine(lines: AsyncGenerator<string>, msg: string): Promise<Record<string, unknown>> {
  // By hand: `for await` would end the generator for the next call.
  for (let step = await lines.next(); !step.done; step = await lines.next()) {
    const entry: Record<string, unknown> = JSON.parse(step.value);
    if (entry.msg === msg) return entry;
  }
  throw new Error(`the process ended without ${msg}`);
}

test("a process that cannot start says why in one line on stderr, and ends with status 1", async () => {
  const cases = [
    [{}, "k8s-runner failed: load config: KUBE_NAMESPACE: KUBE_NAMESPACE is required, set it"],
    [{ ...env, KUBECONFIG: "/no/such" }, "k8s-runner failed: init kube client: "],
    [{ ...env, GRPC_ADDR: "nonsense" }, "k8s-runner failed: listen on nonsense: "],
  ] as const;
  for (const [given, said] of cases) {
    const child = runner(given);
    const lines = (await child.stderr.text()).split("\n").filter((line) => !line.startsWith("{"));
    expect(lines.join("\n")).toStartWith(said);
    expect(await child.exited).toBe(1);
  }
});

test("check-config tells all that is wrong with the configuration, or that nothing is, and does no more", async () => {
  const wrong = runner({ ZITI_ENABLED: "true" }, "check-config");
  const text = await wrong.stderr.text();
  expect(text).toStartWith("k8s-runner failed: load config: KUBE_NAMESPACE: KUBE_NAMESPACE is required, ");
  expect(text).toContain("; SERVICE_TOKEN: SERVICE_TOKEN is required when ZITI_ENABLED is true, ");
  expect(text.trimEnd()).not.toContain("\n");
  expect([await wrong.exited, await wrong.stdout.text()]).toEqual([1, ""]);
  const good = runner({ KUBE_NAMESPACE: "workloads", GRPC_ADDR: "nonsense" }, "check-config");
  expect([await good.exited, await good.stdout.text(), await good.stderr.text()]).toEqual([
    0,
    "the configuration is good\n",
    "",
  ]);
  const unknown = runner(env, "check-confg");
  expect(await unknown.stderr.text()).toStartWith(
    'k8s-runner: unknown command "check-confg"; did you mean check-config?\n',
  );
  expect(await unknown.exited).toBe(2);
});

test("it serves before the cluster answers, tells what it does in JSON lines, and ends with 0 when told to", async () => {
  const child = runner({ ...env, LOG_LEVEL: "debug" });
  const lines = linesOf(child.stderr);
  expect(await untilLine(lines, "cluster access")).toMatchObject({ level: "info", caller: "main" });
  const { addr, ...line } = await untilLine(lines, "gRPC server starting");
  expect(line).toMatchObject({ level: "info", listener: "tcp", ts: expect.any(Number) });
  const answer = await fetch(`http://${addr}/agynio.api.runner.v1.RunnerService/Ready`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-identity-id": "agent-1" },
    body: "{}",
  });
  expect(await answer.json()).toEqual({ status: "ok" });
  expect(await untilLine(lines, "request")).toMatchObject({ rpc: "Ready", code: "ok", identity_id: "agent-1" });
  child.kill("SIGTERM");
  await untilLine(lines, "shutting down");
  expect(await child.exited).toBe(0);
});

test("a second signal, of either kind, ends it at once, whatever is under way", async () => {
  for (const [first, second] of [
    ["SIGTERM", "SIGINT"],
    ["SIGINT", "SIGINT"],
  ] as const) {
    const child = runner({ ...env, SHUTDOWN_GRACE: "1h" });
    const lines = linesOf(child.stderr);
    const { addr } = await untilLine(lines, "gRPC server starting");
    const session = connect(`http://${addr}`);
    session.on("error", () => {}); // of the end
    const stream = session.request({
      ":method": "POST",
      ":path": "/agynio.api.runner.v1.RunnerService/Ready",
      "content-type": "application/grpc",
    });
    stream.on("error", () => {});
    stream.write(Buffer.alloc(1)); // a message that never gets its end
    await once(session, "remoteSettings");
    await new Promise((resolve) => session.ping(Buffer.alloc(8), resolve)); // after it, the call is under way
    child.kill(first);
    await untilLine(lines, "shutting down");
    child.kill(second);
    expect(await child.exited).toBe(1);
  }
});
