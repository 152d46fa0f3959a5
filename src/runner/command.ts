import type { ExecOptions, ExecStartRequest } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { envNameProblems, trim } from "../pod/validate.ts";

/**
 * The name under which every process of an execution carries `<execution id>:<pid>:` in its environment, with the pid of
 * the execution's first process as the container counts.
 */
const MARK = "K8S_RUNNER_EXECUTION";

/**
 * Runs the command that follows $4 in the directory $2 under the mark $1, or says in one line, before anything has run, that
 * its program $3 is not there: a shell's own 127 could as well be the command's (ruling 20). $4 is the command's own PATH,
 * empty when that is the container's. It is searched by hand since `command -v` also finds built-ins.
 */
const RUN_SCRIPT = `export ${MARK}="$1:$$:"
if [ -n "$2" ]; then cd -- "$2" || exit; fi
found=
case $3 in
*/*) [ -x "$3" ] && [ ! -d "$3" ] && found=1 ;;
*) set -f; IFS=:; for d in \${4:-$PATH}; do [ -x "\${d:-.}/$3" ] && [ ! -d "\${d:-.}/$3" ] && found=1 && break; done; unset IFS; set +f ;;
esac
if [ -z "$found" ]; then printf '%s:not-found' "$1" >&2; exit 127; fi
shift 4
exec "$@"`;

/** Between two looks; not every `sleep` takes a fraction. */
const PAUSE = "sleep 0.05 2>/dev/null || sleep 1";

/**
 * Ends every process of the execution $1: those that carry its mark, their descendants and their sessions. They are
 * stopped first, until a look finds no new one, then killed; status 0 means that a last look found none alive. Where there
 * is none at first, a few more looks are taken: the handshake ends before the first process runs. Only /proc and a POSIX
 * shell are needed. A zombie has ended, whoever its parent is.
 */
const KILL_SCRIPT = `mark=${MARK}=$1
scan() {
  all= marked=
  for p in /proc/[0-9]*; do
    pid=\${p#/proc/}
    { read -r s < "$p/stat"; } 2>/dev/null || continue
    s=\${s##*) }; set -- $s
    [ "$1" = Z ] && continue
    all="$all $pid:$2:$4"
    case " $known " in *" $pid "*) marked="$marked $pid"; continue ;; esac
    { while read -r l || [ -n "$l" ]; do case $l in *"$mark"*) marked="$marked $pid"; break ;; esac; done < "$p/environ"; } 2>/dev/null
  done
  grown=1
  while [ -n "$grown" ]; do
    grown=
    for e in $all; do
      pid=\${e%%:*}; rest=\${e#*:}
      case " $marked " in *" $pid "*) continue ;; esac
      case " $marked " in *" \${rest%%:*} "* | *" \${rest#*:} "*) marked="$marked $pid"; grown=1 ;; esac
    done
  done
}
known= tries=0
while [ $tries -lt 20 ]; do
  scan
  new=
  for pid in $marked; do case " $known " in *" $pid "*) ;; *) new="$new $pid" ;; esac; done
  if [ -z "$known$new" ] && [ $tries -lt 5 ]; then ${PAUSE}; tries=$((tries + 1)); continue; fi
  [ -z "$new" ] && break
  kill -STOP $new 2>/dev/null
  known="$known $new"; tries=$((tries + 1))
done
[ -z "$known" ] && exit 0
kill -KILL $known 2>/dev/null
tries=0
while [ $tries -lt 50 ]; do
  left=
  for pid in $known; do
    { read -r s < "/proc/$pid/stat"; } 2>/dev/null || continue
    s=\${s##*) }
    case $s in Z* | X*) ;; *) left=1 ;; esac
  done
  [ -z "$left" ] && exit 0
  kill -KILL $known 2>/dev/null
  ${PAUSE}
  tries=$((tries + 1))
done
exit 1`;

/**
 * What the kernel does when a terminal goes: SIGHUP, then SIGCONT, to the leader of its session and to the programs in its
 * foreground. Other sessions under the same mark (a tmux server, its shells) are none of it. Looks for a second, and ends
 * with status 1 when the first process of the execution $1 is not there or has no terminal.
 */
const HANG_UP_SCRIPT = `tries=0
while [ $tries -lt 20 ]; do
  for p in /proc/[0-9]*; do
    pid=\${p#/proc/} first=
    { while read -r l || [ -n "$l" ]; do case $l in *"${MARK}=$1:$pid:"*) first=1; break ;; esac; done < "$p/environ"; } 2>/dev/null
    [ -n "$first" ] || continue
    { read -r s < "$p/stat"; } 2>/dev/null || exit 1
    s=\${s##*) }; set -- $s
    [ "$4" = "$pid" ] && [ "$5" != 0 ] || exit 1
    for signal in HUP CONT; do
      [ "$6" -gt 0 ] && [ "$6" != "$pid" ] && kill -s $signal -- "-$6" 2>/dev/null
      kill -s $signal -- "-$pid" 2>/dev/null
    done
    exit 0
  done
  ${PAUSE}
  tries=$((tries + 1))
done
exit 1`;

/** The argument vector that hangs up the terminal of an execution (ruling 4). */
export const hangUpCommand = (executionId: string): string[] => ["/bin/sh", "-c", HANG_UP_SCRIPT, "sh", executionId];

/** The argument vector that ends every process of an execution in the container (ruling 4). */
export const killCommand = (executionId: string): string[] => ["/bin/sh", "-c", KILL_SCRIPT, "sh", executionId];

/** Whether an execution's first output is RUN_SCRIPT's word that there is no such program. */
export const saysNotFound = (output: Uint8Array, executionId: string): boolean =>
  Buffer.from(`${executionId}:not-found`).equals(output);

/** Why a command cannot be run: the text of an in-band `invalid_command` error (6.16.1). */
export class InvalidCommand extends Error {
  override readonly name = "InvalidCommand";
}

/**
 * The argument vector of a start message (6.16.1), wrapped in two ways:
 * `marked` runs under a shell that marks the processes and changes the directory; `plain` is the same command for an image
 * without /bin/sh, and undefined where the request itself needs a shell.
 */
export function commandOf(start: ExecStartRequest): {
  marked: (executionId: string) => string[];
  plain: string[] | undefined;
} {
  const shell = trim(start.commandShell);
  const argv = start.commandArgv;
  if (argv.length === 0 && shell === "") throw new InvalidCommand("command required");
  if (argv.length > 0 && shell !== "")
    throw new InvalidCommand("command_argv and command_shell are mutually exclusive");
  const env = environmentOf(start.options);
  const workdir = start.options?.workdir ?? "";
  const inner = argv.length > 0 ? argv : ["/bin/sh", "-c", shell];
  const [program = ""] = inner;
  const path = env.findLast((entry) => entry.startsWith("PATH="))?.slice("PATH=".length) ?? "";
  const command = env.length === 0 ? inner : withEnvironment(env, inner);
  return {
    marked: (executionId) => ["/bin/sh", "-c", RUN_SCRIPT, "sh", executionId, workdir, program, path, ...command],
    plain: workdir === "" && argv.length > 0 ? command : undefined,
  };
}

/**
 * By `env`, for a shell would drop names that are no identifiers. It takes a name that begins with a dash for an option,
 * hence the `--`, and a program with `=` in its name for one more variable, hence a shell before that.
 */
function withEnvironment(env: string[], inner: string[]): string[] {
  const program = inner[0]?.includes("=") ? ["/bin/sh", "-c", 'exec "$@"', "sh", ...inner] : inner;
  return ["env", "--", ...env, ...program];
}

function environmentOf(options: ExecOptions | undefined): string[] {
  return (options?.env ?? []).map(({ name, value }) => {
    const key = trim(name);
    if (key === "") throw new InvalidCommand("env name required");
    const problems = envNameProblems(key);
    if (problems.length > 0) throw new InvalidCommand(`invalid env name: ${problems.join(", ")}`);
    return `${key}=${value}`;
  });
}
