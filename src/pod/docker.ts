import { invalid } from "../errors.ts";
import type { Container, Pod, Volume } from "../kube/types.ts";
import { type ContainerSettings, type Containers, hardened } from "./containers.ts";
import { blank, invalidText, trim } from "./validate.ts";

/** The `docker` capability: a docker daemon beside the main container (runner-api.md 6.2.3 and 6.2.7). */

export type DockerImplementation = "rootless" | "privileged" | "kata-qemu" | "kata-fc";

export interface DockerSettings extends ContainerSettings {
  /** How workloads get docker; unset: they cannot. */
  readonly docker?: DockerImplementation;
  readonly dockerImages: { readonly rootless: string; readonly dind: string };
}

const DAEMON = "docker-daemon";
const SUBID_INIT = "docker-subid-init";
const DATA = "docker-data";
const RUN = "docker-run";
const TUN = "docker-tun";
const SUBID = "docker-subid";

const TUN_DEVICE = "/dev/net/tun";
const HOST = { name: "DOCKER_HOST", value: "tcp://localhost:2375" };

/** What one implementation adds, besides what all do: a daemon with a volume for its data, and main's DOCKER_HOST. */
export interface DockerFlavor {
  readonly image: keyof DockerSettings["dockerImages"];
  readonly dataPath: string;
  readonly securityContext: NonNullable<Container["securityContext"]>;
  readonly rootless: boolean;
  readonly runtimeClassName?: string;
}

const privileged: DockerFlavor = {
  image: "dind",
  dataPath: "/var/lib/docker",
  securityContext: { privileged: true, allowPrivilegeEscalation: true },
  rootless: false,
};

const flavors: Readonly<Record<DockerImplementation, DockerFlavor>> = {
  rootless: {
    image: "rootless",
    dataPath: "/home/rootless/.local/share", // the parent: the daemon makes its own directory there, owned by its user
    securityContext: {
      allowPrivilegeEscalation: true, // newuidmap is setuid
      seccompProfile: { type: "Unconfined" },
      appArmorProfile: { type: "Unconfined" },
      procMount: "Unmasked",
    },
    rootless: true,
  },
  privileged,
  "kata-qemu": { ...privileged, runtimeClassName: "kata-qemu" },
  "kata-fc": { ...privileged, runtimeClassName: "kata-fc" },
};

/** The forms of before seccompProfile and appArmorProfile, for nodes and admission plugins that still look at them. */
const rootlessAnnotations = {
  [`container.apparmor.security.beta.kubernetes.io/${DAEMON}`]: "unconfined",
  "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
  [`container.seccomp.security.alpha.kubernetes.io/${DAEMON}`]: "unconfined",
};

/**
 * The docker implementation to add, undefined when no capability asks for it (runner-api.md 6.2.3). `containers` and
 * `volumes` are the names that the request will use, so that ours do not collide with them.
 */
export function dockerFor(
  capabilities: readonly string[],
  names: { containers: ReadonlySet<string>; volumes: ReadonlySet<string> },
  settings: DockerSettings,
): DockerFlavor | undefined {
  if (capabilities.some(blank)) throw invalid("capability_required");
  let flavor: DockerFlavor | undefined;
  for (const capability of new Set(capabilities.map((name) => trim(name).toLowerCase()))) {
    if (capability !== "docker") throw invalidText("unknown_capability", capability);
    flavor = requireFlavor(settings);
    requireNoConflict(flavor, names);
  }
  return flavor;
}

function requireFlavor({ docker }: DockerSettings): DockerFlavor {
  if (docker === undefined) throw invalid("docker_capability_not_configured");
  if (!Object.hasOwn(flavors, docker)) throw invalidText("unknown_docker_implementation", docker);
  return flavors[docker];
}

function requireNoConflict(
  { rootless }: DockerFlavor,
  { containers, volumes }: { containers: ReadonlySet<string>; volumes: ReadonlySet<string> },
): void {
  for (const name of rootless ? [DAEMON, SUBID_INIT] : [DAEMON]) {
    if (containers.has(name)) throw invalidText("capability_container_name_conflict", name);
  }
  for (const name of rootless ? [DATA, RUN, TUN, SUBID] : [DATA]) {
    if (volumes.has(name)) throw invalidText("capability_volume_name_conflict", name);
  }
}

/** What of a Pod the docker capability changes. */
export interface DockerAdditions {
  readonly containers: Containers;
  readonly volumes: readonly Volume[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly spec: Pick<NonNullable<Pod["spec"]>, "hostUsers" | "runtimeClassName">;
}

/** The containers with a docker daemon as last sidecar, and what else the Pod needs for it (runner-api.md 6.2.7). */
export function withDocker(containers: Containers, flavor: DockerFlavor, settings: DockerSettings): DockerAdditions {
  const { main, sidecars, inits } = containers;
  const env = [...(main.env ?? []).filter(({ name }) => name !== HOST.name), HOST];
  return {
    containers: {
      main: { ...main, env },
      sidecars: [...sidecars, daemonFor(flavor, settings)],
      inits: flavor.rootless ? [subidInit(settings), ...inits] : inits,
    },
    volumes: [{ name: DATA, emptyDir: {} }, ...(flavor.rootless ? rootlessVolumes : [])],
    annotations: flavor.rootless ? rootlessAnnotations : {},
    spec: {
      ...(flavor.rootless ? { hostUsers: false } : {}),
      ...(flavor.runtimeClassName === undefined ? {} : { runtimeClassName: flavor.runtimeClassName }),
    },
  };
}

const rootlessVolumes: readonly Volume[] = [
  { name: RUN, emptyDir: {} },
  { name: TUN, hostPath: { path: TUN_DEVICE, type: "CharDevice" } },
  { name: SUBID, emptyDir: {} },
];

const rootlessMounts = [
  { name: RUN, mountPath: "/run/user/1000" },
  { name: TUN, mountPath: TUN_DEVICE },
  { name: SUBID, mountPath: "/etc/subuid", subPath: "subuid", readOnly: true },
  { name: SUBID, mountPath: "/etc/subgid", subPath: "subgid", readOnly: true },
];

// The image's own arguments stay (ruling 11); DOCKER_TLS_CERTDIR, present and empty, makes it listen without TLS.
const daemonFor = (
  { image, dataPath, securityContext, rootless }: DockerFlavor,
  settings: DockerSettings,
): Container => ({
  name: DAEMON,
  image: settings.dockerImages[image],
  env: [{ name: "DOCKER_TLS_CERTDIR", value: "" }],
  volumeMounts: [{ name: DATA, mountPath: dataPath }, ...(rootless ? rootlessMounts : [])],
  securityContext,
});

const subidInit = (settings: DockerSettings): Container =>
  hardened(
    {
      name: SUBID_INIT,
      image: settings.dockerImages.rootless,
      command: [
        "/bin/sh",
        "-c",
        subidScript({ uidMap: "/proc/self/uid_map", gidMap: "/proc/self/gid_map", out: "/subid" }),
      ],
      volumeMounts: [{ name: SUBID, mountPath: "/subid" }],
    },
    settings,
  );

/**
 * A POSIX shell script that writes `<out>/subuid` and `<out>/subgid`: the ids that the user `rootless` (1000) may give to
 * its containers are all of the Pod's user namespace but its own and 0. How many the namespace has is the third column
 * of the map's first line; with one or none the file is left empty (runner-api.md 6.2.7, user_namespaces(7), subuid(5)).
 */
export const subidScript = ({ uidMap, gidMap, out }: { uidMap: string; gidMap: string; out: string }): string =>
  `set -eu
subids() {
  ids=0
  read -r inside outside ids rest < "$1" || :
  last=$((\${ids:-0} - 1))
  : > "$2"
  if [ "$last" -ge 1 ]; then
    echo "rootless:1:$((last < 999 ? last : 999))" >> "$2"
  fi
  if [ "$last" -ge 1001 ]; then
    echo "rootless:1001:$((last - 1000))" >> "$2"
  fi
}
subids '${uidMap}' '${out}/subuid'
subids '${gidMap}' '${out}/subgid'
`;
