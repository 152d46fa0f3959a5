import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadConfig } from "../src/config.ts";

const required = { KUBE_NAMESPACE: "workloads" };

test("only the namespace is required; everything else has the documented default", () => {
  expect(loadConfig(required)).toEqual({
    grpcAddress: ":50051",
    namespace: "workloads",
    logLevel: "info",
    maxMessageBytes: 33_554_432,
    storageClass: undefined,
    storageSize: "10Gi",
    docker: undefined,
    dockerImages: { rootless: "docker:27-dind-rootless", dind: "docker:27-dind" },
    allowedLinuxCapabilities: undefined,
    runtimeDefaultSeccomp: false,
    podTemplate: undefined,
    finishedPodTtlMs: undefined,
  });
});

test("values are trimmed, and a blank one is the default where the contract says so", () => {
  const config = loadConfig({
    KUBE_NAMESPACE: " workloads ",
    GRPC_ADDR: " ",
    LOG_LEVEL: " Warning ",
    PVC_STORAGE_CLASS: " ",
    CAPABILITY_IMPLEMENTATIONS: ' { " docker" : " Kata-QEMU " } ',
    ALLOWED_LINUX_CAPABILITIES: "NET_ADMIN, SYS_PTRACE,",
    WORKLOAD_SECCOMP_PROFILE: "RuntimeDefault",
  });
  expect(config).toMatchObject({
    grpcAddress: ":50051",
    namespace: "workloads",
    logLevel: "warn",
    storageClass: undefined,
    docker: "kata-qemu",
    allowedLinuxCapabilities: ["NET_ADMIN", "SYS_PTRACE"],
    runtimeDefaultSeccomp: true,
  });
});

test.each(["", " ", "verbose", "INFO"])("the log level %p means info", (level) => {
  expect(loadConfig({ ...required, LOG_LEVEL: level }).logLevel).toBe("info");
});

test.each(["", "{}", "null", " "])("CAPABILITY_IMPLEMENTATIONS %p means none", (text) => {
  expect(loadConfig({ ...required, CAPABILITY_IMPLEMENTATIONS: text }).docker).toBeUndefined();
});

const QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

test.each([
  [{ KUBE_NAMESPACE: " " }, "KUBE_NAMESPACE is required"],
  [{ ZITI_ENABLED: "" }, "ZITI_ENABLED must be true or false"],
  [{ ZITI_ENABLED: "yes" }, 'invalid ZITI_ENABLED: strconv.ParseBool: parsing "yes": invalid syntax'],
  [{ ZITI_ENABLED: "true" }, "ZITI_ENABLED=true is not supported by this version"],
  [{ PVC_STORAGE_SIZE: "" }, `invalid PVC_STORAGE_SIZE: ${QUANTITY}`],
  [{ PVC_STORAGE_SIZE: "ten" }, `invalid PVC_STORAGE_SIZE: ${QUANTITY}`],
  [{ CAPABILITY_IMPLEMENTATIONS: "[]" }, "invalid CAPABILITY_IMPLEMENTATIONS: must be a JSON object of strings"],
  [{ CAPABILITY_IMPLEMENTATIONS: "{" }, "invalid CAPABILITY_IMPLEMENTATIONS: "],
  [{ CAPABILITY_IMPLEMENTATIONS: '{"docker":1}' }, "invalid CAPABILITY_IMPLEMENTATIONS: "],
  [{ CAPABILITY_IMPLEMENTATIONS: '{" ":"rootless"}' }, "invalid CAPABILITY_IMPLEMENTATIONS key"],
  [{ CAPABILITY_IMPLEMENTATIONS: '{"gpu":"x"}' }, 'unknown capability implementation "gpu"'],
  [{ CAPABILITY_IMPLEMENTATIONS: '{"Docker":"rootless"}' }, 'unknown capability implementation "Docker"'],
  [{ CAPABILITY_IMPLEMENTATIONS: '{"docker":" Fast"}' }, 'invalid docker capability implementation " Fast"'],
  [{ MAX_MESSAGE_BYTES: "1.5" }, "MAX_MESSAGE_BYTES must be a whole number of bytes from 1024 to 2147483647"],
  [{ WORKLOAD_SECCOMP_PROFILE: "Unconfined" }, 'invalid WORKLOAD_SECCOMP_PROFILE "Unconfined"'],
  [{ FINISHED_POD_TTL: "soon" }, 'invalid FINISHED_POD_TTL "soon": must be a duration such as 90s, 15m or 1h30m'],
  [{ FINISHED_POD_TTL: "-1m" }, 'invalid FINISHED_POD_TTL "-1m"'],
  [{ WORKLOAD_POD_TEMPLATE: "/no/such" }, "WORKLOAD_POD_TEMPLATE /no/such: "],
  [{ TLS_CERT_FILE: "/tls.crt" }, "TLS_CERT_FILE is not supported by this version: leave it unset"],
])("%p is refused", (env, message) => {
  expect(() => loadConfig({ ...required, ...env })).toThrow(message);
});

test("the Pod template is read from its file, and finished Pods have a time", () => {
  const path = join(mkdtempSync(join(tmpdir(), "config-")), "template.yaml");
  writeFileSync(path, "spec:\n  nodeSelector: {pool: agents}\n  containers: [{resources: {limits: {memory: 1Gi}}}]\n");
  const config = loadConfig({ ...required, WORKLOAD_POD_TEMPLATE: path, FINISHED_POD_TTL: "1h30m" });
  expect(config.podTemplate).toMatchObject({
    spec: { nodeSelector: { pool: "agents" } },
    container: { resources: { limits: { memory: "1Gi" } } },
  });
  expect(config.finishedPodTtlMs).toBe(5_400_000);
  writeFileSync(path, "spec:\n  hostNetwork: true\n");
  expect(() => loadConfig({ ...required, WORKLOAD_POD_TEMPLATE: path })).toThrow(
    'spec has an unknown key "hostNetwork"',
  );
});

test("ZITI_ENABLED takes Go's spellings of false", () => {
  for (const word of ["0", "f", "F", "FALSE", "false", "False"]) loadConfig({ ...required, ZITI_ENABLED: word });
});

test("every problem is named at once, in the order of the table", () => {
  expect(() => loadConfig({ ZITI_ENABLED: "", PVC_STORAGE_SIZE: "x", MAX_MESSAGE_BYTES: "0" })).toThrow(
    `KUBE_NAMESPACE is required; ZITI_ENABLED must be true or false; invalid PVC_STORAGE_SIZE: ${QUANTITY}; MAX_MESSAGE_BYTES must be`,
  );
});
