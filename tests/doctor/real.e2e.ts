import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type AddressInfo, createServer } from "node:net";
import { clusterAccess } from "../../src/kube/access.ts";
import { Gate } from "../support/gate.ts";
import { FakeGateway, TOKEN } from "../support/gateway.ts";
import { until } from "../support/wait.ts";
import { CLUSTER_RBAC, type Named, RealNamespace } from "./real.ts";
import type { VisitOptions } from "./rig.ts";

/**
 * Things broken on a real cluster, one at a time: doctor, with the rights of the chart's Role, names exactly that thing, and
 * nothing fails before and after. All of it is in namespaces of its own, or in a proxy before the API server.
 *
 *     E2E_KUBECONFIG=… bun test ./tests/doctor/real.e2e.ts
 */
setDefaultTimeout(120_000);

let place: RealNamespace;
let gate: Gate;

beforeAll(async () => {
  place = await RealNamespace.make();
  gate = await Gate.over(clusterAccess(place.env));
});

afterAll(async () => {
  await gate[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
});

interface Breakage {
  readonly id: string;
  readonly seen: RegExp;
  /** Checks that find nothing wrong all the same. */
  readonly still?: readonly string[];
  /** Breaks it; `mends` takes what mends it again, to be done in reverse order. */
  readonly cut?: (mends: (() => unknown)[]) => Promise<unknown>;
  /** Settings of the run while it is broken, and of those before and after. */
  readonly broken?: Partial<VisitOptions>;
  readonly whole?: Partial<VisitOptions>;
}

const DOCKER = (implementation: string) => ({ CAPABILITY_IMPLEMENTATIONS: JSON.stringify({ docker: implementation }) });

/** The environment with changes. */
const changed = (more: Record<string, string>, ...args: string[]): Partial<VisitOptions> => ({
  env: { ...place.env, ...more },
  args,
});

const throughGate = () => changed({ KUBECONFIG: place.files.kubeconfig({ server: gate.url }) });

async function expectNamed({ id, seen, still = [], cut, broken = {}, whole = {} }: Breakage): Promise<void> {
  await place.expectGreen(whole);
  const mends: (() => unknown)[] = [];
  try {
    await cut?.(mends);
    await place.expectOneFailure(id, seen, broken, still);
  } finally {
    for (const mend of mends.reverse()) await mend();
  }
  await place.expectGreen(whole);
}

test("nothing is broken: nothing fails or is to be looked at, and nothing stays", async () => {
  const { checks, of } = await place.expectGreen();
  expect(checks.filter(({ status }) => status === "warn")).toEqual([]);
  for (const id of ["rbac.pods", "pod-security", "quota", "storage-class", "pod", "watch", "exec", "log", "events"])
    expect([id, of(id).status]).toEqual([id, "ok"]);
  expect(await place.cluster.ask("GET", `${place.path}/pods`)).toMatchObject({ items: [] });
});

test("a verb of the Role is missing", () =>
  expectNamed({
    id: "rbac.pods",
    seen: /^may not patch \(breaks TouchWorkload/,
    still: ["pod", "watch", "exec", "log", "events"],
    cut: (mends) => place.take("pods", "patch", mends),
  }));

test("pods/exec is missing in the Role", () =>
  expectNamed({
    id: "rbac.pods/exec",
    seen: /^may not get \(breaks Exec/,
    still: ["pod", "watch", "log", "events"],
    cut: (mends) => place.take("pods/exec", "get", mends),
  }));

test("the namespace does not exist", () =>
  expectNamed({
    id: "namespace",
    seen: /no right at all in no-such-namespace: it does not exist, or no RoleBinding/,
    broken: changed({ KUBE_NAMESPACE: "no-such-namespace" }),
  }));

test("the namespace is being deleted", async () => {
  // The rights are a ClusterRole's: those of a Role go with the namespace.
  const name = `${place.name}-going`;
  const removals = [
    await place.make(`${CLUSTER_RBAC}/clusterroles`, { metadata: { name }, rules: place.rules }),
    await place.make(`${CLUSTER_RBAC}/clusterrolebindings`, {
      metadata: { name },
      ...place.bindingTo("ClusterRole", name),
    }),
  ];
  await expectNamed({
    id: "namespace",
    seen: /because it is being terminated/,
    broken: changed({ KUBE_NAMESPACE: name }),
    async cut(mends) {
      await place.make("/api/v1/namespaces", { metadata: { name } });
      const map = `/api/v1/namespaces/${name}/configmaps`;
      await place.cluster.ask("POST", map, { metadata: { name: "stays", finalizers: ["example.com/stays"] } });
      await place.cluster.ask("DELETE", `/api/v1/namespaces/${name}`);
      mends.push(() => place.cluster.ask("PATCH", `${map}/stays`, { metadata: { finalizers: null } }));
    },
  });
  for (const remove of removals) await remove();
});

test.each([
  ["restricted", []],
  ["baseline", ["pod", "watch", "exec", "log", "events"]],
] as const)("Pod Security is %s, and docker privileged", (level, still) => {
  const label = (value: string | null) =>
    place.cluster.ask("PATCH", place.path, { metadata: { labels: { "pod-security.kubernetes.io/enforce": value } } });
  return expectNamed({
    id: "pod-security",
    seen: new RegExp(`violates PodSecurity "${level}:latest"`),
    still,
    broken: changed(DOCKER("privileged")),
    whole: changed(DOCKER("privileged")),
    async cut(mends) {
      mends.push(() => label(null));
      await label(level);
    },
  });
});

test("the StorageClass does not exist: what makes a volume of it fails", () =>
  expectNamed({
    id: "volume",
    seen: /storageclass.storage.k8s.io "no-such-class" not found/,
    still: ["pod", "exec"],
    broken: changed({ PVC_STORAGE_CLASS: "no-such-class" }, "--volumes", "--timeout", "5s"),
  }));

test("the StorageClass does not exist, and that may be read", async () => {
  const name = `${place.name}-classes`;
  const rules = [{ apiGroups: ["storage.k8s.io"], resources: ["storageclasses"], verbs: ["list"] }];
  await place.make(`${CLUSTER_RBAC}/clusterroles`, { metadata: { name }, rules });
  const binding = { metadata: { name }, ...place.bindingTo("ClusterRole", name) };
  const unbind = await place.make(`${CLUSTER_RBAC}/clusterrolebindings`, binding);
  await place.until((found) => found.of("storage-class").seen.includes(" by "), { args: ["--only", "storage-class"] });
  await expectNamed({
    id: "storage-class",
    seen: /^PVC_STORAGE_CLASS no-such-class does not exist \(there are: .*standard/,
    still: ["pod", "exec"],
    broken: changed({ PVC_STORAGE_CLASS: "no-such-class" }),
  });
  await unbind();
});

test("the RuntimeClass of kata does not exist", () =>
  expectNamed({
    id: "runtime-class",
    seen: /RuntimeClass "kata-fc" not found/,
    still: ["pod", "exec"],
    broken: changed(DOCKER("kata-fc")),
  }));

test("the RuntimeClass of kata exists, but not its runtime on the node", () =>
  expectNamed({
    id: "docker",
    seen: /^kata-qemu: not running after 5 s: .*no runtime for "kata-qemu"/,
    still: ["runtime-class", "pod", "exec"],
    broken: changed(DOCKER("kata-qemu"), "--timeout", "5s"),
    async cut(mends) {
      const kata = { metadata: { name: "kata-qemu" }, handler: "kata-qemu" };
      mends.push(await place.make("/apis/node.k8s.io/v1/runtimeclasses", kata));
    },
  }));

test("rootless docker runs, or the node's lack of user namespaces is named", async () => {
  const { failed, of } = await place.visit(changed(DOCKER("rootless"), "--timeout", "5s"));
  if (failed.length === 0) expect(of("docker").seen).toContain("with user namespaces and /dev/net/tun");
  else expect([failed, of("docker").advice]).toEqual([["docker"], expect.stringContaining("user namespaces need")]);
});

/** Makes an object that `id` fails for; it is effective when this resolves, and no more so when it was mended. */
async function refuse(
  id: string,
  objects: readonly (readonly [path: string, object: Named])[],
  mends: (() => unknown)[],
) {
  const args = ["--only", id];
  mends.push(() => place.until(({ failed }) => failed.length === 0, { args }));
  for (const [path, object] of objects) mends.push(await place.make(path, object));
  await place.until(({ failed }) => failed.length > 0, { args });
}

test("the quota is used up", () => {
  const quota = { metadata: { name: "none" }, spec: { hard: { pods: "0" } } };
  return expectNamed({
    id: "quota",
    seen: /exceeded quota: none/,
    cut: (mends) => refuse("quota", [[`${place.path}/resourcequotas`, quota]], mends),
  });
});

test("a LimitRange refuses workloads", () => {
  const range = { metadata: { name: "large" }, spec: { limits: [{ type: "Pod", min: { cpu: "100" } }] } };
  return expectNamed({
    id: "admission",
    seen: /minimum cpu usage per Pod is 100/,
    cut: (mends) => refuse("admission", [[`${place.path}/limitranges`, range]], mends),
  });
});

test("a policy of the cluster refuses workloads", () => {
  const policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
  const metadata = { name: `${place.name}-policy` };
  const namespaceSelector = { matchLabels: { "kubernetes.io/metadata.name": place.name } };
  const resourceRules = [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["pods"] }];
  const validations = [{ expression: "false", message: "not from this registry" }];
  const policy = { metadata, spec: { matchConstraints: { namespaceSelector, resourceRules }, validations } };
  const binding = { metadata, spec: { policyName: metadata.name, validationActions: ["Deny"] } };
  const objects = [[policies, policy] as const, [policies.replace("policies", "policybindings"), binding] as const];
  return expectNamed({
    id: "admission",
    seen: /ValidatingAdmissionPolicy '.*-policy' with binding .* denied request: not from this registry/,
    cut: (mends) => refuse("admission", objects, mends),
  });
});

test("the ServiceAccount of workloads does not exist", () =>
  expectNamed({
    id: "service-account",
    seen: /serviceaccount "no-such-account" not found/,
    broken: changed({ WORKLOAD_POD_TEMPLATE: place.files.write("spec: {serviceAccountName: no-such-account}") }),
  }));

test("the image cannot be pulled", () =>
  expectNamed({
    id: "pod",
    seen: /registry.invalid\/no-such-image:1/,
    broken: { args: ["--image", "registry.invalid/no-such-image:1"] },
  }));

test("no node has room", () =>
  expectNamed({
    id: "pod",
    seen: /not running after 3 s: not scheduled: Unschedulable: .*Insufficient cpu/,
    broken: changed(
      { WORKLOAD_POD_TEMPLATE: place.files.write("spec: {containers: [{resources: {requests: {cpu: 1k}}}]}") },
      "--timeout",
      "3s",
    ),
  }));

test("the gateway is down", async () => {
  await using gateway = await FakeGateway.start();
  const platform = { ZITI_ENABLED: "true", SERVICE_TOKEN: TOKEN, GATEWAY_ADDRESS: gateway.address };
  const settings = changed({ ...platform, ZITI_COMPANION: "/bin/true" });
  await expectNamed({
    id: "gateway",
    seen: /ECONNREFUSED|onnection refused/,
    still: ["pod", "exec"],
    broken: settings,
    whole: settings,
    async cut(mends) {
      mends.push(() => gateway.up());
      await gateway.down();
    },
  });
  expect(gateway.headers).toEqual([]); // nobody was asked to enroll
});

test("the companion is missing", async () => {
  await using gateway = await FakeGateway.start();
  const platform = { ZITI_ENABLED: "true", SERVICE_TOKEN: TOKEN, GATEWAY_ADDRESS: gateway.address };
  await expectNamed({
    id: "companion",
    seen: /no program no-such-program/,
    still: ["gateway", "pod"],
    broken: changed({ ...platform, ZITI_COMPANION: "no-such-program" }),
  });
});

test("the API server cannot be reached", () =>
  expectNamed({
    id: "api",
    seen: /cannot be reached/,
    broken: changed({ KUBECONFIG: place.files.kubeconfig({ server: "https://127.0.0.1:1" }) }),
  }));

test("the CA is another cluster's", async () => {
  await using stranger = await Gate.over(clusterAccess(place.env), { tls: true });
  const { tls } = await place.cluster.access.credentials();
  await expectNamed({
    id: "api",
    seen: /cannot be reached/,
    broken: changed({ KUBECONFIG: place.files.kubeconfig({ server: stranger.url, ca: tls.ca }) }),
  });
});

test("the token is good no more", async () => {
  const accounts = `${place.path}/serviceaccounts`;
  const remove = await place.make(accounts, { metadata: { name: "gone" } });
  const { tls } = await place.cluster.access.credentials();
  const access = { server: place.cluster.access.server.href, ca: tls.ca, token: await place.token("gone") };
  await remove();
  await expectNamed({
    id: "identity",
    seen: /does not accept our credentials/,
    still: ["api", "clock"],
    broken: changed({ KUBECONFIG: place.files.kubeconfig(access) }),
  });
});

test("the clocks differ", () =>
  expectNamed({
    id: "clock",
    seen: /^ours is 1[78]\d\d s ahead of the API server's/,
    still: ["pod", "exec", "log", "events"],
    broken: throughGate(),
    whole: throughGate(),
    async cut(mends) {
      gate.dates = () => new Date(Date.now() - 1_800_000);
      mends.push(() => {
        gate.dates = undefined;
      });
    },
  }));

test("a proxy passes on no upgrade", () =>
  expectNamed({
    id: "exec",
    seen: /^no command could be run: /,
    still: ["pod", "watch", "log", "events"],
    broken: throughGate(),
    whole: throughGate(),
    async cut(mends) {
      gate.refusals = [{ method: "GET", path: /\/exec$/, status: 403, message: "no upgrades here" }];
      mends.push(() => {
        gate.refusals = [];
      });
    },
  }));

test("a proxy keeps watches to itself", () =>
  expectNamed({
    id: "watch",
    seen: /told nothing of the Pod/,
    still: ["pod", "exec", "log", "events"],
    broken: { ...throughGate(), patienceMs: 3_000 },
    whole: throughGate(),
    async cut(mends) {
      gate.fault = ({ path, query }) =>
        path.endsWith("/pods") && query.has("watch") ? { body: { cut: "silence", afterLines: 0 } } : undefined;
      mends.push(() => {
        gate.fault = () => undefined;
      });
    },
  }));

test("another program has the port", async () => {
  const server = createServer((socket) => socket.on("error", () => socket.destroy()));
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo; // listening on TCP
  await expectNamed({
    id: "address",
    seen: /is taken by something that does not answer as this runner/,
    still: ["pod"],
    broken: { ...changed({ GRPC_ADDR: `127.0.0.1:${port}` }), patienceMs: 3_000 },
  });
  server.close();
});

test("the configuration is wrong", () =>
  expectNamed({
    id: "config",
    seen: /^PVC_STORAGE_SIZE: /,
    still: ["api", "identity"],
    broken: changed({ PVC_STORAGE_SIZE: "much" }),
  }));

test("a volume is made, mounted and removed, and docker Pods run", async () => {
  const { of } = await place.expectGreen(changed(DOCKER("privileged"), "--volumes"));
  expect([of("volume").status, of("docker").status]).toEqual(["ok", "ok"]);
  // A claim goes once the kubelet has let go of it.
  await until("the claim is gone", async () => {
    const list = await place.cluster.ask("GET", `${place.path}/persistentvolumeclaims`);
    return JSON.stringify(list).includes('"items":[]') ? true : undefined;
  });
});
