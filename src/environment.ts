/**
 * Every variable of the environment that the process reads: the one list that the parser takes names and defaults from
 * (`Variables` refuses, at compile time, one that is not here) and that docs/configuration.md is made of (`bun run docs`).
 */

/** One variable. The texts are Markdown of one line, to stand in a table. */
export interface Variable {
  /** What is used when it is not set, as an operator would write it; absent: there is none. */
  readonly default?: string;
  /** What holds when it is not set, where that is not a value of it: `required`, `the cluster's`. */
  readonly otherwise?: string;
  /** What a value looks like, with its unit. */
  readonly form: string;
  readonly meaning: string;
}

type Section = Readonly<Record<string, Variable>>;

const FLAG = "`true` or `false`";
const DURATION = "duration, such as `90s`, `2m`, `1h30m`";
const FILE = "path of a file";
const COUNT = "number, 1 to 1000000";
const PERIOD = "duration from `1s` up";

const serving = {
  GRPC_ADDR: {
    default: ":50051",
    form: "`host:port`",
    meaning: "where gRPC, gRPC-Web, Connect and plain HTTP are served; port 0 is any free one",
  },
  TLS_CERT_FILE: {
    otherwise: "cleartext",
    form: `${FILE}, PEM`,
    meaning: "the server's certificate and its chain; with `TLS_KEY_FILE`, the port speaks TLS 1.2 or newer",
  },
  TLS_KEY_FILE: { otherwise: "cleartext", form: `${FILE}, PEM`, meaning: "the private key of that certificate" },
  TLS_CLIENT_CA_FILE: {
    otherwise: "none asked for",
    form: `${FILE}, PEM`,
    meaning: "only clients that show a certificate signed by one of these are let in",
  },
  MAX_MESSAGE_BYTES: {
    default: "33554432",
    form: "bytes, 1024 to 2147483647",
    meaning: "the largest message that is received, after decompression; a larger one ends `RESOURCE_EXHAUSTED`",
  },
  // Below the 30 s that Kubernetes gives a Pod by default before it kills (process.md 3.5).
  SHUTDOWN_GRACE: {
    default: "20s",
    form: DURATION,
    meaning: "after SIGTERM, how long calls under way may take to end; less than the Pod's grace period",
  },
  LOG_LEVEL: {
    default: "info",
    form: "`debug`, `info`, `warn`, `error`",
    meaning: "the least that is logged; `debug` adds a line for each request. An unknown value means `info`",
  },
} satisfies Section;

/** What happens above each: limits.md. */
const limits = {
  MAX_CONNECTIONS: {
    default: "4000",
    form: COUNT,
    meaning: "connections at once, over TCP and from OpenZiti together; more are closed as they come",
  },
  MAX_CONNECTIONS_PER_ADDRESS: {
    default: "500",
    form: COUNT,
    meaning: "connections at once from one address; those from OpenZiti have none",
  },
  MAX_STREAMS: {
    default: "10000",
    form: COUNT,
    meaning: "HTTP/2 streams, which are calls, at once in all; more are refused (`REFUSED_STREAM`)",
  },
  MAX_STREAMS_PER_CONNECTION: {
    default: "2000",
    form: COUNT,
    meaning: "streams at once on one connection, as clients are told by HTTP/2's settings",
  },
  MAX_EXECUTIONS: { default: "2000", form: COUNT, meaning: "calls of Exec at once; more end `RESOURCE_EXHAUSTED`" },
  MAX_EXECUTIONS_PER_CONNECTION: { default: "1000", form: COUNT, meaning: "the same on one connection" },
  MAX_LOG_STREAMS: {
    default: "2000",
    form: COUNT,
    meaning: "calls of StreamWorkloadLogs at once; more end `RESOURCE_EXHAUSTED`",
  },
  MAX_LOG_STREAMS_PER_CONNECTION: { default: "1000", form: COUNT, meaning: "the same on one connection" },
  MAX_EVENT_STREAMS: {
    default: "200",
    form: COUNT,
    meaning: "calls of StreamEvents at once; more end `RESOURCE_EXHAUSTED`",
  },
  MAX_EVENT_STREAMS_PER_CONNECTION: { default: "50", form: COUNT, meaning: "the same on one connection" },
  MAX_METADATA_BYTES: {
    default: "32768",
    form: "bytes, 1024 to 65536",
    meaning: "names and values of a call's metadata; more end `RESOURCE_EXHAUSTED`",
  },
  HEADER_TIMEOUT: {
    default: "10s",
    form: PERIOD,
    meaning: "from a connection's or a request's first byte to the end of its header; then the connection is closed",
  },
  REQUEST_TIMEOUT: {
    default: "2m",
    form: PERIOD,
    meaning: "from a call's header to the end of its only message, or its first; then it ends `DEADLINE_EXCEEDED`",
  },
  RESPONSE_TIMEOUT: {
    default: "1m",
    form: PERIOD,
    meaning: "how long a client may leave an answer unread that is complete; then the stream is closed",
  },
  IDLE_TIMEOUT: {
    default: "30m",
    form: PERIOD,
    meaning: "an HTTP/2 connection without a call for so long is closed by GOAWAY",
  },
  KEEPALIVE_INTERVAL: {
    default: "30s",
    form: PERIOD,
    meaning: "an HTTP/2 connection that is silent for so long is asked by a ping",
  },
  KEEPALIVE_TIMEOUT: {
    default: "20s",
    form: PERIOD,
    meaning: "and dropped when nothing is heard of it for so long after that",
  },
} satisfies Section;

const workloads = {
  KUBE_NAMESPACE: { otherwise: "**required**", form: "name", meaning: "the namespace of the workloads" },
  PVC_STORAGE_CLASS: {
    otherwise: "the cluster's",
    form: "name of a StorageClass",
    meaning: "of the claims that are made",
  },
  PVC_STORAGE_SIZE: { default: "10Gi", form: "Kubernetes quantity", meaning: "of the claims that are made" },
  CAPABILITY_IMPLEMENTATIONS: {
    otherwise: "no docker",
    form: "JSON object",
    meaning:
      'how the `docker` capability is provided: `{"docker":"rootless"}`, `privileged`, `kata-qemu` or `kata-fc` ([what each costs](security.md#the-docker-capability))',
  },
  DOCKER_IMAGE_ROOTLESS: {
    default: "docker:27-dind-rootless",
    form: "image",
    meaning: "of the daemon for `rootless`: a mirror of it, best by digest",
  },
  DOCKER_IMAGE_DIND: { default: "docker:27-dind", form: "image", meaning: "of the daemon for the others" },
  ALLOWED_LINUX_CAPABILITIES: {
    otherwise: "any",
    form: "comma list, such as `NET_ADMIN,SYS_PTRACE`",
    meaning: "what `required_capabilities` may ask for",
  },
  WORKLOAD_SECCOMP_PROFILE: {
    otherwise: "the node's",
    form: "`RuntimeDefault`",
    meaning: "that seccomp profile on every container but the docker daemon",
  },
  WORKLOAD_POD_TEMPLATE: {
    otherwise: "none",
    form: `${FILE}, YAML`,
    meaning:
      "`metadata` and `spec` of a Pod that lie under every workload Pod: node selector, tolerations, affinity, priority, ServiceAccount, annotations, ...; the one entry of `spec.containers` holds the defaults of every container (resources, image pull policy)",
  },
  FINISHED_POD_TTL: {
    otherwise: "they stay",
    form: DURATION,
    meaning: "finished Pods are removed after this time",
  },
} satisfies Section;

const platform = {
  ZITI_ENABLED: {
    default: "false",
    form: FLAG,
    meaning: "join a platform ([platform.md](platform.md)); of this table, only `CATALOG_PATH` is read when it is not",
  },
  GATEWAY_ADDRESS: { default: "gateway:8080", form: "`host:port`", meaning: "the platform's gateway" },
  GATEWAY_TLS: { default: "false", form: FLAG, meaning: "speak TLS to the gateway" },
  SERVICE_TOKEN: { otherwise: "**required**, or the next", form: "text", meaning: "the runner's token" },
  SERVICE_TOKEN_FILE: { otherwise: "none", form: FILE, meaning: "holds the token, in place of `SERVICE_TOKEN`" },
  ZITI_ENROLLMENT_TIMEOUT: {
    default: "2m",
    form: DURATION,
    meaning: "for all attempts to enroll together, and once more for those to report the catalog",
  },
  ZITI_COMPANION: {
    default: "k8s-runner-ziti",
    form: "path, or name in `PATH`",
    meaning: "the program that speaks OpenZiti; the image holds it",
  },
  ZITI_SOCKET_DIR: {
    otherwise: "`$TMPDIR`, `/tmp` or `/dev/shm`",
    form: "path of a directory",
    meaning: "where a private directory for the companion's socket can be made",
  },
  CATALOG_PATH: {
    otherwise: "an empty catalog",
    form: `${FILE}, YAML`,
    meaning: "flavors, storage classes and capabilities that are offered to the platform ([form](platform.md))",
  },
} satisfies Section;

const tracing = {
  OTEL_EXPORTER_OTLP_ENDPOINT: {
    otherwise: "no spans",
    form: "URL, such as `http://collector:4318`",
    meaning: "the collector that spans are sent to, at `/v1/traces` below it, as OTLP/HTTP",
  },
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: {
    otherwise: "made of the one before",
    form: "URL",
    meaning: "the same, as it is",
  },
  OTEL_EXPORTER_OTLP_HEADERS: {
    otherwise: "none",
    form: "`name=value,name=value`, values as in URLs",
    meaning: "sent with the spans; a key may be in them",
  },
  OTEL_EXPORTER_OTLP_TRACES_HEADERS: { otherwise: "the one before", form: "the same", meaning: "the same, before it" },
  OTEL_EXPORTER_OTLP_PROTOCOL: {
    otherwise: "`http/json`",
    form: "`http/json`",
    meaning: "the only form that is sent; another is refused",
  },
  OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: { otherwise: "`http/json`", form: "`http/json`", meaning: "the same" },
  OTEL_SERVICE_NAME: { default: "k8s-runner", form: "text", meaning: "the service that the spans are of" },
  OTEL_TRACES_SAMPLER: {
    default: "parentbased_always_on",
    form: "as OpenTelemetry names them",
    meaning: "which traces are recorded",
  },
  OTEL_TRACES_SAMPLER_ARG: { default: "1", form: "0 to 1", meaning: "the share of them, for samplers by ratio" },
  OTEL_SDK_DISABLED: { default: "false", form: FLAG, meaning: "no spans, and no other of these is looked at" },
} satisfies Section;

/** In the order of the document; a heading each. */
export const sections = {
  Serving: serving,
  Limits: limits,
  Workloads: workloads,
  "The platform": platform,
  Traces: tracing,
} satisfies Record<string, Section>;

const all = { ...serving, ...limits, ...tracing, ...workloads, ...platform };

export type VariableName = keyof typeof all;
/** Those with a default, which therefore always have a value. */
export type DefaultedName = {
  [Name in VariableName]: (typeof all)[Name] extends { default: string } ? Name : never;
}[VariableName];

export const variables: Readonly<Record<VariableName, Variable>> = all;
