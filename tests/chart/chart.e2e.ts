import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { parse, parseAllDocuments } from "yaml";
import { documentedValues, readme, valueAt } from "./readme.ts";

/** The chart as helm renders it. HELM is the program; run.sh installs it and runs this. */

const CHART = `${import.meta.dir}/../../charts/k8s-runner`;
const VALUES = `${import.meta.dir}/values`;
const helm = process.env.HELM ?? "helm";

const scratch = mkdtempSync(`${tmpdir()}/chart-`);
afterAll(() => rmSync(scratch, { recursive: true }));

interface Rendered {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels: Record<string, string> };
  // biome-ignore lint/suspicious/noExplicitAny: every kind of object, read by path; a wrong path fails the test
  readonly [key: string]: any;
}

/** helm with these arguments: what it said, and whether it went well. */
function run(...args: string[]): { ok: boolean; text: string } {
  const { success, stdout, stderr } = Bun.spawnSync([helm, ...args], { stdout: "pipe", stderr: "pipe" });
  return { ok: success, text: success ? stdout.toString() : stderr.toString() };
}

/** The chart with these values above those of `args`. */
function template(values: unknown, ...args: string[]): { ok: boolean; text: string } {
  const path = `${scratch}/values.json`;
  writeFileSync(path, JSON.stringify(values));
  return run("template", "k8s-runner", CHART, "--namespace", "agyn-platform", ...args, "--values", path);
}

function render(values: unknown = {}, ...args: string[]): Rendered[] {
  const { ok, text } = template(values, ...args);
  if (!ok) throw new Error(text);
  return parseAllDocuments(text)
    .map((document): Rendered => document.toJS())
    .filter((object) => object !== null);
}

const file = (name: string): string => `${VALUES}/${name}.yaml`;
const one = (objects: readonly Rendered[], kind: string, name?: string): Rendered => {
  const found = objects.filter((each) => each.kind === kind && (name === undefined || each.metadata.name === name));
  expect(found.length).toBe(1);
  if (found[0] === undefined) throw new Error(`no ${kind}`);
  return found[0];
};
const kinds = (objects: readonly Rendered[]): string[] =>
  objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`).sort();
const podOf = (objects: readonly Rendered[]) => one(objects, "Deployment").spec.template;
const containerOf = (objects: readonly Rendered[]) => podOf(objects).spec.containers[0];
const envOf = (objects: readonly Rendered[]): Record<string, string> =>
  Object.fromEntries(containerOf(objects).env.map((each: { name: string; value?: string }) => [each.name, each.value]));

describe("with the defaults", () => {
  const objects = render();

  test("these objects are made and no others", () => {
    expect(kinds(objects)).toEqual([
      "Deployment/k8s-runner-k8s-runner",
      "NetworkPolicy/agent-workload-egress",
      "NetworkPolicy/agent-workload-ingress",
      "Role/k8s-runner-k8s-runner",
      "RoleBinding/k8s-runner-k8s-runner",
      "Service/k8s-runner-k8s-runner",
      "ServiceAccount/k8s-runner-k8s-runner",
    ]);
  });

  test("every object carries the chart's labels", () => {
    for (const { metadata } of objects)
      expect(metadata.labels).toMatchObject({
        "app.kubernetes.io/name": "k8s-runner",
        "app.kubernetes.io/instance": "k8s-runner",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/version": "0.9.0",
        "helm.sh/chart": "k8s-runner-0.9.0",
      });
  });

  test("the rights are those the runner uses, in the workload namespace, for the release's ServiceAccount", () => {
    const role = one(objects, "Role");
    expect(role.metadata.namespace).toBe("agyn-workloads");
    const rights = Object.fromEntries(
      role.rules.map((rule: { apiGroups: string[]; resources: string[]; verbs: string[] }) => {
        expect(rule.apiGroups).toEqual([""]);
        return [rule.resources.join(), rule.verbs];
      }),
    );
    expect(rights).toEqual({
      pods: ["get", "list", "watch", "create", "delete", "patch"],
      "pods/exec": ["get", "create"],
      "pods/log": ["get"],
      persistentvolumeclaims: ["get", "list", "watch", "create", "delete"],
      secrets: ["create", "delete"],
      events: ["list", "watch"],
    });
    const binding = one(objects, "RoleBinding");
    expect(binding.metadata.namespace).toBe("agyn-workloads");
    expect(binding.roleRef).toMatchObject({ kind: "Role", name: role.metadata.name });
    expect(binding.subjects).toEqual([
      { kind: "ServiceAccount", name: "k8s-runner-k8s-runner", namespace: "agyn-platform" },
    ]);
  });

  test("one replica is replaced, never doubled", () => {
    expect(one(objects, "Deployment").spec).toMatchObject({
      replicas: 1,
      revisionHistoryLimit: 10,
      strategy: { type: "Recreate" },
      selector: { matchLabels: { "app.kubernetes.io/name": "k8s-runner", "app.kubernetes.io/instance": "k8s-runner" } },
    });
  });

  test("the container is the contract's, restricted", () => {
    const container = containerOf(objects);
    expect(container).toMatchObject({
      name: "k8s-runner",
      image: "ghcr.io/agynio/k8s-runner:0.9.0",
      imagePullPolicy: "IfNotPresent",
      ports: [{ name: "grpc", containerPort: 50051, protocol: "TCP" }],
    });
    expect(container.securityContext).toEqual({
      runAsNonRoot: true,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
      seccompProfile: { type: "RuntimeDefault" },
    });
    expect(podOf(objects).spec.securityContext).toBeUndefined();
    expect(podOf(objects).spec.automountServiceAccountToken).toBe(true);
    const probe = {
      tcpSocket: { port: "grpc" },
      periodSeconds: 10,
      timeoutSeconds: 1,
      failureThreshold: 3,
      successThreshold: 1,
    };
    expect(container.livenessProbe).toEqual({ ...probe, initialDelaySeconds: 10 });
    expect(container.readinessProbe).toEqual({ ...probe, initialDelaySeconds: 5 });
    expect(container.startupProbe).toBeUndefined();
    expect(container.volumeMounts).toBeUndefined();
  });

  test("the environment is the contract's", () => {
    expect(envOf(objects)).toEqual({
      GRPC_ADDR: "0.0.0.0:50051",
      KUBE_NAMESPACE: "agyn-workloads",
      PVC_STORAGE_SIZE: "10Gi",
      ZITI_ENABLED: "false",
      GATEWAY_ADDRESS: "gateway:8080",
      SERVICE_TOKEN: "",
      ZITI_ENROLLMENT_TIMEOUT: "2m",
      LOG_LEVEL: "info",
    });
  });

  test("the Service finds the Pods", () => {
    expect(one(objects, "Service").spec).toEqual({
      type: "ClusterIP",
      selector: one(objects, "Deployment").spec.selector.matchLabels,
      ports: [{ name: "grpc", port: 50051, targetPort: "grpc", protocol: "TCP" }],
    });
  });

  test("nothing may connect to a workload", () => {
    const policy = one(objects, "NetworkPolicy", "agent-workload-ingress");
    expect(policy.metadata.namespace).toBe("agyn-workloads");
    expect(policy.spec).toEqual({
      podSelector: { matchLabels: { "app.kubernetes.io/managed-by": "k8s-runner" } },
      policyTypes: ["Ingress"],
      ingress: [],
    });
  });

  test("workloads reach OpenZiti, DNS and the internet, and nothing inside", () => {
    const policy = one(objects, "NetworkPolicy", "agent-workload-egress");
    expect(policy.metadata.namespace).toBe("agyn-workloads");
    expect(policy.spec).toEqual({
      podSelector: { matchLabels: { "agyn.dev/managed-by": "agents-orchestrator" } },
      policyTypes: ["Egress"],
      egress: [
        { to: [{ ipBlock: { cidr: "100.64.0.0/10" } }] },
        dns("kube-system", { "k8s-app": "kube-dns" }),
        internet("10.42.0.0/16", "10.43.0.0/16", ...INTERNAL),
      ],
    });
  });
});

const INTERNAL = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"];
const internet = (...except: string[]) => ({ to: [{ ipBlock: { cidr: "0.0.0.0/0", except } }] });
const dns = (namespace: string, labels: Record<string, string>) => ({
  to: [
    {
      namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
      podSelector: { matchLabels: labels },
    },
  ],
  ports: [
    { protocol: "UDP", port: 53 },
    { protocol: "TCP", port: 53 },
  ],
});

describe("as known deployments have it", () => {
  const objects = render({}, "--values", file("known"));

  test("the names are the tooling's, and the rights are the cluster's", () => {
    expect(kinds(objects)).toEqual([
      "ClusterRole/k8s-runner",
      "ClusterRoleBinding/k8s-runner",
      "Deployment/k8s-runner",
      "NetworkPolicy/agent-workload-egress",
      "NetworkPolicy/agent-workload-ingress",
      "Service/k8s-runner",
      "ServiceAccount/k8s-runner",
    ]);
    expect(one(objects, "ClusterRole").metadata.namespace).toBeUndefined();
    expect(one(objects, "ClusterRole").rules).toEqual(one(render(), "Role").rules);
    expect(one(objects, "ClusterRoleBinding").roleRef).toMatchObject({ kind: "ClusterRole", name: "k8s-runner" });
  });

  test("its environment alone is given, with the token from its Secret", () => {
    expect(containerOf(objects).env).toEqual([
      { name: "KUBE_NAMESPACE", value: "agyn-workloads" },
      { name: "ZITI_ENABLED", value: "true" },
      { name: "GATEWAY_ADDRESS", value: "gateway-gateway:8080" },
      { name: "SERVICE_TOKEN", valueFrom: { secretKeyRef: { name: "k8s-runner-service-token", key: "token" } } },
    ]);
    expect(podOf(objects).spec.securityContext).toEqual({ runAsUser: 100, runAsGroup: 101 });
  });
});

describe("with everything switched on", () => {
  const objects = render({}, "--values", file("everything"));
  const policy = (name: string) => one(objects, "NetworkPolicy", name).spec;

  test("each optional object is made", () => {
    for (const kind of ["HorizontalPodAutoscaler", "Ingress", "PodDisruptionBudget", "ConfigMap"])
      expect(objects.some((object) => object.kind === kind)).toBe(true);
    expect(one(objects, "Deployment").spec.replicas).toBeUndefined();
    expect(one(objects, "PodDisruptionBudget").spec.maxUnavailable).toBe(1);
    expect(one(objects, "HorizontalPodAutoscaler").spec).toMatchObject({
      minReplicas: 1,
      maxReplicas: 3,
      metrics: [{ resource: { name: "cpu", target: { averageUtilization: 80 } } }],
    });
  });

  test("the catalog is a file, and its checksum an annotation that changes with it", () => {
    const map = one(objects, "ConfigMap", "k8s-runner-catalog");
    const text: string = map.data["catalog.yaml"];
    expect(parse(text)).toEqual(parse(readFileSync(file("everything"), "utf8")).catalog);
    const checksum = podOf(objects).metadata.annotations["agyn.io/catalog-checksum"];
    expect(checksum).toBe(new Bun.CryptoHasher("sha256").update(text.trimEnd()).digest("hex"));
    expect(envOf(objects).CATALOG_PATH).toBe("/etc/k8s-runner/catalog/catalog.yaml");
    expect(containerOf(objects).volumeMounts).toContainEqual({
      name: "runner-catalog",
      mountPath: "/etc/k8s-runner/catalog",
      readOnly: true,
    });
    const other = render({ catalog: { capabilities: ["gpu"] } }, "--values", file("everything"));
    expect(podOf(other).metadata.annotations["agyn.io/catalog-checksum"]).not.toBe(checksum);
  });

  test("the Pod template is a file that the runner is told of", () => {
    const map = one(objects, "ConfigMap", "k8s-runner-pod-template");
    expect(parse(map.data["pod-template.yaml"]).spec.nodeSelector).toEqual({ "agyn.io/pool": "workloads" });
    expect(envOf(objects).WORKLOAD_POD_TEMPLATE).toBe("/etc/k8s-runner/pod-template/pod-template.yaml");
    expect(podOf(objects).metadata.annotations["agyn.io/pod-template-checksum"]).toMatch(/^[0-9a-f]{64}$/);
  });

  test("every mount has a volume, every name stands once", () => {
    const { containers, volumes } = podOf(objects).spec;
    const names = volumes.map(({ name }: { name: string }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { name } of containers[0].volumeMounts) expect(names).toContain(name);
    expect(names.length).toBe(containers[0].volumeMounts.length);
    const env = containers[0].env.map(({ name }: { name: string }) => name);
    expect(new Set(env).size).toBe(env.length);
  });

  test("extraEnvVars wins over env, and TLS names its files", () => {
    expect(envOf(objects)).toMatchObject({
      LOG_LEVEL: "debug",
      FINISHED_POD_TTL: "1h",
      TLS_CERT_FILE: "/etc/k8s-runner/tls/tls.crt",
      TLS_KEY_FILE: "/etc/k8s-runner/tls/tls.key",
      TLS_CLIENT_CA_FILE: "/etc/k8s-runner/tls/ca.crt",
    });
    expect(containerOf(objects).envFrom).toEqual([
      { configMapRef: { name: "more" } },
      { configMapRef: { name: "env-config" } },
      { secretRef: { name: "env-secret" } },
    ]);
  });

  test("a probe of another kind stands in for the TCP one", () => {
    const { livenessProbe, readinessProbe, startupProbe } = containerOf(objects);
    expect(livenessProbe).toMatchObject({ grpc: { port: 50051 }, periodSeconds: 10 });
    expect(livenessProbe.tcpSocket).toBeUndefined();
    expect(readinessProbe.httpGet).toEqual({ path: "/readyz", port: "grpc" });
    expect(readinessProbe.tcpSocket).toBeUndefined();
    expect(startupProbe).toEqual({ tcpSocket: { port: "grpc" }, periodSeconds: 2, failureThreshold: 30 });
  });

  test("image, pull Secrets and the rest reach the Pod", () => {
    expect(containerOf(objects).image).toBe(`registry.example.com/agyn/k8s-runner@sha256:${"a".repeat(64)}`);
    expect(podOf(objects).spec).toMatchObject({
      serviceAccountName: "runner",
      imagePullSecrets: [{ name: "pull-a" }, { name: "pull-b" }, { name: "pull-c" }],
      priorityClassName: "system-cluster-critical",
      terminationGracePeriodSeconds: 60,
      securityContext: { fsGroup: 65532 },
      nodeSelector: { "kubernetes.io/os": "linux" },
      tolerations: [{ key: "a", operator: "Exists" }],
      initContainers: [{ name: "wait" }],
    });
    expect(podOf(objects).spec.containers.length).toBe(2);
    expect(one(objects, "RoleBinding").subjects[0].name).toBe("runner");
  });

  test("the runner is reached by those who are named, on its port alone", () => {
    expect(policy("k8s-runner")).toMatchObject({
      podSelector: { matchLabels: one(objects, "Deployment").spec.selector.matchLabels },
      policyTypes: ["Ingress"],
      ingress: [
        {
          from: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "agyn-platform" } } }],
          ports: [{ protocol: "TCP", port: 50051 }],
        },
      ],
    });
  });

  test("the egress policy opens what is named, and its exceptions are in the contract's order, each once", () => {
    const tcp = (port: number) => [{ protocol: "TCP", port }];
    const block = (cidr: string) => ({ ipBlock: { cidr } });
    expect(policy("agent-workload-egress").egress).toEqual([
      { to: [block("100.64.0.0/10")] },
      dns("kube-system", { "k8s-app": "kube-dns" }),
      dns("ziti", { "app.kubernetes.io/name": "ziti-workload-dns" }),
      { to: [block("192.0.2.20/32")], ports: tcp(443) },
      { to: [block("192.0.2.30/32")], ports: tcp(8443) },
      { to: [block("192.0.2.10/32"), block("10.1.0.0/24"), block("10.2.0.0/24")], ports: tcp(3022) },
      {
        to: [
          {
            namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "ziti" } },
            podSelector: { matchLabels: { "app.kubernetes.io/name": "ziti-controller" } },
          },
        ],
        ports: tcp(1280),
      },
      internet("10.244.0.0/16", "10.96.0.0/12", ...INTERNAL, "203.0.113.0/24", "198.51.100.0/24"),
    ]);
  });
});

describe("one value at a time", () => {
  test("the workload namespace follows whichever of its two places was changed", () => {
    for (const values of [{ workloadNamespace: "jobs" }, { env: [{ name: "KUBE_NAMESPACE", value: "jobs" }] }]) {
      const objects = render(values);
      expect(envOf(objects).KUBE_NAMESPACE).toBe("jobs");
      for (const kind of ["Role", "RoleBinding"]) expect(one(objects, kind).metadata.namespace).toBe("jobs");
      for (const name of ["agent-workload-egress", "agent-workload-ingress"])
        expect(one(objects, "NetworkPolicy", name).metadata.namespace).toBe("jobs");
    }
    expect(envOf(render({ env: [], workloadNamespace: "jobs" })).KUBE_NAMESPACE).toBe("jobs");
  });

  test("what is switched off is not made", () => {
    const off = { enabled: false };
    const objects = render({
      rbac: { create: false },
      serviceAccount: { create: false, name: "mine" },
      service: off,
      workloadIngressNetworkPolicy: off,
      workloadEgressNetworkPolicy: off,
      securityContext: off,
    });
    expect(kinds(objects)).toEqual(["Deployment/k8s-runner-k8s-runner"]);
    expect(podOf(objects).spec.serviceAccountName).toBe("mine");
    expect(containerOf(objects).securityContext).toBeUndefined();
  });

  test("probes stay, whatever an override does", () => {
    for (const values of [
      { livenessProbe: null, readinessProbe: null },
      { livenessProbe: { tcpSocket: null }, readinessProbe: { enabled: false } },
    ]) {
      const container = containerOf(render(values));
      expect(container.livenessProbe.tcpSocket).toEqual({ port: "grpc" });
      expect(container.readinessProbe.tcpSocket).toEqual({ port: "grpc" });
    }
  });

  test("a monitor of either kind", () => {
    const monitor = one(render({ metrics: { enabled: true, labels: { release: "p" } } }), "ServiceMonitor");
    expect(monitor.spec.endpoints).toEqual([{ port: "grpc", path: "/metrics", interval: "30s" }]);
    expect(monitor.metadata.labels.release).toBe("p");
    const pods = one(render({ metrics: { enabled: true, kind: "PodMonitor" } }), "PodMonitor");
    expect(pods.spec.podMetricsEndpoints.length).toBe(1);
  });

  test("no grace at all is not the same as none given", () => {
    expect(podOf(render({ terminationGracePeriodSeconds: 0 })).spec.terminationGracePeriodSeconds).toBe(0);
    expect(podOf(render()).spec.terminationGracePeriodSeconds).toBeUndefined();
  });

  test("a runner that nobody may reach", () => {
    expect(
      one(render({ networkPolicy: { enabled: true } }), "NetworkPolicy", "k8s-runner-k8s-runner").spec.ingress,
    ).toEqual([]);
  });

  test("a registry of the installation, and a tag", () => {
    const values = { global: { imageRegistry: "mirror.example.com" }, image: { registry: "other", tag: 1.5 } };
    expect(containerOf(render(values)).image).toBe("mirror.example.com/ghcr.io/agynio/k8s-runner:1.5");
  });
});

describe("what is refused, with a text that says what to do", () => {
  const egress = (endpoint: unknown) => ({ workloadEgressNetworkPolicy: { zitiUnderlay: { endpoints: [endpoint] } } });
  const ziti = [{ name: "ZITI_ENABLED", value: "true" }];
  test.each([
    [
      egress({ name: "a", port: 1 }),
      "workloadEgressNetworkPolicy.zitiUnderlay.endpoints[a].cidr, backendCIDRs, or selectors are required",
    ],
    [
      egress({ name: "a", cidr: "192.0.2.1/32" }),
      "workloadEgressNetworkPolicy.zitiUnderlay.endpoints[a].port is required",
    ],
    [
      { workloadNamespace: "a", env: [{ name: "KUBE_NAMESPACE", value: "b" }] },
      'workloadNamespace is "a" and the environment variable KUBE_NAMESPACE is "b": name one namespace',
    ],
    [{ extraEnvVars: ziti, replicaCount: 2 }, "ZITI_ENABLED needs replicaCount 1 and no autoscaling"],
    [{ extraEnvVars: ziti, autoscaling: { enabled: true } }, "ZITI_ENABLED needs replicaCount 1 and no autoscaling"],
    [{ tls: { enabled: true } }, "tls.secretName is required when tls.enabled is true"],
    [{ ingress: { enabled: true } }, "ingress.hosts is required when ingress.enabled is true"],
    [{ configMounts: [{ name: "a", mountPath: "/a" }] }, "configMounts[a].configMap or .secret is required"],
    [{ replicacount: 2 }, "replicacount"],
    [{ env: [{ name: "A", value: 1 }] }, "/env/0/value"],
    [{ workloadEgressNetworkPolicy: { openZitiCIDR: "all" } }, "openZitiCIDR"],
    [{ catalog: { flavours: [] } }, "catalog"],
    [{ image: { digest: "sha256:1" } }, "digest"],
    [{ metrics: { kind: "Monitor" } }, "kind"],
  ])("%j", (values, text) => {
    const { ok, text: said } = template(values);
    expect(ok).toBe(false);
    expect(said).toContain(text);
  });
});

describe("the chart's files", () => {
  test("helm lint finds nothing, with every set of values", () => {
    for (const values of [[], ["--values", file("known")], ["--values", file("everything")]])
      expect(run("lint", "--strict", CHART, ...values)).toMatchObject({ ok: true });
  });

  test("the README's table is what values.yaml says", async () => {
    const plain = (text: string) => text.replace(/-{3,}/g, "---").replace(/ +/g, " ");
    const { now, right } = await readme();
    expect(plain(now)).toBe(plain(right));
  });

  test("every value is described, itself or by the one above it", async () => {
    const source = await Bun.file(`${CHART}/values.yaml`).text();
    const described = documentedValues(source).map(({ path }) => path.join("."));
    const missing: string[] = [];
    const walk = (value: unknown, path: string[]): void => {
      if (described.includes(path.join("."))) return;
      if (typeof value !== "object" || value === null || Array.isArray(value)) missing.push(path.join("."));
      else for (const key of Object.keys(value)) walk(valueAt(value, [key]), [...path, key]);
    };
    walk(parse(source), []);
    expect(missing).toEqual([]);
  });

  test("the schema knows every value", async () => {
    const schema: unknown = JSON.parse(await Bun.file(`${CHART}/values.schema.json`).text());
    const known = Object.keys(valueAt(schema, ["properties"]) ?? {});
    const values: Record<string, unknown> = parse(await Bun.file(`${CHART}/values.yaml`).text());
    expect(known.filter((key) => !["enabled", "tags"].includes(key)).sort()).toEqual(Object.keys(values).sort());
  });

  test("every helm command of the documents is one that works", () => {
    const commands = ["README.md", "docs/operations.md", "charts/k8s-runner/README.md"].flatMap((document) =>
      readFileSync(document, "utf8")
        .replaceAll("\\\n", " ")
        .split("\n")
        .filter((line) => /^helm (install|upgrade) /.test(line)),
    );
    expect(commands.length).toBeGreaterThanOrEqual(5);
    for (const command of commands) {
      const [, , release, chart, ...flags] = command.split(/ +/);
      expect(release).toBe("k8s-runner");
      expect(["oci://ghcr.io/agynio/charts/k8s-runner", "charts/k8s-runner"]).toContain(chart ?? "");
      const rendering = flags.filter((flag) => !["--wait", "--create-namespace", "--reuse-values"].includes(flag));
      expect({ command, ...run("template", "k8s-runner", CHART, ...rendering) }).toMatchObject({ ok: true });
    }
  });

  test("the values that the README shows for a platform render as they are", () => {
    const [, example] = /```yaml\n([^`]*)```/.exec(readFileSync("charts/k8s-runner/README.md", "utf8")) ?? [];
    const objects = render(parse(example ?? "no example"));
    expect(envOf(objects)).toMatchObject({
      ZITI_ENABLED: "true",
      CATALOG_PATH: "/etc/k8s-runner/catalog/catalog.yaml",
    });
    expect(one(objects, "NetworkPolicy", "agent-workload-egress").spec.egress.length).toBe(4);
  });

  test("the notes name what is open", () => {
    // helm shows notes only to those who install, so here they are a template like the others.
    const chart = `${scratch}/chart`;
    cpSync(CHART, chart, { recursive: true });
    cpSync(`${CHART}/templates/NOTES.txt`, `${chart}/notes.txt`);
    writeFileSync(`${chart}/templates/notes.yaml`, 'notes: {{ tpl (.Files.Get "notes.txt") . | toJson }}');
    const notes = (values: string[]): string => {
      const { text } = run(
        "template",
        "k8s-runner",
        chart,
        "-n",
        "agyn-platform",
        "-s",
        "templates/notes.yaml",
        ...values,
      );
      return String(valueAt(parse(text), ["notes"]));
    };
    expect(notes([])).toContain("WARNING: whoever reaches port 50051 can run Pods in agyn-workloads");
    expect(notes([])).toContain("kubectl create namespace agyn-workloads");
    expect(notes(["--values", file("known")])).toContain("WARNING: rbac.clusterWide");
    expect(notes(["--values", file("everything")])).not.toContain("WARNING: whoever");
  });
});
