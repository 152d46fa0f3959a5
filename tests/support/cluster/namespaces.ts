import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { LAUNCH } from "./launch.ts";
import { launchArguments, pathsSandbox, type Sandbox, type SandboxKind, type SandboxOptions } from "./sandbox.ts";

/**
 * Builds the root of a container inside the new namespaces, then hands over to LAUNCH. Writable layer and work directory
 * lie on a tmpfs: overlayfs takes no overlay as its upper layer, and the machine's root may be one.
 * Arguments: an empty directory, the hostname, number of mounts, (ro|rw, source, target) of each, those of LAUNCH.
 */
const BUILD_ROOT = `
set -e
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
base=$1 hostname=$2 count=$3; shift 3
# This is still the machine's /proc, so the process id is the machine's too.
read -r HOST_PID rest < /proc/self/stat; export HOST_PID
hostname "$hostname" 2>/dev/null || true
mount -t tmpfs -o mode=755 none "$base"
upper=$base/upper work=$base/work root=$base/root
place() { # a mount point at $2 like $1
  if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "$(dirname "$2")"; [ -e "$2" ] || : > "$2"; fi
}
overlay() { # of $1 at $2, changes in $3, with $4 to work in
  mount -t overlay -o "lowerdir=$1,upperdir=$3,workdir=$4" none "$2" 2>/dev/null ||
    mount -t overlay -o "userxattr,lowerdir=$1,upperdir=$3,workdir=$4" none "$2" 2>/dev/null
}
mkdir "$upper" "$work" "$root"
index=0
while [ $index -lt "$count" ]; do
  index=$((index+1)) mode=$1 source=$2 target=$3; shift 3
  # In the upper layer, since a directory of the machine's may not be ours to write.
  place "$source" "$upper$target"
  eval "mode$index=\\$mode source$index=\\$source target$index=\\$target"
done
if overlay / "$root" "$upper" "$work"; then
  # File systems right under / (a separate /usr, /nix): an overlay does not look into them.
  while read -r id parent device within where more; do
    case $where in
      / | /proc | /sys | /dev | /tmp | /run | /root | /*/*) ;;
      *) mount --rbind "$where" "$root$where" 2>/dev/null || true ;;
    esac
  done < /proc/self/mountinfo
else
  # In a user namespace no overlay may uncover what is mounted over a part of /: so one for each directory of it.
  for each in /*; do
    case $each in /proc | /sys | /dev | /tmp | /run | /root) continue ;; esac
    if [ -L "$each" ]; then cp -P "$each" "$root$each"; continue; fi
    [ -d "$each" ] || continue
    mkdir -p "$upper$each" "$work$each" "$root$each"
    overlay "$each" "$root$each" "$upper$each" "$work$each" || mount --rbind "$each" "$root$each" || true
  done
fi
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/root" "$root/run"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys" 2>/dev/null || true
mount -t proc none "$root/proc"
mount -t tmpfs -o mode=1777 none "$root/tmp"
mount -t tmpfs -o mode=700 none "$root/root"
mount -t tmpfs -o mode=755 none "$root/run"
index=0
while [ $index -lt "$count" ]; do
  index=$((index+1)); eval "mode=\\$mode$index source=\\$source$index target=\\$target$index"
  place "$source" "$root$target" # again, for what lies in one of these file systems
  mount --bind "$source" "$root$target"
  [ "$mode" = rw ] || mount -o remount,bind,ro "$root$target"
done
exec chroot "$root" /bin/sh -c "$LAUNCH" sh "$@"
`;

/**
 * The parent of BUILD_ROOT. A shell rather than `unshare --fork`, which in util-linux 2.38 reports a killed child as
 * exit code 1; silent, since a shell tells of a killed child on stderr, which is the container's.
 */
const PARENT = `exec 4>&2 2>/dev/null; ( exec 2>&4 4>&-; exec /bin/sh -c "$BUILD_ROOT" "$@" ); exit $?`;

/** These are fresh in every container, so the machine's links inside them do not count. */
const FRESH = /^\/(proc|sys|dev|tmp|run|root)(\/|$)/;

/** The kind `namespaces`. Root needs no user namespace, and without one may chown as in a real container. */
function namespacesSandbox({ directory, hostname, mounts }: SandboxOptions): Sandbox {
  const user = process.getuid?.() === 0 ? [] : ["-U"];
  const base = join(directory, "root");
  mkdirSync(base);
  const sorted = [...mounts]
    .map((mount) => ({ ...mount, target: withoutLinks(mount.target) }))
    .sort((a, b) => (a.target < b.target ? -1 : 1));
  const places = sorted.flatMap(({ readOnly, source, target }) => [readOnly ? "ro" : "rw", source, target]);
  const environment = { PATH: process.env.PATH ?? "", LAUNCH, BUILD_ROOT };
  return {
    first: (program) => ({
      command: [
        ...["unshare", ...user, ...(user.length > 0 ? ["-r"] : []), "-m", "-p", "-u", "--"],
        ...["/bin/sh", "-c", PARENT, "sh", "sh", base, hostname, String(sorted.length), ...places],
        ...launchArguments(program),
      ],
      environment,
    }),
    further: (program, firstPid) => ({
      command: [
        ...["nsenter", "-t", String(firstPid), ...user, ...(user.length > 0 ? ["--preserve-credentials"] : [])],
        ...["-m", "-p", "-u", "-r", "-w", "--", "/bin/sh", "-c", LAUNCH, "sh"],
        ...launchArguments(program),
      ],
      environment,
    }),
  };
}

/** The same place with links of the machine in its existing part followed: `/bin/x` is `/usr/bin/x` on many. */
function withoutLinks(path: string): string {
  if (path === "/" || FRESH.test(path)) return path;
  try {
    const real = realpathSync(path);
    return FRESH.test(real) ? path : real;
  } catch {
    // It does not exist: so its parent decides.
    return join(withoutLinks(dirname(path)), path.slice(path.lastIndexOf("/")));
  }
}

/** The better kind that works here, found out by running a program in it. `SANDBOX=paths` in the environment forces the plain one. */
export function sandboxKind(): SandboxKind {
  if (process.platform !== "linux" || process.env.SANDBOX === "paths") return "paths";
  const directory = mkdtempSync(join(tmpdir(), "sandbox-"));
  try {
    const program = { argv: ["true"], environment: [], workingDirectory: "/" };
    const mounts = [{ source: directory, target: "/probe/volume", readOnly: true }];
    const { command, environment } = namespacesSandbox({ directory, hostname: "probe", mounts }).first(program);
    const { success } = Bun.spawnSync(command, { env: environment, stdio: ["ignore", "ignore", "ignore", "ignore"] });
    return success ? "namespaces" : "paths";
  } catch {
    // No unshare program: the plain kind it is.
    return "paths";
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export const sandboxOf = (kind: SandboxKind, options: SandboxOptions): Sandbox =>
  kind === "namespaces" ? namespacesSandbox(options) : pathsSandbox(options);
