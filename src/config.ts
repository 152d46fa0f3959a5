import { readFileSync } from "node:fs";
import { type Catalog, catalogFrom, NO_CATALOG } from "./catalog.ts";
import { durationMs } from "./duration.ts";
import type { VariableName } from "./environment.ts";
import { type PlatformSettings, platformFrom } from "./gateway/settings.ts";
import { type Limits, limitsFrom } from "./limits.ts";
import { logLevelFrom } from "./log.ts";
import { type PodTemplate, podTemplateFrom } from "./pod/template.ts";
import { quantityProblem } from "./pod/validate.ts";
import { type TlsFiles, tlsFrom } from "./tls.ts";
import { type TracingSettings, tracingFrom } from "./tracing/settings.ts";
import { type Environment, fileProblem, Variables } from "./variables.ts";

export const dockerImplementations = ["rootless", "privileged", "kata-qemu", "kata-fc"] as const;
export type DockerImplementation = (typeof dockerImplementations)[number];

/** What the process was told by its environment: process.md section 1 and the rulings. */
export interface Config {
  /** GRPC_ADDR: `host:port` or `:port`; port 0 is any free one. */
  readonly grpcAddress: string;
  /** KUBE_NAMESPACE: where workloads live. */
  readonly namespace: string;
  /** The link to the platform; undefined: ZITI_ENABLED is false. */
  readonly platform: PlatformSettings | undefined;
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
  /** The contents of the file that CATALOG_PATH names. */
  readonly catalog: Catalog;
  /** ALLOWED_LINUX_CAPABILITIES; undefined: any (ruling 9). */
  readonly allowedLinuxCapabilities: readonly string[] | undefined;
  /** WORKLOAD_SECCOMP_PROFILE=RuntimeDefault (ruling 10). */
  readonly runtimeDefaultSeccomp: boolean;
  /** The contents of the file that WORKLOAD_POD_TEMPLATE names (ruling 26). */
  readonly podTemplate: PodTemplate | undefined;
  /** FINISHED_POD_TTL in milliseconds; undefined: finished Pods stay until they are stopped (ruling 26). */
  readonly finishedPodTtlMs: number | undefined;
  /** What callers may use. */
  readonly limits: Limits;
  /** TLS_CERT_FILE, TLS_KEY_FILE and TLS_CLIENT_CA_FILE; undefined: the port is served in cleartext (ruling 13). */
  readonly tls: TlsFiles | undefined;
  /** SHUTDOWN_GRACE in milliseconds: how long running calls may take to end after SIGTERM. */
  readonly shutdownGraceMs: number;
  /** Where spans go, by OTEL_*; undefined: nowhere. */
  readonly tracing: TracingSettings | undefined;
}

/**
 * Config from the environment. Throws one Error that names every problem as `KEY: wrong, right` (see Variables), in the
 * order of process.md's table, our own variables last.
 */
export function loadConfig(env: Environment): Config {
  const variables = new Variables(env);
  const namespace = variables.text("KUBE_NAMESPACE") ?? "";
  if (namespace === "")
    variables.wrong("KUBE_NAMESPACE", "KUBE_NAMESPACE is required", "set it to the namespace of the workloads");
  // In this order: problems are told in the order in which they are found.
  const config = {
    grpcAddress: variables.nonBlank("GRPC_ADDR"),
    namespace,
    platform: platformFrom(variables),
    storageClass: variables.nonBlank("PVC_STORAGE_CLASS"),
    storageSize: storageSizeFrom(variables),
    logLevel: logLevelFrom(variables.text("LOG_LEVEL")),
    docker: dockerFrom(variables),
    catalog: catalogIn(variables),
    maxMessageBytes: maxMessageBytesFrom(variables),
    dockerImages: {
      rootless: variables.nonBlank("DOCKER_IMAGE_ROOTLESS"),
      dind: variables.nonBlank("DOCKER_IMAGE_DIND"),
    },
    allowedLinuxCapabilities: variables
      .nonBlank("ALLOWED_LINUX_CAPABILITIES")
      ?.split(",")
      .map((name) => name.trim())
      .filter((name) => name !== ""),
    runtimeDefaultSeccomp: runtimeDefaultSeccompFrom(variables),
    podTemplate: podTemplateIn(variables),
    finishedPodTtlMs: durationFrom(variables, "FINISHED_POD_TTL"),
    tls: tlsFrom(variables),
    shutdownGraceMs: durationFrom(variables, "SHUTDOWN_GRACE") ?? 0, // it has a default; a wrong one is told of
    limits: limitsFrom(variables),
    tracing: tracingFrom(variables),
  };
  if (variables.problems.length > 0) throw new Error(variables.problems.join("; "));
  return config;
}

function storageSizeFrom(variables: Variables): string {
  const key = "PVC_STORAGE_SIZE";
  const size = variables.text(key);
  const problem = quantityProblem(size);
  if (problem !== undefined) variables.wrong(key, `invalid ${key}: ${problem}`, "set a quantity such as 10Gi");
  return size;
}

function maxMessageBytesFrom(variables: Variables): number {
  const key = "MAX_MESSAGE_BYTES";
  const text = variables.nonBlank(key);
  const bytes = Number(text);
  if (!Number.isSafeInteger(bytes) || bytes < 1024 || bytes > 0x7fffffff)
    variables.wrong(key, `invalid ${key}: "${text}"`, "set a whole number of bytes from 1024 to 2147483647");
  return bytes;
}

function runtimeDefaultSeccompFrom(variables: Variables): boolean {
  const key = "WORKLOAD_SECCOMP_PROFILE";
  const profile = variables.nonBlank(key);
  if (profile !== undefined && profile !== "RuntimeDefault")
    variables.wrong(key, `invalid ${key}: "${profile}"`, "set RuntimeDefault or leave it unset");
  return profile === "RuntimeDefault";
}

/** Milliseconds of a duration that is not negative; undefined when the variable is not set. */
function durationFrom(variables: Variables, key: VariableName): number | undefined {
  const text = variables.nonBlank(key);
  const ms = text === undefined ? undefined : durationMs(text);
  if (text !== undefined && (ms === undefined || ms < 0))
    variables.wrong(key, `invalid ${key}: "${text}"`, "set a duration such as 90s, 15m or 1h30m");
  return ms;
}

/** The template in this file, which must be there and be one: a typo in it would otherwise be found by missing Pods. */
function podTemplateIn(variables: Variables): PodTemplate | undefined {
  const key = "WORKLOAD_POD_TEMPLATE";
  const path = variables.nonBlank(key);
  if (path === undefined) return undefined;
  try {
    return podTemplateFrom(Bun.YAML.parse(readFileSync(path, "utf8")));
  } catch (error) {
    variables.wrong(key, `${key} ${path}: ${fileProblem(error)}`, "name a YAML file with metadata and spec of a Pod");
    return undefined;
  }
}

/** The catalog in the file that CATALOG_PATH names; a file that is not there is an empty one (process.md section 1). */
function catalogIn(variables: Variables): Catalog {
  const key = "CATALOG_PATH";
  const path = variables.nonBlank(key);
  if (path === undefined) return NO_CATALOG;
  let text: string;
  let document: unknown;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return NO_CATALOG;
    variables.wrong(key, `read catalog ${path}: ${fileProblem(error)}`, "name a file that can be read");
    return NO_CATALOG;
  }
  try {
    document = Bun.YAML.parse(text);
  } catch (error) {
    variables.wrong(key, `parse catalog ${path}: ${fileProblem(error)}`, "name a YAML file");
    return NO_CATALOG;
  }
  const { catalog, problems } = catalogFrom(document);
  for (const { wrong, right } of problems) variables.wrong(key, `catalog ${path}: ${wrong}`, right);
  return catalog;
}

/** CAPABILITY_IMPLEMENTATIONS: a JSON object of strings with `docker` as its only known key. */
function dockerFrom(variables: Variables): DockerImplementation | undefined {
  const key = "CAPABILITY_IMPLEMENTATIONS";
  const right = `set JSON such as {"docker":"rootless"}`;
  const text = variables.text(key) ?? "";
  if (text === "") return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    variables.wrong(key, `invalid ${key}: ${error instanceof Error ? error.message : "not JSON"}`, right);
    return undefined;
  }
  if (parsed === null) return undefined;
  if (typeof parsed !== "object" || Array.isArray(parsed)) {
    variables.wrong(key, `invalid ${key}: must be a JSON object of strings`, right);
    return undefined;
  }
  const known = `the known one is docker, with one of ${dockerImplementations.join(", ")}`;
  let docker: DockerImplementation | undefined;
  for (const [name, value] of Object.entries(parsed)) {
    if (typeof value !== "string") {
      variables.wrong(key, `invalid ${key}: the value of "${name}" must be a string`, right);
      continue;
    }
    const implementation = dockerImplementations.find((candidate) => candidate === value.trim().toLowerCase());
    if (name.trim() === "") variables.wrong(key, `invalid ${key} key`, known);
    else if (name.trim() !== "docker") variables.wrong(key, `unknown capability implementation "${name}"`, known);
    else if (implementation === undefined)
      variables.wrong(key, `invalid docker capability implementation "${value}"`, known);
    else docker = implementation;
  }
  return docker;
}
