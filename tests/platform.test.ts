import { expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, statSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { fakeCompanion, type Mode } from "./support/companion.ts";
import { FakeGateway, IDENTITY, KEY_LINE, refused, type Script, SERVICE, TOKEN } from "./support/gateway.ts";
import { startMain } from "./support/main.ts";
import { until } from "./support/wait.ts";

/* The process as a whole, joined to a platform: a fake gateway over real gRPC, and a fake companion. */
setDefaultTimeout(30_000);

const kubeconfig = `${import.meta.dir}/support/nowhere.yaml`;

async function joined({ mode = "serve", script = {}, env = {} }: { mode?: Mode; script?: Script; env?: object } = {}) {
  const gateway = await FakeGateway.start(script);
  const companion = fakeCompanion(mode);
  const sockets = mkdtempSync(join(tmpdir(), "platform-"));
  const main = startMain({
    KUBE_NAMESPACE: "workloads",
    KUBECONFIG: kubeconfig,
    GRPC_ADDR: "127.0.0.1:0",
    LOG_LEVEL: "debug",
    ZITI_ENABLED: "true",
    SERVICE_TOKEN: TOKEN,
    GATEWAY_ADDRESS: gateway.address,
    ZITI_ENROLLMENT_TIMEOUT: "20s",
    ZITI_COMPANION: companion.program,
    ZITI_SOCKET_DIR: sockets,
    ...env,
  });
  const listening = (listener: string) =>
    until(`it serves on ${listener}`, () =>
      main.entries("gRPC server starting").find((entry) => entry.listener === listener),
    );
  return {
    ...main,
    gateway,
    companion,
    sockets,
    listening,
    /** A client over TCP, as soon as that is served. */
    tcp: async () => clientAt((await listening("tcp")).addr),
    /** A client that comes through the companion. */
    overlay: async () => {
      await listening("ziti");
      return clientAt(`127.0.0.1:${(await companion.recorded()).port}`);
    },
    [Symbol.asyncDispose]: async () => {
      await main[Symbol.asyncDispose]();
      await gateway[Symbol.asyncDispose]();
    },
  };
}

const clientAt = (address: unknown) =>
  createClient(RunnerService, createGrpcTransport({ baseUrl: `http://${address}` }));

/** Whether a process is there, and no zombie. */
const alive = (pid: number) =>
  existsSync(`/proc/${pid}/stat`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));

const gone = (pid: number) => until(`process ${pid} is gone`, () => (alive(pid) ? undefined : true));

test("table 3.1, step 2: load config", async () => {
  await using runner = startMain({ ZITI_ENABLED: "true" });
  const { status, said } = await runner.end();
  expect([status, said]).toEqual([
    1,
    expect.stringMatching(/^k8s-runner failed: load config: KUBE_NAMESPACE: .*SERVICE_TOKEN: /),
  ]);
});

test("table 3.1, step 4: init kube client", async () => {
  await using runner = startMain({ KUBE_NAMESPACE: "x", KUBECONFIG: "/no/such" });
  expect((await runner.end()).said).toStartWith("k8s-runner failed: init kube client: ");
});

test("table 3.1, steps 1 and 5: TCP is served while enrollment is still retried, and a signal ends that", async () => {
  await using runner = await joined({
    script: {
      enroll: () => {
        throw refused("not yet", Code.Unavailable);
      },
    },
  });
  const client = await runner.tcp();
  await runner.line("operation failed, retrying");
  expect((await client.ready({})).status).toBe("ok");
  runner.child.kill("SIGTERM");
  const { status, said } = await runner.end();
  expect(said).toBe("k8s-runner failed: enroll runner via gateway: context canceled");
  expect([status, runner.entries("shutting down").length]).toEqual([1, 1]);
});

test("table 3.1, step 5: listen on <addr>", async () => {
  await using runner = await joined({ env: { GRPC_ADDR: "nonsense" } });
  const { status, said } = await runner.end();
  expect([status, said]).toEqual([1, expect.stringMatching(/^k8s-runner failed: listen on nonsense: /)]);
  expect(runner.gateway.enrollments).toEqual([]);
});

test("table 3.1, step 6: with Ziti disabled there is no gateway, no catalog, no report and no companion", async () => {
  await using runner = await joined({ env: { ZITI_ENABLED: "false" } });
  const client = await runner.tcp();
  expect((await client.ready({})).status).toBe("ok");
  runner.child.kill("SIGTERM");
  expect(await runner.end()).toEqual({ status: 0, said: "" });
  expect([runner.gateway.headers.length, readdirSync(runner.sockets)]).toEqual([0, []]);
  expect(existsSync(join(dirname(runner.companion.program), "record"))).toBe(false);
});

test("table 3.1, step 7: opening the gateway connection never blocks", async () => {
  await using runner = await joined({ env: { GATEWAY_ADDRESS: "gateway.invalid:8080" } });
  expect((await (await runner.tcp()).ready({})).status).toBe("ok");
  expect(await runner.line("operation failed, retrying")).toMatchObject({ attempt: 1, backoff: 1 });
});

test("table 3.1, step 8: an enrollment that is refused ends the process", async () => {
  await using runner = await joined({
    script: {
      enroll: ({ request }) => {
        throw refused(`unknown token ${request.serviceToken}`, Code.Unauthenticated);
      },
    },
  });
  expect(await runner.end()).toEqual({
    status: 1,
    said: "k8s-runner failed: enroll runner via gateway: [unauthenticated] unknown token [secret]",
  });
});

test("table 3.1, step 8: so does one that is not answered in time", async () => {
  await using runner = await joined({
    script: { enroll: () => new Promise(() => {}) },
    env: { ZITI_ENROLLMENT_TIMEOUT: "300ms" },
  });
  expect(await runner.end()).toEqual({
    status: 1,
    said: "k8s-runner failed: enroll runner via gateway: context deadline exceeded",
  });
});

test("table 3.1, step 9: the catalog is reported after enrollment and before the service is bound; its failure ends nothing", async () => {
  let bound: boolean | undefined;
  await using runner = await joined({
    script: {
      catalog: () => {
        bound = readdirSync(runner.sockets).length > 0;
        throw refused("older platform", Code.Unimplemented);
      },
    },
    env: { CAPABILITY_IMPLEMENTATIONS: '{"docker":"rootless"}' },
  });
  await runner.listening("ziti");
  expect([bound, runner.gateway.enrollments.length]).toEqual([false, 1]);
  expect(runner.gateway.catalogs.map(({ capabilities }) => capabilities)).toEqual([["docker"]]);
  expect(runner.entries("catalog report failed; serving without it").length).toBe(1);
});

test("table 3.1, step 10: parse ziti identity", async () => {
  await using runner = await joined({
    script: { enroll: () => ({ identityJson: Buffer.from(`{${KEY_LINE}`), serviceName: SERVICE }) },
  });
  expect(await runner.end()).toEqual({ status: 1, said: "k8s-runner failed: parse ziti identity: not JSON" });
});

test("table 3.1, step 11: create ziti context, before any enrollment when there is no companion", async () => {
  await using runner = await joined({ env: { ZITI_COMPANION: "/no/such" } });
  expect(await runner.end()).toEqual({
    status: 1,
    said: "k8s-runner failed: create ziti context: no program /no/such, which ZITI_COMPANION names",
  });
  expect(runner.gateway.enrollments).toEqual([]);
});

test("table 3.1, step 12: listen on ziti service <name>, when no private directory can be made", async () => {
  await using runner = await joined({ env: { ZITI_SOCKET_DIR: "/no/such" } });
  const { status, said } = await runner.end();
  expect(said).toStartWith(`k8s-runner failed: listen on ziti service ${SERVICE}: ENOENT`);
  expect(said).toEndWith("mount an emptyDir and name it in ZITI_SOCKET_DIR");
  expect(status).toBe(1);
});

test("table 3.1, steps 13 and 14: one server on both listeners, and a session of one is reached through the other", async () => {
  await using runner = await joined();
  const [tcp, overlay] = [await runner.tcp(), await runner.overlay()];
  expect(runner.entries("gRPC server starting")).toMatchObject([
    { level: "info", listener: "tcp" },
    { level: "info", listener: "ziti", addr: SERVICE },
  ]);
  for (const client of [tcp, overlay]) expect((await client.ready({})).status).toBe("ok");
  const { args, env, identity, pid } = await runner.companion.recorded();
  expect(args).toEqual(["-service", SERVICE, "-socket", expect.stringMatching(/\/k8s-runner-\w+\/ziti\.sock$/)]);
  expect(JSON.parse(identity)).toEqual(IDENTITY);
  expect(statSync(dirname(args[3] ?? "")).mode & 0o777).toBe(0o700);
  expect(Object.keys(env).filter((key) => !["PWD", "SHLVL", "_", "OLDPWD"].includes(key))).toEqual([]);
  runner.child.kill("SIGTERM");
  expect(await runner.end()).toEqual({ status: 0, said: "" });
  await gone(pid);
  expect(readdirSync(runner.sockets)).toEqual([]);
});

test("on SIGTERM a call through the overlay is let end, and no new one comes in", async () => {
  await using runner = await joined();
  const overlay = await runner.overlay();
  expect((await overlay.ready({})).status).toBe("ok");
  // Waits for the first sync, which does not come: 5 s, then it is UNAVAILABLE.
  const call = overlay.inspectWorkload({ workloadId: "x" }).catch(ConnectError.from);
  let over = false;
  void call.then(() => {
    over = true;
  });
  const { port } = await runner.companion.recorded();
  await overlay.ready({}); // it is under way: calls of one connection come in order
  runner.child.kill("SIGTERM");
  await runner.line("shutting down");
  await until("the companion gave up the service", async () => {
    const socket = connect(port, "127.0.0.1");
    const taken = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    return taken ? undefined : true;
  });
  expect(over).toBe(false); // all that while its call goes on
  expect(await call).toMatchObject({ code: Code.Unavailable, rawMessage: "cluster_unreachable" });
  expect((await runner.end()).status).toBe(0);
});

test.each([
  ["killed", "serve", (pid: number) => process.kill(pid, "SIGKILL"), "ziti companion: it was ended by SIGKILL"],
  ["ended", "exit", () => {}, `listen on ziti service ${SERVICE}: ziti companion: it ended with status 3`],
  ["refusing", "refuse", () => {}, "listen on ziti service x: no such service, key [secret]"],
  [
    "talking nonsense",
    "nonsense",
    () => {},
    `listen on ziti service ${SERVICE}: ziti companion: it says what it should not: hello, [secret]`,
  ],
  [
    "talking without end",
    "endless",
    () => {},
    `listen on ziti service ${SERVICE}: ziti companion: its stdout: a line without end`,
  ],
  ["losing its identity", "lost", () => {}, "ziti identity is no longer usable after 5 checks: not authorized"],
] as const)("a companion that is %s ends the runner, and leaves no process", async (_name, mode, act, said) => {
  await using runner = await joined({ mode });
  const { pid } = await runner.companion.recorded();
  if (mode === "serve") await runner.listening("ziti");
  act(pid);
  expect(await runner.end()).toEqual({ status: 1, said: `k8s-runner failed: ${said}` });
  await gone(pid);
  expect(readdirSync(runner.sockets)).toEqual([]);
  expect(runner.text()).not.toContain(KEY_LINE);
  if (mode !== "lost") return;
  expect(runner.entries("ziti identity check failed")).toMatchObject([
    { level: "warn", consecutiveFailures: 1, error: "controller unavailable" },
    { level: "warn", consecutiveFailures: 2 },
  ]);
  expect(runner.entries("ziti identity recovered")).toMatchObject([{ level: "info", afterFailures: 2 }]);
});

test("a companion that neither SIGTERM nor the end of its stdin ends is killed when the runner ends", async () => {
  await using runner = await joined({ mode: "hang-bound" });
  await runner.listening("ziti");
  const { pid } = await runner.companion.recorded();
  runner.child.kill("SIGTERM");
  expect(await runner.end()).toEqual({ status: 0, said: "" });
  await gone(pid);
});

test("a second signal ends at once, and no companion stays behind; a killed runner's ends by itself", async () => {
  await using runner = await joined({ mode: "hang-bound" });
  await runner.listening("ziti");
  const { pid } = await runner.companion.recorded();
  runner.child.kill("SIGTERM");
  await runner.line("shutting down");
  runner.child.kill("SIGTERM");
  expect((await runner.end()).status).toBe(1);
  await gone(pid);
  await using killed = await joined();
  await killed.listening("ziti");
  killed.child.kill("SIGKILL");
  await gone((await killed.companion.recorded()).pid);
});

test("token, identity and key are in no log, no argument, no environment of a child and no core dump", async () => {
  await using runner = await joined();
  await runner.listening("ziti");
  const { pid, args, env, coreDump } = await runner.companion.recorded();
  const shown = [
    runner.text(),
    JSON.stringify([args, env]),
    readFileSync(`/proc/${pid}/cmdline`, "utf8"),
    readFileSync(`/proc/${pid}/environ`, "utf8"),
    readFileSync(`/proc/${runner.child.pid}/cmdline`, "utf8"),
  ].join("\n");
  expect(shown).not.toContain(TOKEN);
  expect(shown).not.toContain(KEY_LINE);
  const own = readFileSync(`/proc/${runner.child.pid}/coredump_filter`, "utf8").trim();
  expect([own, coreDump].map((filter) => Number.parseInt(filter, 16))).toEqual([0, 0]);
});
