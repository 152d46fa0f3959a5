import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { parse } from "yaml";
import { UsageError } from "../../src/cli/invocation.ts";
import { CHECKS } from "../../src/doctor/checks.ts";
import { ALL_RIGHTS } from "../../src/doctor/rights.ts";
import { adminOf } from "../support/backend.ts";
import { type EmbeddedCluster, embeddedAccess, startCluster } from "../support/cluster/cluster.ts";
import { Gate } from "../support/gate.ts";
import { FakeGateway, TOKEN } from "../support/gateway.ts";
import { startMain } from "../support/main.ts";
import { Files, run, type VisitOptions, visit } from "./rig.ts";

/* What doctor says, on the embedded cluster; real.e2e.ts has what only a real one can break. */
setDefaultTimeout(30_000);

const files = new Files();
let cluster: EmbeddedCluster;
let gate: Gate;
let env: Record<string, string>;
let admin: ReturnType<typeof adminOf>["admin"];

beforeAll(async () => {
  cluster = await startCluster();
  gate = await Gate.over(embeddedAccess(cluster));
  const kubeconfig = files.kubeconfig({ server: cluster.url, ca: cluster.caPem, token: cluster.token });
  env = { KUBECONFIG: kubeconfig, KUBE_NAMESPACE: cluster.namespace, GRPC_ADDR: "127.0.0.1:0" };
  ({ admin } = adminOf(embeddedAccess(cluster, { admin: true }), cluster.namespace));
});

afterAll(async () => {
  files[Symbol.dispose]();
  await gate[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

const throughGate = () => ({ ...env, KUBECONFIG: files.kubeconfig({ server: gate.url }) });

/** Names of all that is in the namespace. */
async function everything(): Promise<string[]> {
  const { pods, claims, secrets } = admin;
  const lists = [(await pods.list()).items, (await claims.list()).items, (await secrets.list()).items];
  return lists.flatMap((items) => items.map(({ metadata }) => metadata?.name ?? ""));
}

/** One thing is broken: doctor names it and nothing else, and leaves nothing behind. */
async function expectOneFailure(id: string, seen: RegExp, options: VisitOptions) {
  const found = await visit(options);
  expect(found.failed).toEqual([id]);
  expect(found.of(id).seen).toMatch(seen);
  expect(found.of(id).advice).not.toBe("");
  expect(found.exit).toBe(1);
  for (const check of found.checks.filter(({ blockedBy }) => blockedBy !== undefined))
    expect([check.status, check.blockedBy, check.seen]).toEqual(["skip", id, `needs ${id}`]);
  expect(await everything()).toEqual([]);
  return found;
}

test("where everything works, nothing fails, the exit status is 0, and nothing stays", async () => {
  const { exit, checks, of } = await visit({ env });
  expect(checks.filter(({ status }) => status === "fail" || status === "warn")).toEqual([]);
  expect(exit).toBe(0);
  expect(checks.map(({ id }) => id)).toEqual([...CHECKS.map(({ id }) => id), "clean-up"]);
  for (const id of ["pod", "watch", "exec", "log", "events", "identity", "rbac.pods"]) expect(of(id).status).toBe("ok");
  // What the runner has no right to see, doctor says so, and does not guess.
  expect(of("network-policies")).toMatchObject({ status: "skip", advice: expect.stringContaining("kubectl") });
  expect(await everything()).toEqual([]);
});

test("the probe Pod has no label by which runner, platform and policies know workloads", async () => {
  const made: (Record<string, string> | undefined)[] = [];
  const stop = cluster.journal("pods", ({ type, object }) => type === "ADDED" && made.push(object.metadata.labels));
  await visit({ env, args: ["--only", "pod"] });
  stop();
  expect(made).toEqual([{ "app.kubernetes.io/managed-by": "k8s-runner-doctor" }]);
});

test("lines say status, check and what was seen; those that are not ok are followed by what to do", async () => {
  const { exit, text } = await run({ env: { ...env, GRPC_ADDR: "nonsense" }, args: ["--only", "address"] });
  expect(exit).toBe(1);
  expect(text.split("\n")).toEqual([
    `ok    config: workloads in ${cluster.namespace}, no platform, docker not offered`,
    "FAIL  address: listen on nonsense: address must be host:port, [host]:port or :port",
    "        correct GRPC_ADDR: host:port or :port",
    "",
    "1 ok, 0 to look at, 1 failed, 0 not checked",
    "",
  ]);
});

test("wrong usage is told before anything is checked", async () => {
  for (const args of [["--no-such"], ["--only", "no-such"], ["--timeout", "never"], ["--timeout", "1h"], ["extra"]])
    expect(run({ env, args })).rejects.toBeInstanceOf(UsageError);
  await using wrong = startMain(env, "doctor", "--only", "no-such");
  const { status, said } = await wrong.end();
  expect([status, said]).toEqual([2, expect.stringContaining('--only: no check "no-such": known are config, ')]);
});

test("each right that is missing is named with what it breaks and the command that gives it, and alone", async () => {
  try {
    for (const right of ALL_RIGHTS) {
      const [resource = "", verb = ""] = right.split(" ");
      cluster.deny(right);
      const { checks, failed, of } = await visit({ env, args: ["--only", "rbac"] });
      // Nothing needs these two on a cluster of this version.
      const needless = ["pods/exec create", "persistentvolumeclaims watch"].includes(right);
      expect(failed).toEqual(needless ? [] : [`rbac.${resource}`]);
      expect(of(`rbac.${resource}`)).toMatchObject({
        status: needless ? "warn" : "fail",
        seen: expect.stringMatching(new RegExp(`^may not ${verb} \\(breaks .+\\)$`)),
        advice: expect.stringContaining(`--verb=${verb} --resource=${resource} `),
      });
      expect(checks.filter(({ status }) => status === "warn")).toHaveLength(needless ? 1 : 0);
    }
  } finally {
    cluster.deny();
  }
});

test("without a right the checks that use it are skipped, and all others are made", async () => {
  try {
    cluster.deny("pods/exec get");
    const found = await expectOneFailure("rbac.pods/exec", /^may not get/, { env });
    expect(found.checks.filter(({ blockedBy }) => blockedBy).map(({ id }) => id)).toEqual(["exec", "docker"]);
    cluster.deny("pods create");
    await expectOneFailure("rbac.pods", /^may not create/, { env });
    cluster.deny("pods watch");
    const deaf = await expectOneFailure("rbac.pods", /^may not watch/, { env });
    expect(deaf.of("watch").blockedBy).toBe("rbac.pods");
    expect(deaf.of("pod").status).toBe("ok");
  } finally {
    cluster.deny();
  }
});

test("the rights are those that the chart gives", async () => {
  const values: { rbac: { rules: { resources: string[]; verbs: string[] }[] } } = parse(
    await Bun.file("charts/k8s-runner/values.yaml").text(),
  );
  const given = values.rbac.rules.flatMap(({ resources, verbs }) =>
    resources.flatMap((resource) => verbs.map((verb) => `${resource} ${verb}`)),
  );
  expect([...ALL_RIGHTS].sort()).toEqual(given.sort());
});

test("rights that are too wide are warned of, and fail nothing", async () => {
  const kubeconfig = files.kubeconfig({ server: cluster.url, ca: cluster.caPem, token: cluster.adminToken });
  const { exit, of } = await visit({
    env: { ...env, KUBECONFIG: kubeconfig },
    args: ["--only", "rbac,network-policies"],
  });
  expect(of("rbac.excess")).toMatchObject({ status: "warn", seen: expect.stringContaining("read Secrets") });
  expect(of("network-policies")).toMatchObject({
    status: "warn",
    seen: expect.stringMatching(/workloadEgressNetworkPolicy.*workloadIngressNetworkPolicy/),
  });
  expect(exit).toBe(0);
});

test("a namespace that is not there, or not the runner's, is one failure", async () => {
  const wrong = { ...env, KUBE_NAMESPACE: "elsewhere" };
  await expectOneFailure("namespace", /no right at all in elsewhere: it does not exist, or/, { env: wrong });
  const kubeconfig = files.kubeconfig({ server: cluster.url, ca: cluster.caPem, token: cluster.adminToken });
  await expectOneFailure("namespace", /^elsewhere does not exist$/, { env: { ...wrong, KUBECONFIG: kubeconfig } });
});

test("a configuration that is wrong is told whole, and what does not need it is checked all the same", async () => {
  const wrong = { ...env, PVC_STORAGE_SIZE: "much", LOG_LEVEL: "info", MAX_MESSAGE_BYTES: "few" };
  const { of } = await expectOneFailure("config", /PVC_STORAGE_SIZE.*MAX_MESSAGE_BYTES/, { env: wrong });
  expect([of("api").status, of("identity").status, of("namespace").blockedBy]).toEqual(["ok", "ok", "config"]);
});

test("an API server that is away, not trusted, or that does not know us is told apart", async () => {
  const at = (parts: Parameters<Files["kubeconfig"]>[0]) => ({ ...env, KUBECONFIG: files.kubeconfig(parts) });
  await expectOneFailure("access", /no such file/, { env: { ...env, KUBECONFIG: "/no/such" } });
  const { port } = await freePort();
  await expectOneFailure("api", /cannot be reached/, { env: at({ server: `https://127.0.0.1:${port}` }) });
  const other = await Gate.over(embeddedAccess(cluster), { tls: true });
  const untrusted = await expectOneFailure("api", /cannot be reached/, {
    env: at({ server: other.url, ca: cluster.caPem, token: cluster.token }),
  });
  expect(untrusted.of("api").advice).toContain("certificate");
  await other[Symbol.asyncDispose]();
  await expectOneFailure("identity", /does not accept our credentials/, {
    env: at({ server: cluster.url, ca: cluster.caPem, token: "expired" }),
  });
  await expectOneFailure("identity", /takes us for nobody/, { env: at({ server: cluster.url, ca: cluster.caPem }) });
});

test("clocks that differ, and a Kubernetes that is too old, are failures", async () => {
  const version = (minor: string, date: string) => ({
    answer: {
      status: 200,
      headers: { date },
      body: JSON.stringify({ major: "1", minor, gitVersion: `v1.${minor}.0` }),
    },
  });
  const onVersion = (minor: string, date = new Date()) => {
    gate.fault = ({ path }) => (path === "/version" ? version(minor, date.toUTCString()) : undefined);
  };
  try {
    onVersion("34", new Date(Date.now() - 600_000));
    const args = ["--only", "clock"];
    await expectOneFailure("clock", /^ours is (599|600) s ahead of/, { env: throughGate(), args });
    onVersion("34", new Date(Date.now() + 20_000));
    expect((await visit({ env: throughGate(), args })).of("clock")).toMatchObject({
      status: "warn",
      seen: expect.stringContaining("behind"),
    });
    onVersion("29");
    await expectOneFailure("api", /v1.29.0 is too old/, { env: throughGate() });
  } finally {
    gate.fault = () => undefined;
  }
});

test("a proxy that passes on no upgrade, no watch or no log is found by that check alone", async () => {
  try {
    gate.refusals = [{ method: "GET", path: /\/exec$/, status: 502, message: "Bad Gateway" }];
    await expectOneFailure("exec", /^no command could be run: Bad Gateway/, { env: throughGate() });
    gate.refusals = [{ method: "GET", path: /\/log$/, status: 502, message: "Bad Gateway" }];
    await expectOneFailure("log", /^ended after 0 of 2 lines: Bad Gateway/, { env: throughGate() });
    gate.refusals = [];
    const silent = (resource: string) => {
      gate.fault = ({ path, query }) =>
        path.endsWith(`/${resource}`) && query.has("watch") ? { body: { cut: "silence", afterLines: 0 } } : undefined;
    };
    silent("pods");
    await expectOneFailure("watch", /told nothing/, { env: throughGate(), patienceMs: 2_000 });
    silent("events");
    await expectOneFailure("events", /none about the Pod/, { env: throughGate(), patienceMs: 2_000 });
  } finally {
    gate.refusals = [];
    gate.fault = () => undefined;
  }
});

test("a Pod that does not run is told with its reason, and what needs it is skipped", async () => {
  const image = "registry.invalid/none:1";
  const { of } = await expectOneFailure("pod", /ImagePullBackOff/, { env, args: ["--image", image] });
  expect(of("pod").advice).toContain(image);
  expect(["watch", "exec", "log", "events"].map((id) => of(id).blockedBy)).toEqual(["pod", "pod", "pod", "pod"]);
  const template = files.write("spec: {nodeSelector: {disk: none}}");
  await expectOneFailure("pod", /not running after 1 s: not scheduled: Unschedulable: .*selector/, {
    env: { ...env, WORKLOAD_POD_TEMPLATE: template },
    args: ["--timeout", "1s"],
  });
});

test("a refusal of the API server is told by the check that it belongs to", async () => {
  const refusing = (message: string, status = 403) => {
    gate.fault = ({ method, query }) =>
      method === "POST" && query.has("dryRun") ? { answer: { status, reason: "Forbidden", message } } : undefined;
  };
  try {
    for (const [id, message] of [
      ["namespace", "unable to create new content in namespace x because it is being terminated"],
      ["pod-security", 'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged'],
      ["quota", 'pods "x" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0'],
      [
        "service-account",
        'pods "x" is forbidden: error looking up service account x/none: serviceaccount "none" not found',
      ],
      ["runtime-class", 'pods "x" is forbidden: pod rejected: RuntimeClass "kata-qemu" not found'],
      ["admission", 'admission webhook "policy.example.com" denied the request: no'],
    ] as const) {
      refusing(message);
      const { of } = await visit({ env: throughGate() });
      expect(of(id)).toMatchObject({ status: "fail", seen: expect.stringContaining(message) });
      await expectOneFailure(id, /./, { env: throughGate() });
    }
  } finally {
    gate.fault = () => undefined;
  }
});

test("a port that another program has is a failure, one that a runner has is none", async () => {
  const { server, port } = await freePort({ keep: true });
  const taken = { ...env, GRPC_ADDR: `127.0.0.1:${port}` };
  await expectOneFailure("address", /is taken by/, { env: taken, args: ["--only", "address"], patienceMs: 300 });
  server.close();
  const { startApp } = await import("../../src/app.ts");
  const { loadConfig } = await import("../../src/config.ts");
  const { createLog } = await import("../../src/log.ts");
  const config = loadConfig({ ...env, GRPC_ADDR: "127.0.0.1:0" });
  await using runner = await startApp({ config, access: embeddedAccess(cluster), log: createLog({ level: "silent" }) });
  const served = { ...env, GRPC_ADDR: `127.0.0.1:${runner.address.port}` };
  expect((await visit({ env: served, args: ["--only", "address"] })).of("address")).toMatchObject({
    status: "ok",
    seen: expect.stringContaining("a runner answers"),
  });
});

test("the gateway is reached and asked nothing; without it, or its companion, that is the failure", async () => {
  await using gateway = await FakeGateway.start();
  const args = ["--only", "gateway,companion"];
  const platform = {
    ...env,
    ZITI_ENABLED: "true",
    SERVICE_TOKEN: TOKEN,
    GATEWAY_ADDRESS: gateway.address,
    ZITI_COMPANION: "/bin/true",
  };
  expect((await visit({ env: platform, args })).checks.map(({ status }) => status)).toEqual(["ok", "ok", "ok"]);
  expect(gateway.headers).toEqual([]);
  await expectOneFailure("companion", /no program/, { env: { ...platform, ZITI_COMPANION: "/no/such" }, args });
  await gateway.down();
  await expectOneFailure("gateway", /./, { env: platform, args });
  // Something else is there, which speaks, but not HTTP/2.
  const other = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  await new Promise<void>((listening) => other.listen(0, "127.0.0.1", listening));
  const { port } = other.address() as AddressInfo; // listening on TCP
  await expectOneFailure("gateway", /./, { env: { ...platform, GATEWAY_ADDRESS: `127.0.0.1:${port}` }, args });
  other.close();
});

test("--volumes makes a volume, mounts it, and removes it", async () => {
  expect((await visit({ env, args: ["--volumes"] })).of("volume")).toMatchObject({ status: "ok" });
  expect(await everything()).toEqual([]);
  await expectOneFailure("volume", /^not bound: /, {
    env: { ...env, PVC_STORAGE_CLASS: "none" },
    args: ["--volumes", "--timeout", "1s"],
  });
});

test("docker is tried with a Pod as its workloads have it", async () => {
  const privileged = { ...env, CAPABILITY_IMPLEMENTATIONS: '{"docker":"privileged"}' };
  expect((await visit({ env: privileged })).of("docker")).toMatchObject({ status: "ok" });
  expect(await everything()).toEqual([]);
});

test("an interruption removes what was made, and is no failure of a check", async () => {
  const interruption = new AbortController();
  const stop = cluster.journal("pods", ({ type }) => type === "ADDED" && interruption.abort(new Error("SIGTERM")));
  const { exit, failed, of } = await visit({ env, signal: interruption.signal });
  stop();
  expect([exit, failed, of("pod").seen, of("docker").seen]).toEqual([1, [], "interrupted", "interrupted"]);
  expect(of("clean-up").status).toBe("ok");
  expect(await everything()).toEqual([]);
});

test("what a doctor left that was killed is removed by the next one, what may be in use is not", async () => {
  const leave = (name: string, until: number) =>
    admin.pods.create({
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        name,
        labels: { "app.kubernetes.io/managed-by": "k8s-runner-doctor" },
        annotations: { "agyn.io/doctor-until": String(until) },
      },
      spec: { containers: [{ name: "main", image: "alpine:3.19", command: ["sleep", "100"] }] },
    });
  await leave("old", Date.now() - 1000);
  await leave("young", Date.now() + 60_000);
  expect((await visit({ env })).of("clean-up").seen).toBe("2 probe objects removed");
  expect(await everything()).toEqual(["young"]);
  await admin.pods.delete("young", { gracePeriodSeconds: 0 });
});

test("what cannot be removed is told, with the command that removes it", async () => {
  const image = "registry.invalid/none:1";
  gate.refusals = [{ method: "DELETE", path: /\/pods\//, status: 500, message: "no" }];
  const { failed, of } = await visit({ env: throughGate(), args: ["--image", image] });
  gate.refusals = [];
  expect(failed).toEqual(["pod", "clean-up"]);
  expect(of("clean-up").advice).toContain("delete pods");
  for (const name of await everything()) await admin.pods.delete(name, { gracePeriodSeconds: 0 });
});

test("no secret is printed, whatever fails", async () => {
  const secrets = [TOKEN, cluster.token, "canary-bearer-token"];
  const platform = { ZITI_ENABLED: "true", SERVICE_TOKEN: TOKEN, GATEWAY_ADDRESS: TOKEN };
  const kubeconfig = files.kubeconfig({ server: cluster.url, ca: cluster.caPem, token: "canary-bearer-token" });
  for (const given of [
    { ...env, ...platform },
    { ...env, ...platform, KUBECONFIG: kubeconfig },
  ]) {
    for (const args of [[], ["--json"]]) {
      const { text } = await run({ env: given, args });
      for (const secret of secrets) expect(text).not.toContain(secret);
    }
  }
});

test("docs/doctor.md has a section for every check", async () => {
  const headings = [...(await Bun.file("docs/doctor.md").text()).matchAll(/^### `(.+)`$/gm)].map(([, id]) => id);
  expect(headings).toEqual([...CHECKS.map(({ id }) => id), "clean-up"]);
});

/** A port that nothing listens on, or with `keep` a server that accepts and says nothing. */
async function freePort({ keep = false } = {}) {
  const server = createServer((socket) => socket.on("error", () => socket.destroy()));
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo; // listening on TCP
  if (!keep) await new Promise((closed) => server.close(closed));
  return { server, port };
}
