import { invalid } from "../errors.ts";
import type { ContainerSpec, StartWorkloadRequest, VolumeMount } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Container } from "../kube/types.ts";
import { INLINE_FILES_VOLUME } from "./names.ts";
import {
  blank,
  cleanPath,
  dnsLabelProblems,
  envNameProblems,
  invalidText,
  isMountPath,
  requireNone,
  trim,
} from "./validate.ts";

export interface ContainerSettings {
  /** The Linux capabilities that callers may ask for; unset: any (ruling 9). */
  readonly allowedLinuxCapabilities?: readonly string[];
  /** Whether containers get the seccomp profile RuntimeDefault (ruling 10). */
  readonly runtimeDefaultSeccomp: boolean;
}

export interface Containers {
  readonly main: Container;
  readonly sidecars: readonly Container[];
  readonly inits: readonly Container[];
}

interface Parts {
  /** The names of the request's volumes. */
  readonly volumes: ReadonlySet<string>;
  /** Path of an inline file to its key in the Secret. */
  readonly inlineFileKeys: ReadonlyMap<string, string>;
  readonly settings: ContainerSettings;
}

interface NamedSpec {
  readonly name: string;
  readonly spec: ContainerSpec;
}

type Request = Pick<StartWorkloadRequest, "sidecars" | "initContainers"> & { main: ContainerSpec };
type Mount = NonNullable<Container["volumeMounts"]>[number];

const ENTRYPOINT_BREAKS = /[ \t\r\n]/;

/** Containers of a request with the names they will have: the caller's, trimmed, or one by position (section 2). */
export function namedContainers({ main, sidecars, initContainers }: Request) {
  const named = (spec: ContainerSpec, fallback: string): NamedSpec => ({ name: trim(spec.name) || fallback, spec });
  return {
    main: named(main, "main"),
    sidecars: sidecars.map((spec, index) => named(spec, `sidecar-${index + 1}`)),
    inits: initContainers.map((spec, index) => named(spec, `init-${index + 1}`)),
  };
}

/** The request's containers as Kubernetes takes them, checked in the order main, sidecars, init (runner-api.md 6.2.6). */
export function containersFor(named: ReturnType<typeof namedContainers>, parts: Parts): Containers {
  const main = containerFor(named.main, parts);
  const names = new Set([main.name]);
  const another = (container: NamedSpec): Container => {
    const built = containerFor(container, parts);
    if (names.has(built.name)) throw invalidText("duplicate_container_name", built.name);
    names.add(built.name);
    return built;
  };
  return { main, sidecars: named.sidecars.map(another), inits: named.inits.map(another) };
}

function containerFor({ name, spec }: NamedSpec, parts: Parts): Container {
  requireNone(dnsLabelProblems(name), "invalid_container_name");
  const image = trim(spec.image);
  if (image === "") throw invalid("container_image_required");
  const volumeMounts = mountsFor(spec, parts);
  const env = spec.env.map(({ name, value }) => ({ name: requireEnvName(name), value }));
  const entrypoint = trim(spec.entrypoint);
  if (ENTRYPOINT_BREAKS.test(entrypoint)) throw invalid("entrypoint_must_be_single_path");
  const capabilities = linuxCapabilitiesFor(spec, parts.settings);
  const workingDir = trim(spec.workingDir);
  const container: Container = {
    name,
    image,
    ...(entrypoint === "" ? {} : { command: [entrypoint] }),
    ...(spec.cmd.length === 0 ? {} : { args: [...spec.cmd] }),
    ...(workingDir === "" ? {} : { workingDir }),
    ...(env.length === 0 ? {} : { env }),
    ...(volumeMounts.length === 0 ? {} : { volumeMounts }),
    ...(capabilities.length === 0 ? {} : { securityContext: { capabilities: { add: capabilities } } }),
    ...(spec.additionalProperties.restart_policy === "Always" ? { restartPolicy: "Always" } : {}),
  };
  return hardened(container, parts.settings);
}

/** With the seccomp profile that operators asked for; every container but the docker daemon goes through here (ruling 10). */
export const hardened = (container: Container, { runtimeDefaultSeccomp }: ContainerSettings): Container =>
  runtimeDefaultSeccomp
    ? { ...container, securityContext: { ...container.securityContext, seccompProfile: { type: "RuntimeDefault" } } }
    : container;

function mountsFor({ mounts, inlineFileMounts }: ContainerSpec, { volumes, inlineFileKeys }: Parts): Mount[] {
  const taken = new Set<string>();
  const requireFree = (path: string): string => {
    if (!isMountPath(path)) throw invalidText("mount_path_invalid", path);
    const place = cleanPath(path); // "/a" and "/a/" are one place: the later mount would hide the earlier
    if (taken.has(place)) throw invalidText("duplicate_mount_path", path);
    taken.add(place);
    return path;
  };
  const ofVolume = ({ volume, mountPath, readOnly }: VolumeMount): Mount => {
    const name = trim(volume);
    if (name === "") throw invalid("volume_mount_name_required");
    if (!volumes.has(name)) throw invalidText("volume_not_defined", name);
    const path = trim(mountPath);
    if (path === "") throw invalid("mount_path_required");
    return { name, mountPath: requireFree(path), ...(readOnly ? { readOnly } : {}) };
  };
  const ofFile = (path: string): Mount => {
    const subPath = inlineFileKeys.get(path);
    if (subPath === undefined) throw invalidText("inline_file_not_defined", path);
    return { name: INLINE_FILES_VOLUME, mountPath: requireFree(path), subPath, readOnly: true };
  };
  return [...mounts.map(ofVolume), ...inlineFileMounts.map(({ path }) => ofFile(trim(path)))];
}

function requireEnvName(name: string): string {
  if (blank(name)) throw invalid("env_name_required");
  const trimmed = trim(name);
  requireNone(envNameProblems(trimmed), "invalid_env_name");
  return trimmed;
}

function linuxCapabilitiesFor(spec: ContainerSpec, { allowedLinuxCapabilities }: ContainerSettings): string[] {
  const capabilities = spec.requiredCapabilities.map(trim).filter((name) => name !== "");
  const refused = capabilities.find((name) => allowedLinuxCapabilities?.includes(name) === false);
  if (refused !== undefined) throw invalidText("linux_capability_not_allowed", refused);
  return capabilities;
}
