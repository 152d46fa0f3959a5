/**
 * Real pipes for child processes, with back-pressure at both ends. Bun 1.4.5 gives a child socket pairs, on which
 * `> /dev/stderr` and `cat /dev/stdin` fail, unlike in any container; so each pipe is a FIFO, unlinked once open.
 */
import { closeSync, constants, openSync, unlinkSync } from "node:fs";
import { join } from "node:path";

/** How many FIFOs one call of mkfifo makes: a call takes about a millisecond. */
const BATCH = 30;

/** `ours` does not block and is for `readAll` or `PipeWriter`; `theirs` blocks and is to be closed after the spawn. */
export interface Pipe {
  readonly ours: number;
  readonly theirs: number;
}

export class Pipes {
  readonly #directory: string;
  readonly #ready: string[] = [];
  #made = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** `reads`: the child's standard input; `writes`: its output. */
  open(child: "reads" | "writes"): Pipe {
    const path = this.#path();
    // Without O_NONBLOCK an open would wait for the other end, which is ours to open next.
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      if (child === "writes") return { ours: reader, theirs: openSync(path, constants.O_WRONLY) };
      const ours = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
      const theirs = openSync(path, constants.O_RDONLY);
      closeSync(reader);
      return { ours, theirs };
    } finally {
      unlinkSync(path);
    }
  }

  #path(): string {
    if (this.#ready.length === 0) {
      for (let index = 0; index < BATCH; index++) this.#ready.push(join(this.#directory, `pipe-${this.#made++}`));
      const { success, stderr } = Bun.spawnSync(["mkfifo", "-m", "600", ...this.#ready], { stderr: "pipe" });
      if (!success) throw new Error(`mkfifo: ${stderr.toString()}`);
    }
    const path = this.#ready.pop();
    if (path === undefined) throw new Error("no pipe");
    return path;
  }
}

/** What comes out of a pipe until its last writer has gone or `signal` aborts; then the descriptor is closed. */
export async function* readAll(descriptor: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = Bun.file(descriptor).stream().getReader();
  const stop = () => void reader.cancel();
  signal?.addEventListener("abort", stop);
  try {
    if (signal?.aborted) return;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    signal?.removeEventListener("abort", stop);
    await reader.cancel();
    closeSync(descriptor);
  }
}

/** The writing end of a child's standard input. */
export class PipeWriter {
  readonly #descriptor: number;
  readonly #sink: Bun.FileSink;
  #closed = false;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
    this.#sink = Bun.file(descriptor).writer();
  }

  /** Resolves when the pipe has taken all of it; false when nobody reads any more. */
  async write(data: Uint8Array): Promise<boolean> {
    if (this.#closed) return false;
    try {
      await this.#sink.write(data); // a promise where the pipe is full, which rejects when its reader has gone
      await this.#sink.flush();
      return !this.#closed;
    } catch {
      // EPIPE: the program has closed its input, which is its right.
      return false;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#descriptor);
    // The sink has a descriptor of its own, a copy (Bun 1.4.5). EPIPE for what it still holds is no news.
    Promise.resolve(this.#sink.end()).catch(() => undefined);
  }
}
