import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { containerOf, dns, envOf, file, INTERNAL, internet, kinds, one, podOf, render } from "./helm.ts";

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
    expect(livenessProbe).toMatchObject({ exec: { command: ["k8s-runner", "check-config"] }, periodSeconds: 10 });
    expect(livenessProbe.tcpSocket).toBeUndefined();
    expect(readinessProbe.httpGet).toEqual({ path: "/ready", port: 9000 });
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
