/**
 * The shell scripts under which commands run in containers (docs/exec.md). A POSIX shell and nothing else may be assumed,
 * and their variables have names that no image uses: an assignment would change a variable that the container exports.
 */

/**
 * The name under which every process of an execution carries `<execution id>:<pid>:` in its environment, with the pid of
 * the execution's first process as the container counts. That first process has it among its arguments, too.
 */
export const MARK = "K8S_RUNNER_EXECUTION";

/** What begins each line that a wrapper says to the runner; a byte that hardly any program prints. */
export const WORD = "\x1e";

/** Says a word: `<WORD><execution id>:<word>` and a line's end. */
const say = (word: string) => `echo "${WORD}$K8S_RUNNER_ID:${word}"`;

/**
 * Reads a line of shell from stdin and runs it: what may not stand in the URL. A newline in it is written
 * `$K8S_RUNNER_N`. A connection that was cut before its end starts nothing.
 */
const TAKE_LINE = `IFS= read -r K8S_RUNNER_LINE || exit 125
eval "$K8S_RUNNER_LINE"
unset K8S_RUNNER_LINE`;

/** A terminal would echo the line, cut it and interpret characters of it: it is raw until it has been read. */
const TAKE_LINE_RAW = `K8S_RUNNER_TTY=$(stty -g 2>/dev/null) && stty raw -echo 2>/dev/null || { ${say("no-stty")}; exit 126; }
${say("ready")}
${TAKE_LINE}`;

/** Tells on both streams, and so behind all output, that it is over. */
const sayExit = (stderr: string) => `${say("exit:$K8S_RUNNER_CODE")}; ${say("exit:$K8S_RUNNER_CODE")} ${stderr}`;

/**
 * $1 the mark, $2 the directory, $3 the command's own PATH (empty: the container's), $4 a colon and the program to look
 * for, or nothing when a line is to be read that sets all this; then the command. It says `not-run`, before anything has
 * run, when the program is not there: a shell's own 127 could as well be the command's (ruling 20). The PATH is searched by
 * hand since `command -v` also finds built-ins.
 */
const prepare = (takeLine: string) => `export "$1:$$:"
K8S_RUNNER_ID=\${1#*=} K8S_RUNNER_DIR=$2 K8S_RUNNER_PATH=$3 K8S_RUNNER_PROGRAM=$4 K8S_RUNNER_N='
'
shift 4
if [ -z "$K8S_RUNNER_PROGRAM" ]; then
${takeLine}
fi
K8S_RUNNER_PROGRAM=\${K8S_RUNNER_PROGRAM#:}
if [ -n "$K8S_RUNNER_DIR" ]; then cd -- "$K8S_RUNNER_DIR" || { K8S_RUNNER_CODE=$?; ${sayExit(">&2")}; exit $K8S_RUNNER_CODE; }; fi
K8S_RUNNER_FOUND=
case $K8S_RUNNER_PROGRAM in
*/*) [ -x "$K8S_RUNNER_PROGRAM" ] && [ ! -d "$K8S_RUNNER_PROGRAM" ] && K8S_RUNNER_FOUND=1 ;;
*) K8S_RUNNER_PATH=\${K8S_RUNNER_PATH:-$PATH}:
while [ -n "$K8S_RUNNER_PATH" ]; do
K8S_RUNNER_DIR=\${K8S_RUNNER_PATH%%:*} K8S_RUNNER_PATH=\${K8S_RUNNER_PATH#*:}
K8S_RUNNER_DIR=\${K8S_RUNNER_DIR:-.}/$K8S_RUNNER_PROGRAM
[ -x "$K8S_RUNNER_DIR" ] && [ ! -d "$K8S_RUNNER_DIR" ] && K8S_RUNNER_FOUND=1 && break
done ;;
esac
if [ -z "$K8S_RUNNER_FOUND" ]; then ${say("not-run")} >&2; exit 127; fi`;

/** Seconds for which a wrapper that was held back stays at most, in case nobody releases it. */
const HELD_LIMIT_S = 900;

/** The signals by which a wrapper is held back at its end, and released; they do nothing to a program that does not expect them. */
export const HOLD = "URG";
export const RELEASE = "CONT";

/**
 * The shell stays beside the command and says, on both streams and so behind everything that the command wrote, how it
 * ended: the cluster itself tells it only when the last process that holds a stream has let go.
 * Signals that reach the whole group are the command's; what a shell would print about them is nobody's to see.
 * Held back, it stays until the runner has taken all output: the cluster may lose what is on its way when a command ends. Its
 * `sleep` runs in the background, where a signal ends the wait for it at once, and holds none of the streams.
 * A command that took the terminal for a group of its own may not have given it back: TTOU must not stop the last word.
 */
const script = (takeLine: string) => `${prepare(takeLine)}
exec 3>&2 2>/dev/null
trap : HUP INT QUIT USR1 USR2 PIPE ALRM TERM
K8S_RUNNER_HELD=
trap K8S_RUNNER_HELD=0 ${HOLD}
trap K8S_RUNNER_HELD= ${RELEASE}
(
exec 2>&3 3>&-
trap '${say("not-run")} >&2' EXIT
exec "$@"
)
K8S_RUNNER_CODE=$?
trap '' TTOU
${sayExit(">&3")}
while [ \${K8S_RUNNER_HELD:-${HELD_LIMIT_S}} -lt ${HELD_LIMIT_S} ]; do
sleep 1 >/dev/null 2>&1 3>&- &
wait $! || [ $? -gt 128 ] || break
K8S_RUNNER_HELD=\${K8S_RUNNER_HELD:+$((K8S_RUNNER_HELD + 1))}
done
exit $K8S_RUNNER_CODE`;

export const PIPE_SCRIPT = script(TAKE_LINE);

/** With a terminal both streams are that terminal, whose session the shell leads. */
export const TERMINAL_SCRIPT = script(TAKE_LINE_RAW);

/** Archives are counted by blocks of so many bytes, and by the rest. */
const BLOCK_BYTES = 65_536;

/**
 * Unpacks stdin in the directory $2 and says, for the execution $1, how many bytes have certainly arrived: tar takes an archive
 * that was cut between two files for a whole one. Then it says tar's exit code, without which the end is not known. `dd` tells how many
 * of $3 blocks and of one of $4 bytes it read in full, for next to nothing (a `wc` looks at each byte). What tar does not want
 * is read all the same: it would hold up the end. An image without such a `dd` has tar alone.
 */
const ARCHIVE_SCRIPT = `K8S_RUNNER_ID=$1
if dd if=/dev/null of=/dev/null iflag=fullblock 2>/dev/null; then
exec 4>&1
K8S_RUNNER_READ=$({ {
LC_ALL=C dd bs=${BLOCK_BYTES} "count=$3" iflag=fullblock 2>&5
LC_ALL=C dd "bs=$4" count=1 iflag=fullblock 2>&5
} | { tar -xf - -C "$2" >&4 4>&- 5>&-; K8S_RUNNER_CODE=$?; cat >/dev/null; exit $K8S_RUNNER_CODE; }; } 5>&1)
K8S_RUNNER_CODE=$? K8S_RUNNER_BYTES=0 K8S_RUNNER_SIZE=${BLOCK_BYTES}
for K8S_RUNNER_WORD in $K8S_RUNNER_READ; do
case $K8S_RUNNER_WORD in
*+*) K8S_RUNNER_COUNT=\${K8S_RUNNER_WORD%+*} ;;
in) K8S_RUNNER_BYTES=$((K8S_RUNNER_BYTES + K8S_RUNNER_COUNT * K8S_RUNNER_SIZE)) K8S_RUNNER_SIZE=$4 ;;
esac
done
${say("arrived:$K8S_RUNNER_BYTES")}
else tar -xf - -C "$2"; K8S_RUNNER_CODE=$?; fi
${say("exit:$K8S_RUNNER_CODE")}
exit $K8S_RUNNER_CODE`;

/** The argument vector that unpacks so many bytes of an archive from its stdin. */
export function archiveCommand(uploadId: string, directory: string, bytes: number): string[] {
  const blocks = Math.max(0, Math.ceil(bytes / BLOCK_BYTES) - 1);
  const rest = Math.max(1, bytes - blocks * BLOCK_BYTES); // of no bytes none can be read
  return ["/bin/sh", "-c", ARCHIVE_SCRIPT, "sh", uploadId, directory, String(blocks), String(rest)];
}

/** Ends a hand-over on a terminal: the caller's own input is waited for from then on. */
const restored = (settings: string, id: string) => `stty "${settings}"; echo "${WORD}${id}:go"`;

/** One argument can be 128 KiB on Linux (MAX_ARG_STRLEN); a longer script is read and evaluated instead. */
const LONGEST_ARGUMENT = 100_000;

/** Reads a script from the next line; the terminal's settings are $1 and the execution id $2 where there is one. */
const loader = (tty: boolean) => `K8S_RUNNER_N='
'
IFS= read -r K8S_RUNNER_LINE || exit 125
${tty ? `${restored("$1", "$2")}\nshift 2\n` : ""}eval "K8S_RUNNER_LINE=$K8S_RUNNER_LINE"
eval "unset K8S_RUNNER_LINE K8S_RUNNER_N
$K8S_RUNNER_LINE"`;

/** A text as one word of a shell line. */
export const quoted = (text: string): string =>
  `'${text.replaceAll("'", "'\\''").replaceAll("\n", `'"$K8S_RUNNER_N"'`)}'`;

export interface HandOver {
  /** What stands before the command, its env and all. */
  readonly prefix: readonly string[];
  /** The value of PATH among the env; empty when it has none. */
  readonly path: string;
  /** undefined: the arguments stand in the URL. */
  readonly command: readonly string[] | { readonly shell: string } | undefined;
  readonly tty: boolean;
}

/** The line, or two, that a wrapper reads before the command's own input. */
export function handOverLines({ prefix, path, command, tty }: HandOver): string {
  const { program, words, loaded } = wordsOf(command, tty);
  const steps = [
    `K8S_RUNNER_PROGRAM=:${program}`,
    ...(path === "" ? [] : [`K8S_RUNNER_PATH=${quoted(path)}`]),
    ["set", "--", ...prefix.map(quoted), words].join(" "),
    ...(tty && loaded === undefined ? [restored("$K8S_RUNNER_TTY", "$K8S_RUNNER_ID")] : []),
  ];
  return `${steps.join("; ")}\n${loaded === undefined ? "" : `${loaded}\n`}`;
}

/** The command as words of the line, its program, and the line that is to follow when it is too long for an argument. */
function wordsOf(command: HandOver["command"], tty: boolean): { program: string; words: string; loaded?: string } {
  if (command === undefined) return { program: '"$1"', words: '"$@"' };
  if (!("shell" in command)) return { program: quoted(command[0] ?? ""), words: command.map(quoted).join(" ") };
  const { shell } = command;
  if (Buffer.byteLength(shell) <= LONGEST_ARGUMENT) return { program: "/bin/sh", words: `/bin/sh -c ${quoted(shell)}` };
  const terminal = tty ? ' "$K8S_RUNNER_TTY" "$K8S_RUNNER_ID"' : "";
  const words = `/bin/sh -c ${quoted(loader(tty))} /bin/sh${terminal}`;
  return { program: "/bin/sh", words, loaded: quoted(shell) };
}
