/** The program itself, as a person runs it: `bun src/main.ts <words>`. */
const MAIN = `${import.meta.dir}/../../src/main.ts`;

export const command = (...words: string[]): string[] => [process.execPath, MAIN, ...words];

/** What it needs of its surroundings, and no more. */
export const environment = (address: string): Record<string, string> => ({
  PATH: process.env.PATH ?? "",
  HOME: "/nonexistent",
  RUNNER_ADDRESS: address,
});

export interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** `address` of a runner (`host:port`), or none where none is needed. */
export function program(address = "127.0.0.1:1") {
  const start = (words: readonly string[], options: { stdin?: Blob; env?: Record<string, string> } = {}) =>
    Bun.spawn(command(...words), {
      env: { ...environment(address), ...options.env },
      stdin: options.stdin ?? "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
  return {
    start,
    env: environment(address),
    /** The words of a command line of this program. */
    line: (words: readonly string[]) => command(...words),
    /** With a pipe as its standard input. */
    piped: (words: readonly string[]) =>
      Bun.spawn(command(...words), { env: environment(address), stdin: "pipe", stdout: "pipe", stderr: "pipe" }),
    /** Runs it to its end. */
    async run(words: readonly string[], options: { stdin?: string | Uint8Array; env?: Record<string, string> } = {}) {
      const { stdin, env } = options;
      const child = start(words, {
        ...(env && { env }),
        ...(stdin === undefined ? {} : { stdin: new Blob([Buffer.from(stdin)]) }),
      });
      return await ended(child);
    },
    /** The same, and its output as bytes. */
    async bytes(words: readonly string[], stdin: Uint8Array): Promise<Uint8Array> {
      const child = start(words, { stdin: new Blob([Buffer.from(stdin)]) });
      const [data, said] = await Promise.all([child.stdout.bytes(), child.stderr.text(), child.exited]);
      if (child.exitCode !== 0) throw new Error(`${words.join(" ")}: ${child.exitCode}: ${said}`);
      return data;
    },
  };
}

export async function ended(child: Bun.Subprocess<"ignore" | Blob | "pipe", "pipe", "pipe">): Promise<Ended> {
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { status: child.exitCode ?? -1, stdout, stderr };
}
