/** The process as it is started, with nothing in its environment but what is given. */
export function startMain(env: Readonly<Record<string, string>>, ...args: string[]) {
  const child = Bun.spawn([process.execPath, "src/main.ts", ...args], { env, stdout: "pipe", stderr: "pipe" });
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  const ended = (async () => {
    for await (const line of linesOf(child.stderr)) {
      lines.push(line);
      for (const look of waiting) look();
    }
  })();
  const entries = (msg: string) =>
    lines
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line))
      .filter((entry) => entry.msg === msg);
  return {
    child,
    /** Everything on stderr so far. */
    text: () => lines.join("\n"),
    entries,
    /** The first log line with this message, once it is there. Throws when the process ends without it. */
    async line(msg: string): Promise<Record<string, unknown>> {
      const found = Promise.withResolvers<void>();
      const look = () => entries(msg).length > 0 && found.resolve();
      waiting.add(look);
      look();
      await Promise.race([found.promise, ended]);
      waiting.delete(look);
      return entries(msg)[0] ?? fail(`the process ended without "${msg}":\n${lines.join("\n")}`);
    },
    /** Its status, and what it said last on stderr apart from its log. */
    async end(): Promise<{ status: number; said: string }> {
      await ended;
      return { status: await child.exited, said: lines.filter((line) => !line.startsWith("{")).join("\n") };
    },
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** Whole lines as they come; the last one only with its end. */
export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const data of stream) {
    const lines = (rest + decoder.decode(data, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

function fail(message: string): never {
  throw new Error(message);
}
