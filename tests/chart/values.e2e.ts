import { describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { Glob } from "bun";
import { parse } from "yaml";
import { CHART, containerOf, envOf, file, kinds, one, podOf, render, run, template } from "./helm.ts";
import { documentedValues, readme, valueAt } from "./readme.ts";

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

  test("a probe of the runner's own pages or of gRPC, by HTTPS where TLS is on", () => {
    const readyz = { path: "/readyz", port: "grpc" };
    const probes = { livenessProbe: { grpc: { port: 50051 } }, readinessProbe: { httpGet: readyz } };
    const cleartext = containerOf(render(probes));
    expect(cleartext.livenessProbe.grpc).toEqual({ port: 50051 });
    expect(cleartext.readinessProbe.httpGet).toEqual(readyz);
    const tls = { enabled: true, secretName: "s" };
    for (const httpGet of [readyz, { ...readyz, port: 50051 }])
      expect(containerOf(render({ tls, readinessProbe: { httpGet } })).readinessProbe.httpGet).toEqual({
        ...httpGet,
        scheme: "HTTPS",
      });
    const beside = { path: "/", port: 9000 };
    expect(containerOf(render({ tls, readinessProbe: { httpGet: beside } })).readinessProbe.httpGet).toEqual(beside);
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
    [{ tls: { requireClientCertificate: true } }, "tls.requireClientCertificate needs tls.enabled"],
    [
      { tls: { enabled: true, secretName: "s" }, livenessProbe: { grpc: { port: 50051 } } },
      "a grpc probe cannot speak TLS: with tls.enabled, use tcpSocket, or httpGet of /healthz and /readyz",
    ],
    [
      {
        tls: { enabled: true, secretName: "s", requireClientCertificate: true },
        readinessProbe: { httpGet: { path: "/readyz", port: "grpc" } },
      },
      "an httpGet probe has no certificate to show: with tls.requireClientCertificate, use tcpSocket",
    ],
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
    const documents = ["README.md", "charts/k8s-runner/README.md", ...new Glob("docs/*.md").scanSync()];
    const commands = documents.flatMap((document) =>
      readFileSync(document, "utf8")
        .replaceAll("\\\n", " ")
        .split("\n")
        .filter((line) => /^helm (install|upgrade) /.test(line)),
    );
    expect(commands.length).toBeGreaterThanOrEqual(8);
    for (const command of commands) {
      const [, , release, chart, ...flags] = command
        .replace(/ --version \S+| --values values\.yaml/g, "")
        .replaceAll("'", "")
        .split(/ +/);
      expect(release).toBe("k8s-runner");
      expect(["oci://ghcr.io/agynio/charts/k8s-runner", "charts/k8s-runner"]).toContain(chart ?? "");
      const rendering = flags.filter((flag) => !/^--(wait|create-namespace|reuse-values|reset-values)$/.test(flag));
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
    const scratch = mkdtempSync(`${tmpdir()}/chart-`);
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
    rmSync(scratch, { recursive: true });
  });
});
