import { describe, expect, test } from "bun:test";
import { parse } from "yaml";
import { CHART, containerOf, render, template } from "./helm.ts";
import { valueAt } from "./readme.ts";

/** Every value that the platform's tooling may set (process.md 6.2 and 6.4), by its name and default. */

const defaults: Record<string, unknown> = parse(await Bun.file(`${CHART}/values.yaml`).text());

/** By path; what the contract calls none, empty or unset is `{}`, `[]`, `""` or null by the kind of the value. */
const contract: Readonly<Record<string, unknown>> = {
  "image.registry": "",
  "image.repository": "ghcr.io/agynio/k8s-runner",
  "image.tag": "",
  "image.pullPolicy": "IfNotPresent",
  "image.pullSecrets": [],
  "global.imageRegistry": "",
  "global.imagePullSecrets": [],
  nameOverride: "",
  fullnameOverride: "",
  replicaCount: 1,
  revisionHistoryLimit: 10,
  updateStrategy: {},
  "serviceAccount.create": true,
  "serviceAccount.name": "",
  "serviceAccount.annotations": {},
  automountServiceAccountToken: true,
  "rbac.create": true,
  "rbac.clusterWide": false,
  podSecurityContext: { enabled: false, fsGroup: null },
  securityContext: {
    enabled: true,
    runAsNonRoot: true,
    readOnlyRootFilesystem: true,
    allowPrivilegeEscalation: false,
    capabilities: { drop: ["ALL"] },
    seccompProfile: { type: "RuntimeDefault" },
  },
  priorityClassName: "",
  terminationGracePeriodSeconds: null,
  "service.enabled": true,
  "service.type": "ClusterIP",
  "service.ports": [{ name: "grpc", port: 50051, targetPort: "grpc", protocol: "TCP" }],
  containerPorts: [{ name: "grpc", containerPort: 50051, protocol: "TCP" }],
  command: [],
  args: [],
  env: [
    { name: "GRPC_ADDR", value: "0.0.0.0:50051" },
    { name: "KUBE_NAMESPACE", value: "agyn-workloads" },
    { name: "PVC_STORAGE_SIZE", value: "10Gi" },
    { name: "ZITI_ENABLED", value: "false" },
    { name: "GATEWAY_ADDRESS", value: "gateway:8080" },
    { name: "SERVICE_TOKEN", value: "" },
    { name: "ZITI_ENROLLMENT_TIMEOUT", value: "2m" },
    { name: "LOG_LEVEL", value: "info" },
  ],
  envFrom: [],
  extraEnvVars: [],
  extraEnvVarsCM: "",
  extraEnvVarsSecret: "",
  configMounts: [],
  extraVolumeMounts: [],
  extraVolumes: [],
  initContainers: [],
  extraContainers: [],
  lifecycle: {},
  "startupProbe.enabled": false,
  resources: {},
  nodeSelector: {},
  tolerations: [],
  affinity: {},
  topologySpreadConstraints: [],
  autoscaling: { enabled: false, minReplicas: 1, maxReplicas: 3, targetCPUUtilizationPercentage: 80 },
  "pdb.enabled": false,
  "ingress.enabled": false,
  "metrics.enabled": false,
  "metrics.port": "grpc",
  "metrics.path": "/metrics",
  deploymentAnnotations: {},
  podAnnotations: {},
  podLabels: {},
  catalog: {},
  workloadNamespace: "agyn-workloads",
  "workloadEgressNetworkPolicy.name": "agent-workload-egress",
  "workloadEgressNetworkPolicy.podSelectorLabels": { "agyn.dev/managed-by": "agents-orchestrator" },
  "workloadEgressNetworkPolicy.openZitiCIDR": "100.64.0.0/10",
  "workloadEgressNetworkPolicy.publicInternetCIDR": "0.0.0.0/0",
  "workloadEgressNetworkPolicy.additionalInternalCIDRs": [],
  "workloadEgressNetworkPolicy.blockedCIDRs": [],
  "workloadEgressNetworkPolicy.dns": {
    namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "kube-system" } },
    podSelector: { matchLabels: { "k8s-app": "kube-dns" } },
  },
  "workloadEgressNetworkPolicy.zitiWorkloadDNS": {
    enabled: false,
    namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "ziti" } },
    podSelector: { matchLabels: { "app.kubernetes.io/name": "ziti-workload-dns" } },
  },
  "workloadEgressNetworkPolicy.zitiUnderlay": { endpoints: [] },
};
/** Named by the contract without a default. */
const named = [
  "rbac.rules",
  "catalogPath",
  "workloadEgressNetworkPolicy.enabled",
  "workloadEgressNetworkPolicy.clusterPodCIDR",
  "workloadEgressNetworkPolicy.clusterServiceCIDR",
  "workloadEgressNetworkPolicy.zitiControllerEnrollment.enabled",
  "workloadEgressNetworkPolicy.zitiControllerEnrollment.cidr",
  "workloadEgressNetworkPolicy.zitiControllerEnrollment.port",
  "workloadEgressNetworkPolicy.zitiRuntimeIngressGateway.enabled",
  "workloadEgressNetworkPolicy.zitiRuntimeIngressGateway.cidr",
  "workloadEgressNetworkPolicy.zitiRuntimeIngressGateway.backendCIDRs",
  "workloadEgressNetworkPolicy.zitiRuntimeIngressGateway.namespaceSelector",
  "workloadEgressNetworkPolicy.zitiRuntimeIngressGateway.podSelector",
  "workloadEgressNetworkPolicy.zitiRuntimeIngressGateway.port",
];

describe("the contract's values", () => {
  test.each(Object.entries(contract))("%s", (path, value) => {
    expect(valueAt(defaults, path.split("."))).toEqual(value);
  });

  test.each(named)("%s is there", (path) => {
    expect(valueAt(defaults, path.split("."))).toBeDefined();
  });

  test("the probes", () => {
    const probe = {
      tcpSocket: { port: "grpc" },
      periodSeconds: 10,
      timeoutSeconds: 1,
      failureThreshold: 3,
      successThreshold: 1,
    };
    expect(defaults.livenessProbe).toEqual({ ...probe, initialDelaySeconds: 10 });
    expect(defaults.readinessProbe).toEqual({ ...probe, initialDelaySeconds: 5 });
  });

  test("the image of local development", () => {
    const image = { repository: "agynio/k8s-runner", tag: "dev" };
    expect(containerOf(render({ image })).image).toBe("agynio/k8s-runner:dev");
  });
});

/** Every value that holds no others, and each list or map of the operator's own contents, with its path. */
function leaves(value: unknown, path: readonly string[] = []): [path: string, value: unknown][] {
  const isMap = typeof value === "object" && value !== null && !Array.isArray(value);
  if (!isMap || Object.keys(value).length === 0) return [[path.join("."), value]];
  // Keys that are not the chart's: labels.
  if (path.at(-1) === "matchLabels" || path.at(-1) === "podSelectorLabels") return [[path.join("."), value]];
  return Object.keys(value).flatMap((key) => leaves(valueAt(value, [key]), [...path, key]));
}

/** A value of no kind that any operator could mean there. */
const wrongFor = (value: unknown): unknown => (Array.isArray(value) || typeof value === "boolean" ? "x" : [[1]]);

describe("the schema refuses a wrong type, by the value's path", () => {
  test.each(leaves(defaults))("%s", (path, value) => {
    const keys = path.split(".");
    const values = keys.reduceRight<unknown>((inner, key) => ({ [key]: inner }), wrongFor(value));
    const { ok, text } = template(values);
    expect({ path, ok }).toEqual({ path, ok: false });
    expect(text).toContain(keys[0] ?? "");
    expect(text).toMatch(/schema|don't meet the specifications/);
  });
});
