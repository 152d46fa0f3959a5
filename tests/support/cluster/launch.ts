/** The shell that starts a container's program, in its place and with its environment. POSIX sh, any Linux or macOS. */

/**
 * Says in one line on descriptor 3 how it went, since afterwards there would only be an exit code: `started <pid>` (as
 * the machine counts), `missing <why>`, `denied <why>` or `failed <why>`. Then it becomes the program.
 * The environment comes as arguments, for a shell drops names that it cannot use itself.
 * Arguments: working directory, PATH, number of NAME=value, these, the argv.
 */
export const LAUNCH = `
directory=$1 path=$2 count=$3; shift 3
mkdir -p -- "$directory" 2>/dev/null
cd -- "$directory" 2>/dev/null || { echo "failed chdir to cwd (\\"$directory\\") set in config.json failed: no such file or directory" >&3; exit 128; }
index=0 word=
for each in "$@"; do [ $index -eq "$count" ] && { word=$each; break; }; index=$((index+1)); done
case $word in
  */*)
    [ -e "$word" ] || { echo "missing stat $word: no such file or directory" >&3; exit 127; }
    { [ -f "$word" ] && [ -x "$word" ]; } || { echo "denied permission denied" >&3; exit 126; } ;;
  *) PATH=$path command -v -- "$word" >/dev/null 2>&1 ||
       { echo 'missing executable file not found in $PATH' >&3; exit 127; } ;;
esac
echo "started \${HOST_PID:-$$}" >&3
exec env -i "$@" 3>&-
`;
