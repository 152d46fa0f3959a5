import type { ExecChannel, Output } from "../kube/channel.ts";
import type { Kube } from "../kube/client.ts";
import { KubeError } from "../kube/error.ts";
import { Hold, type Target } from "./beside.ts";
import type { Command, Wrapped } from "./command.ts";
import { type End, Heard } from "./heard.ts";
import { Marks, type Word } from "./marks.ts";

/** Stdin kept for a second try in a container not yet known to have a shell; one that is sent more gets no second try. */
const REPLAY_BYTES = 65_536;
/** Containers remembered at most; forgetting one costs one more failed try. */
const PLACES_LIMIT = 10_000;
/** Above it a signal may have ended the wrapper, which then could not say a word. */
const LAST_OWN_CODE = 128;

/**
 * Which containers have something, learnt from how executions went. Not which images: a mount can hide a shell and a
 * workload can remove it, and no other workload may lose its marks, and so its kill, by that.
 */
class Places {
  readonly #known = new Map<string, boolean>();

  get(place: string): boolean | undefined {
    return this.#known.get(place);
  }

  learn(place: string, has: boolean): void {
    if (this.#known.get(place) === has) return;
    if (this.#known.size >= PLACES_LIMIT) this.#known.clear();
    this.#known.set(place, has);
  }
}

/** What is known of containers' images. */
export class Images {
  /** /bin/sh. */
  readonly shell = new Places();
  /** A program that sets a terminal raw. */
  readonly stty = new Places();
}

/** In which way a command is tried (docs/exec.md). */
type Way = "wrapped" | "in-url" | "plain";

/** One try: a channel, and whether input may go to it yet. */
interface Attempt {
  readonly way: Way;
  readonly lines: string;
  readonly channel: Promise<ExecChannel>;
  /** Resolves when the caller's input may follow: at once, or when a terminal has taken what is handed over before it. */
  readonly writable: PromiseWithResolvers<ExecChannel>;
  /** Resolves when the try is over: true when another one has followed, which was given the same input. */
  readonly replaced: PromiseWithResolvers<boolean>;
}

/**
 * One command in one container. It runs under a wrapper in the image's shell; when the cluster says that there is no shell,
 * or the wrapper that it cannot take what is handed over (then nothing has run), it is run once more in another way, if
 * there is one.
 */
export class Connection implements Disposable {
  readonly #kube: Pick<Kube, "exec">;
  readonly #target: Target;
  readonly #command: Command;
  readonly #executionId: string;
  readonly #images: Images;
  readonly #tty: boolean;
  readonly #abort = new AbortController();
  #attempt: Attempt;
  /** What a second try would have to be sent again; undefined when there will be none. */
  #sent: { chunks: Uint8Array[]; bytes: number; ended: boolean } | undefined;
  #size: { cols: number; rows: number } | undefined;
  #open: ExecChannel | undefined;

  constructor(
    kube: Pick<Kube, "exec">,
    target: Target,
    { command, executionId, tty }: { command: Command; executionId: string; tty: boolean },
    images: Images,
  ) {
    this.#kube = kube;
    this.#target = target;
    this.#command = command;
    this.#executionId = executionId;
    this.#images = images;
    this.#tty = tty;
    const { plain } = command;
    const shell = images.shell.get(target.place);
    if (plain !== undefined && shell === undefined) this.#sent = { chunks: [], bytes: 0, ended: false };
    this.#attempt =
      plain !== undefined && shell === false
        ? this.#try("plain", plain)
        : tty && images.stty.get(target.place) === false
          ? this.#try("in-url", command.inUrl(executionId))
          : this.#try("wrapped", command.wrapped(executionId));
  }

  /** Whether the processes carry the execution's mark, without which they cannot be found again. */
  get isWrapped(): boolean {
    return this.#attempt.way !== "plain";
  }

  /** Settles when the handshake is over: true when the command was started. */
  async started(): Promise<boolean> {
    return this.#attempt.channel.then(
      () => true,
      () => false,
    );
  }

  /**
   * Output in order of arrival; returns the exit code, undefined when nothing was run. Throws KubeError when there is no
   * code: refused, lost, not started.
   */
  async *run(): AsyncGenerator<Output, number | undefined> {
    for (;;) {
      const attempt = this.#attempt;
      let next: Attempt | undefined;
      try {
        const end = yield* this.#follow(attempt);
        if (end !== "no-stty") return end === "not-run" ? undefined : end.code;
        this.#images.stty.learn(this.#target.place, false);
        next = this.#try("in-url", this.#command.inUrl(this.#executionId));
      } catch (error) {
        const { plain } = this.#command;
        if (attempt.way === "plain" || !saysNoShell(error)) throw error;
        this.#images.shell.learn(this.#target.place, false);
        if (plain === undefined || this.#sent === undefined) throw error;
        next = this.#try("plain", plain, this.#sent);
      } finally {
        attempt.replaced.resolve(next !== undefined);
        if (next === undefined) attempt.writable.reject(new KubeError(0, "", "the execution has ended"));
        else attempt.writable.resolve(next.writable.promise);
      }
      this.#attempt = next;
    }
  }

  /** Resolves when the process' side has room for more. Rejects when the connection is over. */
  async write(data: Uint8Array): Promise<void> {
    const attempt = this.#attempt;
    if (this.#sent !== undefined) {
      this.#sent.bytes += data.length;
      if (this.#sent.bytes > REPLAY_BYTES) this.#sent = undefined;
      else this.#sent.chunks.push(data);
    }
    try {
      await (await attempt.writable.promise).write(data);
    } catch (error) {
      if (!(await attempt.replaced.promise)) throw error;
    }
  }

  async end(): Promise<void> {
    if (this.#sent !== undefined) this.#sent.ended = true;
    (await this.#attempt.writable.promise).end();
  }

  /** The newest size wins; one that comes before the terminal is there is applied as soon as it is. */
  resize(cols: number, rows: number): void {
    this.#size = { cols, rows };
    this.#open?.resize(cols, rows);
  }

  /** Drops the connection, or the attempt at one; output that was on its way is lost. */
  close(): void {
    this.#abort.abort(new KubeError(0, "", "the execution was ended"));
    this.#open?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #try(way: Way, { argv, lines }: Wrapped, replay = this.#noInput): Attempt {
    const { pod, container } = this.#target;
    const options = { container, command: argv, stdin: true, tty: this.#tty, stderr: !this.#tty };
    const channel = this.#kube.exec(pod, { ...options, signal: this.#abort.signal }).then((open) => {
      this.#open = open;
      if (this.#size !== undefined) open.resize(this.#size.cols, this.#size.rows);
      return open;
    });
    const attempt = {
      way,
      lines,
      channel,
      writable: Promise.withResolvers<ExecChannel>(),
      replaced: Promise.withResolvers<boolean>(),
    };
    attempt.writable.promise.catch(() => undefined); // whoever awaits it is told; nobody may be waiting
    void channel.then(
      async (open) => {
        // A terminal says first that it is ready for the lines, and then when the caller's input may follow.
        if (lines !== "" && this.#tty) return;
        try {
          if (lines !== "") await handOver(open, lines);
          for (const chunk of replay.chunks) await open.write(chunk);
          if (replay.ended) open.end();
        } catch {
          open.close(); // its outcome tells why
        }
        attempt.writable.resolve(open);
      },
      () => undefined, // told by run()
    );
    return attempt;
  }

  readonly #noInput = { chunks: [] as Uint8Array[], ended: false };

  /** Follows one try to its end. Throws KubeError when the cluster does not tell it. */
  async *#follow(attempt: Attempt): AsyncGenerator<Output, End> {
    const channel = await attempt.channel;
    const heard = new Heard(this.#abort.signal);
    const hold = new Hold(this.#kube, this.#target, this.#executionId, this.#abort.signal);
    if (attempt.way !== "plain") void channel.slow.then(() => hold.take());
    const streams = { stdout: new Marks(this.#executionId), stderr: new Marks(this.#executionId) };
    const outputs = channel.output()[Symbol.asyncIterator]();
    for (;;) {
      const step = await heard.orOverdue(outputs.next());
      if (step === undefined) return heard.end();
      if (step.done) break;
      const { stream, data } = step.value;
      if (attempt.way === "plain") {
        yield step.value;
        continue;
      }
      this.#shellSeen(attempt);
      for (const piece of streams[stream].pieces(data))
        if ("data" in piece) yield { stream, data: piece.data };
        else {
          heard.word(piece.word);
          if (heard.isWhole) hold.release();
          this.#answer(piece.word, attempt, channel);
        }
    }
    for (const stream of ["stdout", "stderr"] as const)
      for (const piece of streams[stream].end()) if ("data" in piece) yield { stream, data: piece.data };
    const code = await channel.exitCode;
    this.#shellSeen(attempt);
    // API servers drop the rest of the output when it is taken slowly and the command has ended, and still tell its status.
    if (attempt.way !== "plain" && !heard.isWhole && code <= LAST_OWN_CODE)
      throw new KubeError(0, "", "the cluster told the exit status, but not all output");
    return heard.end(code);
  }

  /** Takes a terminal through the hand-over. */
  #answer(word: Word, attempt: Attempt, channel: ExecChannel): void {
    if (word === "go") attempt.writable.resolve(channel);
    if (word === "ready") handOver(channel, attempt.lines).catch(() => channel.close());
  }

  #shellSeen({ way }: Attempt): void {
    if (way === "plain") return;
    this.#images.shell.learn(this.#target.place, true);
    this.#sent = undefined;
  }
}

/** The runtime's answer when the program of an exec is not there; it names /bin/sh when that is what it lacks. */
export const saysNoShell = (error: unknown): boolean =>
  error instanceof KubeError && /exec.*\/bin\/sh.*(no such file or directory|not found)/s.test(error.message);

async function handOver(channel: ExecChannel, lines: string): Promise<void> {
  if (lines.includes("\0")) throw new Error("no program can be given a NUL character");
  await channel.write(Buffer.from(lines));
}
