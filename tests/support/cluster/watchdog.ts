/**
 * Ends what this process would leave behind. A shell reads from a pipe that only we hold: it notes the processes that we
 * tell it of, and when the pipe ends, however we ended (SIGKILL too), kills them and removes the directory.
 * What escapes it: a program that left its process group, in a sandbox of kind `paths`.
 */

const SCRIPT = `
targets=
while read -r word target; do
  if [ "$word" = + ]; then targets="$targets $target"; continue; fi
  left=
  for each in $targets; do [ "$each" = "$target" ] || left="$left $each"; done
  targets=$left
done
for target in $targets; do kill -9 -- "$target" 2>/dev/null; done
rm -rf -- "$1"
`;

export class Watchdog implements AsyncDisposable {
  readonly #shell: Bun.Subprocess<"pipe", "ignore", "ignore">;

  /** `directory` is removed at the end. */
  constructor(directory: string) {
    this.#shell = Bun.spawn(["/bin/sh", "-c", SCRIPT, "sh", directory], {
      stdin: "pipe",
      stdout: "ignore",
      stderr: "ignore",
      // In a session of its own: the terminal's interrupt is for us, not for it.
      detached: true,
    });
  }

  /** `target`: a process id, or the negative id of a process group. */
  watch(target: number): void {
    this.#tell(`+ ${target}`);
  }

  forget(target: number): void {
    this.#tell(`- ${target}`);
  }

  /** Kills what is still noted, removes the directory; resolves when both are done. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#shell.stdin.end();
    await this.#shell.exited;
  }

  #tell(line: string): void {
    this.#shell.stdin.write(`${line}\n`);
    this.#shell.stdin.flush();
  }
}
