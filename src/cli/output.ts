/** The reader of our standard output has gone, as `head` does once it has its lines: no failure, and nothing to go on for. */
export class OutputClosed extends Error {
  override readonly name = "OutputClosed";
}

let listening = false;

/** Writes to standard output and resolves once it was taken: who is faster than the reader waits here. Throws OutputClosed. */
export function print(data: string | Uint8Array): Promise<void> {
  if (!listening) {
    listening = true;
    process.stdout.on("error", () => undefined); // each write hears of it too
  }
  return new Promise((resolve, reject) => {
    process.stdout.write(data, (error) => {
      if (error == null) return resolve();
      reject("code" in error && error.code === "EPIPE" ? new OutputClosed("nobody reads the output") : error);
    });
  });
}

/** One line on standard error, behind the program's name. */
export function tell(text: string): void {
  console.error(`k8s-runner: ${printable(text)}`);
}

/**
 * Text that came from a cluster or a workload, fit for a terminal: control characters, which could move its cursor or worse, are
 * shown as `\x1b`, line feeds and tabs as `\n` and `\t`.
 */
export function printable(text: string): string {
  return text.replace(CONTROLS, (character) => {
    if (character === "\n") return "\\n";
    if (character === "\t") return "\\t";
    return `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`;
  });
}

// C0, DEL and C1.
const CONTROLS = /\p{Cc}/gu;

/** Rows below a heading, in columns as wide as their longest cell; two blanks apart. */
export function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [heading, ...rows.map((row) => row.map(printable))];
  const widths = heading.map((_, column) => Math.max(...cells.map((row) => Bun.stringWidth(row[column] ?? ""))));
  const pad = (cell: string, column: number) => cell + " ".repeat((widths[column] ?? 0) - Bun.stringWidth(cell));
  return cells.map((row) => `${row.map(pad).join("  ").trimEnd()}\n`).join("");
}

/** How long ago that was, as `45s`, `12m`, `3h` or `9d`; `-` for a time that is not known. */
export function age(since: Date | undefined, now: number): string {
  if (since === undefined) return "-";
  const seconds = Math.max(0, Math.floor((now - since.getTime()) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 2 * 3600) return `${Math.floor(seconds / 60)}m`;
  return seconds < 48 * 3600 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86_400)}d`;
}
