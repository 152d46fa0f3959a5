import { expect, test } from "bun:test";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { parse } from "yaml";
import { UsageError } from "../../src/cli/invocation.ts";
import { CHECKS } from "../../src/doctor/checks.ts";
import { ALL_RIGHTS } from "../../src/doctor/rights.ts";
import { embeddedAccess } from "../support/cluster/cluster.ts";
import { Gate } from "../support/gate.ts";
import { FakeGateway, TOKEN } from "../support/gateway.ts";
import { startMain } from "../support/main.ts";
import { Embedded } from "./embedded.ts";
import { type KubeconfigParts, run, visit } from "./rig.ts";

/* What doctor says, on the embedded cluster; real.e2e.ts has what only a real one can break. */
const place = Embedded.shared();

test("where everything works, nothing fails, the exit status is 0, and nothing stays", async () => {
  const { env } = place();
  const { exit, checks, of } = await visit({ env });
  expect(checks.filter(({ status }) => status === "fail" || status === "warn")).toEqual([]);
  expect(exit).toBe(0);
  expect(checks.map(({ id }) => id)).toEqual([...CHECKS.map(({ id }) => id), "clean-up"]);
  for (const id of ["pod", "watch", "exec", "log", "events", "identity", "rbac.pods"]) expect(of(id).status).toBe("ok");
  // What the runner has no right to see, doctor says so, and does not guess.
  expect(of("network-policies")).toMatchObject({ status: "skip", advice: expect.stringContaining("kubectl") });
  expect(await place().everything()).toEqual([]);
});

test("lines say status, check and what was seen; those that are not ok are followed by what to do", async () => {
  const { env } = place();
  const { exit, text } = await run({ env: { ...env, GRPC_ADDR: "nonsense" }, args: ["--only", "address"] });
  expect(exit).toBe(1);
  expect(text.split("\n")).toEqual([
    `ok    config: workloads in ${place().cluster.namespace}, no platform, docker not offered`,
    "FAIL  address: listen on nonsense: address must be host:port, [host]:port or :port",
    "        correct GRPC_ADDR: host:port or :port",
    "",
    "1 ok, 0 to look at, 1 failed, 0 not checked",
    "",
  ]);
});

test("wrong usage is told before anything is checked", async () => {
  const { env } = place();
  for (const args of [["--no-such"], ["--only", "no-such"], ["--timeout", "never"], ["--timeout", "1h"], ["extra"]])
    expect(run({ env, args })).rejects.toBeInstanceOf(UsageError);
  await using wrong = startMain(env, "doctor", "--only", "no-such");
  const { status, said } = await wrong.end();
  expect([status, said]).toEqual([2, expect.stringContaining('--only: no check "no-such": known are config, ')]);
});

test("each right that is missing is named with what it breaks and the command that gives it, and alone", async () => {
  const { env } = place();
  try {
    for (const right of ALL_RIGHTS) {
      const [resource = "", verb = ""] = right.split(" ");
      place().cluster.deny(right);
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
    place().cluster.deny();
  }
});

test("without a right the checks that use it are skipped, and all others are made", async () => {
  const { env } = place();
  try {
    place().cluster.deny("pods/exec get");
    const found = await place().expectOneFailure("rbac.pods/exec", /^may not get/, { env });
    expect(found.checks.filter(({ blockedBy }) => blockedBy).map(({ id }) => id)).toEqual(["exec", "docker"]);
    place().cluster.deny("pods create");
    await place().expectOneFailure("rbac.pods", /^may not create/, { env });
    place().cluster.deny("pods watch");
    const deaf = await place().expectOneFailure("rbac.pods", /^may not watch/, { env });
    expect(deaf.of("watch").blockedBy).toBe("rbac.pods");
    expect(deaf.of("pod").status).toBe("ok");
  } finally {
    place().cluster.deny();
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

test("where the API server does not say what we may do, nothing is said about it", async () => {
  const { gate, throughGate } = place();
  gate.refusals = [{ method: "POST", path: /selfsubjectaccessreviews$/, status: 403, message: "no" }];
  const { failed, of } = await visit({ env: throughGate });
  gate.refusals = [];
  expect([failed, of("rbac.pods").status, of("rbac.excess").status, of("exec").status]).toEqual([
    [],
    "skip",
    "skip",
    "ok",
  ]);
});

test("rights that are too wide are warned of, and fail nothing", async () => {
  const { env } = place();
  const administrator = place().access({ token: place().cluster.adminToken });
  const { exit, of } = await visit({
    env: { ...env, ...administrator },
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
  const { env } = place();
  const wrong = { ...env, KUBE_NAMESPACE: "elsewhere" };
  await place().expectOneFailure("namespace", /no right at all in elsewhere: it does not exist, or/, { env: wrong });
  const administrator = place().access({ token: place().cluster.adminToken });
  await place().expectOneFailure("namespace", /^elsewhere does not exist$/, { env: { ...wrong, ...administrator } });
});

test("a configuration that is wrong is told whole, and what does not need it is checked all the same", async () => {
  const { env } = place();
  const wrong = { ...env, PVC_STORAGE_SIZE: "much", LOG_LEVEL: "info", MAX_MESSAGE_BYTES: "few" };
  const { of } = await place().expectOneFailure("config", /PVC_STORAGE_SIZE.*MAX_MESSAGE_BYTES/, { env: wrong });
  expect([of("api").status, of("identity").status, of("namespace").blockedBy]).toEqual(["ok", "ok", "config"]);
});

test("an API server that is away, not trusted, or that does not know us is told apart", async () => {
  const { env } = place();
  const at = (parts: Partial<KubeconfigParts>) => ({ ...env, ...place().access(parts) });
  await place().expectOneFailure("access", /no such file/, { env: { ...env, KUBECONFIG: "/no/such" } });
  const port = await freePort();
  await place().expectOneFailure("api", /cannot be reached/, { env: at({ server: `https://127.0.0.1:${port}` }) });
  const other = await Gate.over(embeddedAccess(place().cluster), { tls: true });
  const untrusted = await place().expectOneFailure("api", /cannot be reached/, {
    env: at({ server: other.url }),
  });
  expect(untrusted.of("api").advice).toContain("certificate");
  await other[Symbol.asyncDispose]();
  await place().expectOneFailure("identity", /does not accept our credentials/, {
    env: at({ token: "expired" }),
  });
  await place().expectOneFailure("identity", /takes us for nobody/, { env: at({ token: undefined }) });
});

test("an API server that goes away meanwhile is one failure", async () => {
  const { gate, throughGate } = place();
  let gone = false;
  gate.fault = ({ path }) => {
    gone ||= path.endsWith("/storageclasses");
    return gone ? "reset before" : undefined;
  };
  const { failed, of } = await visit({ env: throughGate });
  gate.fault = () => undefined;
  expect([failed, of("network-policies").blockedBy, of("pod").blockedBy]).toEqual([
    ["storage-class"],
    "storage-class",
    "storage-class",
  ]);
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
    place().gate.fault = ({ path }) => (path === "/version" ? version(minor, date.toUTCString()) : undefined);
  };
  try {
    onVersion("34", new Date(Date.now() - 600_000));
    const args = ["--only", "clock"];
    await place().expectOneFailure("clock", /^ours is (599|600) s ahead of/, { env: place().throughGate, args });
    onVersion("34", new Date(Date.now() + 20_000));
    expect((await visit({ env: place().throughGate, args })).of("clock")).toMatchObject({
      status: "warn",
      seen: expect.stringContaining("behind"),
    });
    onVersion("29");
    await place().expectOneFailure("api", /v1.29.0 is too old/, { env: place().throughGate });
  } finally {
    place().gate.fault = () => undefined;
  }
});

test("a refusal of the API server is told by the check that it belongs to", async () => {
  const refusing = (message: string, status = 403) => {
    place().gate.fault = ({ method, query }) =>
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
      const { of } = await visit({ env: place().throughGate });
      expect(of(id)).toMatchObject({ status: "fail", seen: expect.stringContaining(message) });
      await place().expectOneFailure(id, /./, { env: place().throughGate });
    }
  } finally {
    place().gate.fault = () => undefined;
  }
});

test("the gateway is reached and asked nothing; without it, or its companion, that is the failure", async () => {
  const { env } = place();
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
  await place().expectOneFailure("companion", /no program/, { env: { ...platform, ZITI_COMPANION: "/no/such" }, args });
  await gateway.down();
  await place().expectOneFailure("gateway", /./, { env: platform, args });
  // Something else is there, which speaks, but not HTTP/2.
  const other = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  await new Promise<void>((listening) => other.listen(0, "127.0.0.1", listening));
  const { port } = other.address() as AddressInfo; // listening on TCP
  await place().expectOneFailure("gateway", /./, { env: { ...platform, GATEWAY_ADDRESS: `127.0.0.1:${port}` }, args });
  other.close();
});

test("no secret is printed, whatever fails", async () => {
  const { env } = place();
  const secrets = [TOKEN, place().cluster.token, "canary-bearer-token"];
  const platform = { ZITI_ENABLED: "true", SERVICE_TOKEN: TOKEN, GATEWAY_ADDRESS: TOKEN };
  for (const given of [
    { ...env, ...platform },
    { ...env, ...platform, ...place().access({ token: "canary-bearer-token" }) },
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

/** A port that nothing listens on. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo; // listening on TCP
  await new Promise((closed) => server.close(closed));
  return port;
}
