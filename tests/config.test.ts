import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { NO_CATALOG } from "../src/catalog.ts";
import { loadConfig } from "../src/config.ts";
import { DEFAULT_LIMITS } from "../src/limits.ts";
import { Secret } from "../src/secret.ts";

const required = { KUBE_NAMESPACE: "workloads" };

test("table 1: only KUBE_NAMESPACE is required; everything else has the documented default", () => {
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
    limits: DEFAULT_LIMITS,
    tls: undefined,
    shutdownGraceMs: 20_000,
    tracing: undefined,
    platform: undefined,
    catalog: { flavors: [], storageClasses: [], capabilities: [] },
  });
});

test("each limit has its variable, its bounds and its default", () => {
  const numbers = {
    MAX_CONNECTIONS: "connections",
    MAX_CONNECTIONS_PER_ADDRESS: "connectionsPerAddress",
    MAX_STREAMS: "streams",
    MAX_STREAMS_PER_CONNECTION: "streamsPerConnection",
    MAX_EXECUTIONS: "executions",
    MAX_EXECUTIONS_PER_CONNECTION: "executionsPerConnection",
    MAX_LOG_STREAMS: "logStreams",
    MAX_LOG_STREAMS_PER_CONNECTION: "logStreamsPerConnection",
    MAX_EVENT_STREAMS: "eventStreams",
    MAX_EVENT_STREAMS_PER_CONNECTION: "eventStreamsPerConnection",
    MAX_METADATA_BYTES: "metadataBytes",
  } as const;
  const times = {
    HEADER_TIMEOUT: "headerMs",
    REQUEST_TIMEOUT: "requestMs",
    RESPONSE_TIMEOUT: "responseMs",
    IDLE_TIMEOUT: "idleMs",
    KEEPALIVE_INTERVAL: "keepaliveMs",
    KEEPALIVE_TIMEOUT: "keepaliveTimeoutMs",
  } as const;
  expect(Object.values({ ...numbers, ...times })).toEqual(Object.keys(DEFAULT_LIMITS) as never[]); // of all, in order
  const loaded = (variables: Record<string, string>) => loadConfig({ ...required, ...variables }).limits;
  for (const [key, name] of Object.entries(numbers)) {
    expect(loaded({ [key]: " 1234 " })).toEqual({ ...DEFAULT_LIMITS, [name]: 1234 });
    for (const wrong of ["0", "-1", "1.5", "1e3", "many", "1000001"])
      expect(() => loaded({ [key]: wrong })).toThrow(`${key}: invalid ${key}: "${wrong}", set a whole number from `);
  }
  for (const [key, name] of Object.entries(times)) {
    expect(loaded({ [key]: "1m30s" })).toEqual({ ...DEFAULT_LIMITS, [name]: 90_000 });
    for (const wrong of ["0", "900ms", "-1m", "5", "long"])
      expect(() => loaded({ [key]: wrong })).toThrow(`${key}: invalid ${key}: "${wrong}", set a duration such as `);
  }
});

test("table 1, GRPC_ADDR, LOG_LEVEL, PVC_STORAGE_CLASS: values are trimmed, and a blank one is the default where the contract says so", () => {
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

test.each(["", " ", "verbose", "INFO"])("table 1, LOG_LEVEL: %p means info", (level) => {
  expect(loadConfig({ ...required, LOG_LEVEL: level }).logLevel).toBe("info");
});

test.each(["", "{}", "null", " "])("table 1, CAPABILITY_IMPLEMENTATIONS: %p means none", (text) => {
  expect(loadConfig({ ...required, CAPABILITY_IMPLEMENTATIONS: text }).docker).toBeUndefined();
});

const QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const KNOWN = "the known one is docker, with one of rootless, privileged, kata-qemu, kata-fc";
const JSON_RIGHT = 'set JSON such as {"docker":"rootless"}';
const DURATION = "set a duration such as 90s, 2m or 1h30m";
const ziti = { ZITI_ENABLED: "true", SERVICE_TOKEN: "token" };
const timeout = (text: string) => ({ ...ziti, ZITI_ENROLLMENT_TIMEOUT: text });

/** Every row of process.md's table 1 that can be wrong, then our own variables: the whole message. */
test.each([
  [{ KUBE_NAMESPACE: " " }, "KUBE_NAMESPACE: KUBE_NAMESPACE is required, set it to the namespace of the workloads"],
  [{ ZITI_ENABLED: "" }, "ZITI_ENABLED: ZITI_ENABLED must be true or false, set one of them or leave it unset"],
  [
    { ZITI_ENABLED: "yes" },
    'ZITI_ENABLED: invalid ZITI_ENABLED: strconv.ParseBool: parsing "yes": invalid syntax, set true or false',
  ],
  [
    { ZITI_ENABLED: "true", SERVICE_TOKEN: " " },
    "SERVICE_TOKEN: SERVICE_TOKEN is required when ZITI_ENABLED is true, set it or SERVICE_TOKEN_FILE",
  ],
  [
    { ...ziti, GATEWAY_ADDRESS: "http://gateway:8080" },
    'GATEWAY_ADDRESS: invalid GATEWAY_ADDRESS: "http://gateway:8080", set host:port, without a scheme',
  ],
  [
    { ...ziti, GATEWAY_TLS: "maybe" },
    'GATEWAY_TLS: invalid GATEWAY_TLS: strconv.ParseBool: parsing "maybe": invalid syntax, set true or false',
  ],
  [timeout(" "), `ZITI_ENROLLMENT_TIMEOUT: ZITI_ENROLLMENT_TIMEOUT must be a duration, ${DURATION}`],
  [
    timeout("soon"),
    `ZITI_ENROLLMENT_TIMEOUT: invalid ZITI_ENROLLMENT_TIMEOUT: time: invalid duration "soon", ${DURATION}`,
  ],
  [timeout("0s"), `ZITI_ENROLLMENT_TIMEOUT: ZITI_ENROLLMENT_TIMEOUT must be greater than 0, ${DURATION}`],
  [timeout("-2m"), `ZITI_ENROLLMENT_TIMEOUT: ZITI_ENROLLMENT_TIMEOUT must be greater than 0, ${DURATION}`],
  [{ PVC_STORAGE_SIZE: "" }, `PVC_STORAGE_SIZE: invalid PVC_STORAGE_SIZE: ${QUANTITY}, set a quantity such as 10Gi`],
  [{ PVC_STORAGE_SIZE: "ten" }, `PVC_STORAGE_SIZE: invalid PVC_STORAGE_SIZE: ${QUANTITY}, set a quantity such as 10Gi`],
  [
    { CAPABILITY_IMPLEMENTATIONS: "[]" },
    `CAPABILITY_IMPLEMENTATIONS: invalid CAPABILITY_IMPLEMENTATIONS: must be a JSON object of strings, ${JSON_RIGHT}`,
  ],
  [
    { CAPABILITY_IMPLEMENTATIONS: "{" },
    /^CAPABILITY_IMPLEMENTATIONS: invalid CAPABILITY_IMPLEMENTATIONS: .+, set JSON such as/,
  ],
  [
    { CAPABILITY_IMPLEMENTATIONS: '{"docker":1}' },
    `CAPABILITY_IMPLEMENTATIONS: invalid CAPABILITY_IMPLEMENTATIONS: the value of "docker" must be a string, ${JSON_RIGHT}`,
  ],
  [
    { CAPABILITY_IMPLEMENTATIONS: '{" ":"rootless"}' },
    `CAPABILITY_IMPLEMENTATIONS: invalid CAPABILITY_IMPLEMENTATIONS key, ${KNOWN}`,
  ],
  [
    { CAPABILITY_IMPLEMENTATIONS: '{"gpu":"x"}' },
    `CAPABILITY_IMPLEMENTATIONS: unknown capability implementation "gpu", ${KNOWN}`,
  ],
  [
    { CAPABILITY_IMPLEMENTATIONS: '{"Docker":"rootless"}' },
    `CAPABILITY_IMPLEMENTATIONS: unknown capability implementation "Docker", ${KNOWN}`,
  ],
  [
    { CAPABILITY_IMPLEMENTATIONS: '{"docker":" Fast"}' },
    `CAPABILITY_IMPLEMENTATIONS: invalid docker capability implementation " Fast", ${KNOWN}`,
  ],
  [
    { MAX_MESSAGE_BYTES: "1.5" },
    'MAX_MESSAGE_BYTES: invalid MAX_MESSAGE_BYTES: "1.5", set a whole number of bytes from 1024 to 2147483647',
  ],
  [
    { WORKLOAD_SECCOMP_PROFILE: "Unconfined" },
    'WORKLOAD_SECCOMP_PROFILE: invalid WORKLOAD_SECCOMP_PROFILE: "Unconfined", set RuntimeDefault or leave it unset',
  ],
  [
    { FINISHED_POD_TTL: "soon" },
    'FINISHED_POD_TTL: invalid FINISHED_POD_TTL: "soon", set a duration such as 90s, 15m or 1h30m',
  ],
  [
    { FINISHED_POD_TTL: "-1m" },
    'FINISHED_POD_TTL: invalid FINISHED_POD_TTL: "-1m", set a duration such as 90s, 15m or 1h30m',
  ],
  [
    { WORKLOAD_POD_TEMPLATE: "/no/such" },
    "WORKLOAD_POD_TEMPLATE: WORKLOAD_POD_TEMPLATE /no/such: ENOENT: no such file or directory, name a YAML file with metadata and spec of a Pod",
  ],
  ...["-1s", "20", "soon"].map(
    (text) =>
      [
        { SHUTDOWN_GRACE: text },
        `SHUTDOWN_GRACE: invalid SHUTDOWN_GRACE: "${text}", set a duration such as 90s, 15m or 1h30m`,
      ] as const,
  ),
])("table 1: %j is refused", (env, message) => {
  const text = problemsOf({ ...required, ...env });
  if (typeof message === "string") expect(text).toBe(message);
  else expect(text).toMatch(message);
});

test.each([
  ["5s", 5_000],
  ["1m30s", 90_000],
  ["0", 0],
  [" ", 20_000],
])("SHUTDOWN_GRACE: %p is %p ms", (text, ms) => {
  expect(loadConfig({ ...required, SHUTDOWN_GRACE: text }).shutdownGraceMs).toBe(ms);
});

function problemsOf(env: Record<string, string>): string {
  try {
    loadConfig(env);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("it was taken");
}

test("table 1, ZITI_ENABLED: takes Go's spellings, and without it no variable of the link is looked at", () => {
  const unread = { GATEWAY_ADDRESS: "?", GATEWAY_TLS: "?", ZITI_ENROLLMENT_TIMEOUT: "?", SERVICE_TOKEN_FILE: "/no" };
  for (const word of ["0", "f", "F", "FALSE", "false", "False"])
    expect(loadConfig({ ...required, ...unread, ZITI_ENABLED: word }).platform).toBeUndefined();
  for (const word of ["1", "t", "T", "TRUE", "true", "True"])
    expect(loadConfig({ ...required, ...ziti, ZITI_ENABLED: word }).platform).toBeDefined();
});

test("table 1, GATEWAY_ADDRESS, ZITI_ENROLLMENT_TIMEOUT: the link has the documented defaults, for known deployments give only namespace, address and token", () => {
  expect(loadConfig({ ...required, ...ziti }).platform).toEqual({
    gatewayAddress: "gateway:8080",
    gatewayTls: false,
    serviceToken: new Secret("token"),
    enrollmentTimeoutMs: 120_000,
    companion: "k8s-runner-ziti",
    socketDir: undefined,
  });
  const set = { GATEWAY_ADDRESS: " [::1]:443 ", GATEWAY_TLS: "true", ZITI_ENROLLMENT_TIMEOUT: "1m30s" };
  expect(
    loadConfig({ ...required, ...ziti, ...set, ZITI_COMPANION: "/bin/z", ZITI_SOCKET_DIR: "/run" }).platform,
  ).toMatchObject({
    gatewayAddress: "[::1]:443",
    gatewayTls: true,
    enrollmentTimeoutMs: 90_000,
    companion: "/bin/z",
    socketDir: "/run",
  });
});

test("table 1, SERVICE_TOKEN: SERVICE_TOKEN_FILE stands in for a blank SERVICE_TOKEN, never beside one", () => {
  const path = join(mkdtempSync(join(tmpdir(), "config-")), "token");
  const env = { ...required, ZITI_ENABLED: "true", SERVICE_TOKEN: "", SERVICE_TOKEN_FILE: path };
  expect(problemsOf(env)).toStartWith(
    `SERVICE_TOKEN_FILE: read ${path}: ENOENT: no such file or directory, name a file`,
  );
  writeFileSync(path, " \n");
  expect(problemsOf(env)).toStartWith(`SERVICE_TOKEN_FILE: ${path} is empty, name a file`);
  writeFileSync(path, "from-file\n");
  expect(loadConfig(env).platform?.serviceToken.reveal()).toBe("from-file");
  expect(problemsOf({ ...env, SERVICE_TOKEN: "x" })).toBe(
    "SERVICE_TOKEN_FILE: SERVICE_TOKEN_FILE is set beside SERVICE_TOKEN, set one of the two",
  );
});

test("table 1, CATALOG_PATH: blank or a file that is not there is an empty catalog; others must be one", () => {
  const directory = mkdtempSync(join(tmpdir(), "config-"));
  const path = join(directory, "catalog.yaml");
  for (const CATALOG_PATH of [" ", path]) expect(loadConfig({ ...required, CATALOG_PATH }).catalog).toEqual(NO_CATALOG);
  const env = { ...required, CATALOG_PATH: path };
  writeFileSync(path, "capabilities: [docker]\n");
  expect(loadConfig(env).catalog).toEqual({ ...NO_CATALOG, capabilities: ["docker"] });
  writeFileSync(path, "flavors: [{name: a, resources: {}}]\ncapabilities: 5\n");
  const all = problemsOf(env);
  expect(all).toContain(`CATALOG_PATH: catalog ${path}: flavor "a": requestsCpu is empty, give all four quantities`);
  expect(all).toContain(`; CATALOG_PATH: catalog ${path}: capabilities must be a list, begin`);
  writeFileSync(path, "flavors: [");
  expect(problemsOf(env)).toStartWith(`CATALOG_PATH: parse catalog ${path}: `);
  expect(problemsOf({ ...required, CATALOG_PATH: directory })).toStartWith(
    `CATALOG_PATH: read catalog ${directory}: EISDIR`,
  );
});

test("a token shows in no form of the configuration", () => {
  const { platform } = loadConfig({ ...required, ...ziti, SERVICE_TOKEN: "canary" });
  const printed = [JSON.stringify(platform), inspect(platform), Bun.inspect(platform), `${platform?.serviceToken}`];
  for (const text of printed) {
    expect(text).not.toContain("canary");
    expect(text).toContain("[secret]");
  }
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

test("every problem is named at once, in the order of the table", () => {
  const env = { ZITI_ENABLED: "", PVC_STORAGE_SIZE: "x", MAX_MESSAGE_BYTES: "0", CAPABILITY_IMPLEMENTATIONS: "1" };
  const keys = problemsOf(env)
    .split("; ")
    .map((problem) => problem.split(":", 1)[0]);
  expect(keys.join()).toBe("KUBE_NAMESPACE,ZITI_ENABLED,PVC_STORAGE_SIZE,CAPABILITY_IMPLEMENTATIONS,MAX_MESSAGE_BYTES");
});

test("a value cannot break out of the one line", () => {
  expect(problemsOf({ ...required, ZITI_ENABLED: "a\nk8s-runner: fine" })).not.toContain("\n");
});
