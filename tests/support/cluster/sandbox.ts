/**
 * What a container sees around its processes. There are no images: the file system is the machine's own.
 *
 * - `namespaces` (Linux that lets us unshare; no rights needed where user namespaces are open): a mount, PID and UTS
 *   namespace for each container. Its root is an overlay over the machine's: everything can be written and nothing of it
 *   stays; volumes and files lie at their mount paths; the first process is PID 1.
 * - `paths` (macOS, locked-down Linux): plain processes. A mount path cannot exist there, so wherever one stands in an
 *   argument, an environment value or a working directory it is replaced by the directory behind it. A path that a
 *   program makes up itself, or reads from its input, is not; neither is a read-only mount enforced, and a program sees
 *   the machine's /tmp and processes.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { LAUNCH } from "./launch.ts";

export type SandboxKind = "namespaces" | "paths";

/** A volume, or one file or directory of it, at its place in the container. */
export interface Mount {
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

/** What to run. `environment` is all that the program gets; of entries with one name the last wins. */
export interface Program {
  readonly argv: readonly string[];
  readonly environment: readonly (readonly [name: string, value: string])[];
  readonly workingDirectory: string;
}

/** For Bun.spawn. The command first writes one line to file descriptor 3: `started <pid>`, or why not (launch.ts). */
export interface Launch {
  readonly command: string[];
  readonly environment: Record<string, string>;
}

export interface Sandbox {
  /** The container's first process, which makes what the others share. */
  first(program: Program): Launch;
  /** One more process, beside the first one, whose process id on this machine is `firstPid`. */
  further(program: Program, firstPid: number): Launch;
}

/** `directory` is the container's own, empty and absolute; `mounts` in any order. */
export interface SandboxOptions {
  readonly directory: string;
  readonly hostname: string;
  readonly mounts: readonly Mount[];
}

export const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** The arguments of LAUNCH for this program. */
export function launchArguments({ argv, environment, workingDirectory }: Program): string[] {
  const path = environment.findLast(([name]) => name === "PATH")?.[1] ?? DEFAULT_PATH;
  const pairs = environment.map(([name, value]) => `${name}=${value}`);
  return [workingDirectory, path, String(pairs.length), ...pairs, ...argv];
}

/** The kind `paths`. */
export function pathsSandbox({ directory, mounts }: SandboxOptions): Sandbox {
  const longestFirst = [...mounts].sort((a, b) => b.target.length - a.target.length);
  const translate = (text: string) =>
    longestFirst.reduce((result, { target, source }) => result.replace(mentionOf(target), () => source), text);
  const launch = (program: Program): Launch => {
    const workingDirectory = translate(program.workingDirectory);
    const translated = {
      argv: program.argv.map(translate),
      environment: program.environment.map(([name, value]) => [name, translate(value)] as const),
      // A container starts in its own root; what the machine lacks is made there.
      workingDirectory:
        workingDirectory !== "/" && existsSync(workingDirectory) ? workingDirectory : join(directory, workingDirectory),
    };
    return {
      command: ["/bin/sh", "-c", LAUNCH, "sh", ...launchArguments(translated)],
      environment: { PATH: DEFAULT_PATH },
    };
  };
  return { first: launch, further: launch };
}

/** The path as a whole or as the beginning of a longer one, but not as a part of another name or path. */
function mentionOf(path: string): RegExp {
  const literal = path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`(?<![\\w.\\-/)}])${literal}(?![\\w.\\-])`, "g");
}
