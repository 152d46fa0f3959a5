import { readFileSync } from "node:fs";
import { durationMs } from "./duration.ts";
import { logLevelFrom } from "./log.ts";
import { type PodTemplate, podTemplateFrom } from "./pod/template.ts";
import { quantityProblem } from "./pod/validate.ts";

export const dockerImplementations = ["rootless", "privileged", "kata-qemu", "kata-fc"] as const;
export type DockerImplementation = (typeof dockerImplementations)[number];

/** What the process was told by its environment: process.md section 1 and the rulings. */
export interface Config {
  /** GRPC_ADDR: `host:port` or `:port`; port 0 is any free one. */
  readonly grpcAddress: string;
  /** KUBE_NAMESPACE: where workloads live. */
  readonly namespace: string;
  readonly logLevel: string;
  /** MAX_MESSAGE_BYTES: largest message received, after decompression (ruling 12). */
  readonly maxMessageBytes: number;
  /** PVC_STORAGE_CLASS; undefined: the cluster's default. */
  readonly storageClass: string | undefined;
  /** PVC_STORAGE_SIZE, a Kubernetes quantity. */
  readonly storageSize: string;
  /** From CAPABILITY_IMPLEMENTATIONS; undefined: workloads cannot ask for docker. */
  readonly docker: DockerImplementation | undefined;
  /** DOCKER_IMAGE_ROOTLESS and DOCKER_IMAGE_DIND (ruling 26). */
  readonly dockerImages: { readonly rootless: string; readonly dind: string };
  /** ALLOWED_LINUX_CAPABILITIES; undefined: any (ruling 9). */
  readonly allowedLinuxCapabilities: readonly string[] | undefined;
  /** WORKLOAD_SECCOMP_PROFILE=RuntimeDefault (ruling 10). */
  readonly runtimeDefaultSeccomp: boolean;
  /** The contents of the file that WORKLOAD_POD_TEMPLATE names (ruling 26). */
  readonly podTemplate: PodTemplate | undefined;
  /** FINISHED_POD_TTL in milliseconds; undefined: finished Pods stay until they are stopped (ruling 26). */
  readonly finishedPodTtlMs: number | undefined;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const MEBIBYTE = 1024 * 1024;

/** Settings that would change what callers or operators get and that this version does not know how to honour. */
const unsupported = ["TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE"] as const;

/** Config from the environment. Throws one Error that names every problem, in the order of process.md's table. */
export function loadConfig(env: Environment): Config {
  const problems: string[] = [];
  const text = (key: string): string | undefined => env[key]?.trim();
  const nonBlank = (key: string): string | undefined => text(key) || undefined;

  const namespace = text("KUBE_NAMESPACE") ?? "";
  if (namespace === "") problems.push("KUBE_NAMESPACE is required");
  problems.push(...zitiProblems(text("ZITI_ENABLED")));
  const storageSize = text("PVC_STORAGE_SIZE") ?? "10Gi";
  const sizeProblem = quantityProblem(storageSize);
  if (sizeProblem !== undefined) problems.push(`invalid PVC_STORAGE_SIZE: ${sizeProblem}`);
  const docker = dockerFrom(text("CAPABILITY_IMPLEMENTATIONS") ?? "", problems);
  const maxMessageBytes = Number(nonBlank("MAX_MESSAGE_BYTES") ?? 32 * MEBIBYTE);
  if (!Number.isSafeInteger(maxMessageBytes) || maxMessageBytes < 1024 || maxMessageBytes > 0x7fffffff)
    problems.push("MAX_MESSAGE_BYTES must be a whole number of bytes from 1024 to 2147483647");
  const seccomp = text("WORKLOAD_SECCOMP_PROFILE") ?? "";
  if (seccomp !== "" && seccomp !== "RuntimeDefault")
    problems.push(`invalid WORKLOAD_SECCOMP_PROFILE "${seccomp}": leave it unset or set RuntimeDefault`);
  const podTemplate = podTemplateIn(nonBlank("WORKLOAD_POD_TEMPLATE"), problems);
  const ttl = nonBlank("FINISHED_POD_TTL");
  const finishedPodTtlMs = ttl === undefined ? undefined : durationMs(ttl);
  if (ttl !== undefined && (finishedPodTtlMs === undefined || finishedPodTtlMs < 0))
    problems.push(`invalid FINISHED_POD_TTL "${ttl}": must be a duration such as 90s, 15m or 1h30m`);
  for (const key of unsupported)
    if (nonBlank(key) !== undefined) problems.push(`${key} is not supported by this version: leave it unset`);

  if (problems.length > 0) throw new Error(problems.join("; "));
  return {
    grpcAddress: nonBlank("GRPC_ADDR") ?? ":50051",
    namespace,
    logLevel: logLevelFrom(text("LOG_LEVEL") ?? ""),
    maxMessageBytes,
    storageClass: nonBlank("PVC_STORAGE_CLASS"),
    storageSize,
    docker,
    dockerImages: {
      rootless: nonBlank("DOCKER_IMAGE_ROOTLESS") ?? "docker:27-dind-rootless",
      dind: nonBlank("DOCKER_IMAGE_DIND") ?? "docker:27-dind",
    },
    allowedLinuxCapabilities: nonBlank("ALLOWED_LINUX_CAPABILITIES")
      ?.split(",")
      .map((name) => name.trim())
      .filter((name) => name !== ""),
    runtimeDefaultSeccomp: seccomp === "RuntimeDefault",
    podTemplate,
    finishedPodTtlMs,
  };
}

/** The spellings of Go's strconv.ParseBool, which operators' manifests rely on. */
const booleans: ReadonlyMap<string, boolean> = new Map([
  ...["1", "t", "T", "TRUE", "true", "True"].map((word) => [word, true] as const),
  ...["0", "f", "F", "FALSE", "false", "False"].map((word) => [word, false] as const),
]);

function zitiProblems(value: string | undefined): string[] {
  if (value === undefined) return [];
  if (value === "") return ["ZITI_ENABLED must be true or false"];
  const enabled = booleans.get(value);
  if (enabled === undefined) return [`invalid ZITI_ENABLED: strconv.ParseBool: parsing "${value}": invalid syntax`];
  return enabled ? ["ZITI_ENABLED=true is not supported by this version"] : [];
}

/** The template in this file, which must be there and be one: a typo in it would otherwise be found by missing Pods. */
function podTemplateIn(path: string | undefined, problems: string[]): PodTemplate | undefined {
  if (path === undefined) return undefined;
  try {
    return podTemplateFrom(Bun.YAML.parse(readFileSync(path, "utf8")));
  } catch (error) {
    problems.push(`WORKLOAD_POD_TEMPLATE ${path}: ${error instanceof Error ? error.message : "cannot be read"}`);
    return undefined;
  }
}

/** CAPABILITY_IMPLEMENTATIONS: a JSON object of strings with `docker` as its only known key. */
function dockerFrom(text: string, problems: string[]): DockerImplementation | undefined {
  if (text === "") return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    problems.push(`invalid CAPABILITY_IMPLEMENTATIONS: ${error instanceof Error ? error.message : "not JSON"}`);
    return undefined;
  }
  if (parsed === null) return undefined;
  if (typeof parsed !== "object" || Array.isArray(parsed)) {
    problems.push("invalid CAPABILITY_IMPLEMENTATIONS: must be a JSON object of strings");
    return undefined;
  }
  let docker: DockerImplementation | undefined;
  for (const [key, value] of Object.entries(parsed)) {
    if (typeof value !== "string") {
      problems.push(`invalid CAPABILITY_IMPLEMENTATIONS: the value of "${key}" must be a string`);
      continue;
    }
    const name = key.trim();
    const implementation = dockerImplementations.find((known) => known === value.trim().toLowerCase());
    if (name === "") problems.push("invalid CAPABILITY_IMPLEMENTATIONS key");
    else if (name !== "docker") problems.push(`unknown capability implementation "${key}"`);
    else if (implementation === undefined) problems.push(`invalid docker capability implementation "${value}"`);
    else docker = implementation;
  }
  return docker;
}
