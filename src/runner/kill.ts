import { HOLD, MARK, RELEASE } from "./wrapper.ts";

/** Between two looks; not every `sleep` takes a fraction. */
const PAUSE = "sleep 0.05 2>/dev/null || sleep 1";

/** A shell function: whether the file $1 holds the text $2. */
const HOLDS = `holds() {
  while read -r l || [ -n "$l" ]; do case $l in *"$2"*) return 0 ;; esac; done < "$1"
  return 1
} 2>/dev/null`;

/**
 * Ends every process of the execution $1: those that carry its mark in their environment or arguments (the wrapper), their
 * descendants and their sessions. They are stopped first, until a look finds no new one, then killed; status 0 means that a
 * last look found none alive. Where there is none at first, a few more looks are taken: the handshake ends before the first
 * process runs. Only /proc and a POSIX shell are needed. A zombie has ended, whoever its parent is.
 */
const KILL_SCRIPT = `mark=${MARK}=$1
${HOLDS}
scan() {
  all= marked=
  for p in /proc/[0-9]*; do
    pid=\${p#/proc/}
    { read -r s < "$p/stat"; } 2>/dev/null || continue
    s=\${s##*) }; set -- $s
    [ "$1" = Z ] && continue
    all="$all $pid:$2:$4"
    case " $known " in *" $pid "*) marked="$marked $pid"; continue ;; esac
    if holds "$p/environ" "$mark" || holds "$p/cmdline" "$mark"; then marked="$marked $pid"; fi
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
 * What the kernel does when a terminal goes: SIGHUP, then SIGCONT, to the leader of its session, which is the wrapper of the
 * execution $1, and to the programs in its foreground; and to the command, as if it were the leader. Other sessions under
 * the same mark (a tmux server, its shells) are none of it. Looks for a second, and ends with status 1 when there is no
 * such leader.
 */
const HANG_UP_SCRIPT = `mark=${MARK}=$1
${HOLDS}
stat() {
  { read -r s < "$1/stat"; } 2>/dev/null && s=\${s##*) }
}
tries=0
while [ $tries -lt 20 ]; do
  for p in /proc/[0-9]*; do
    leader=\${p#/proc/}
    holds "$p/cmdline" "$mark" && stat "$p" || continue
    set -- $s
    [ "$4" = "$leader" ] && [ "$5" != 0 ] || continue
    groups=$leader
    [ "$6" -gt 0 ] && [ "$6" != "$leader" ] && groups="$groups $6"
    for p in /proc/[0-9]*; do
      stat "$p" || continue
      set -- $s
      [ "$2" = "$leader" ] || continue
      case " $groups " in *" $3 "*) ;; *) groups="$groups $3" ;; esac
    done
    for signal in HUP CONT; do
      for group in $groups; do kill -s $signal -- "-$group" 2>/dev/null; done
    done
    exit 0
  done
  ${PAUSE}
  tries=$((tries + 1))
done
exit 1`;

/**
 * Sends the signal $2 to the wrapper of the execution $1, and $3 once its own stdin ends. All that have the mark among their
 * arguments are told: beside the wrapper it can be the command, where a shell runs programs that are part of it (busybox).
 */
const HOLD_SCRIPT = `${HOLDS}
tell() {
  for p in /proc/[0-9]*; do
    holds "$p/cmdline" "$1" && kill -s "$2" "\${p#/proc/}" 2>/dev/null
  done
}
tell "${MARK}=$1" "$2"
echo held
read -r l
tell "${MARK}=$1" "$3"
exit 0`;

const shell = (script: string, ...args: string[]): string[] => ["/bin/sh", "-c", script, "sh", ...args];

/** The argument vector that keeps a wrapper from ending until its stdin ends; it says `held`. */
export const holdCommand = (executionId: string): string[] => shell(HOLD_SCRIPT, executionId, HOLD, RELEASE);

/** The argument vector that hangs up the terminal of an execution (ruling 4). */
export const hangUpCommand = (executionId: string): string[] => shell(HANG_UP_SCRIPT, executionId);

/** The argument vector that ends every process of an execution in the container (ruling 4). */
export const killCommand = (executionId: string): string[] => shell(KILL_SCRIPT, executionId);
