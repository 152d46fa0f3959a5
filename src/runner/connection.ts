import type { ExecChannel, Output } from "../kube/channel.ts";
import type { Kube } from "../kube/client.ts";
import { KubeError } from "../kube/error.ts";
import type { Source } from "../source.ts";
import { Hold, type Target } from "./beside.ts";
import type { Command, Wrapped } from "./command.ts";
import { type End, Heard } from "./heard.ts";
import type { Images } from "./images.ts";
import { Marks, type Word } from "./marks.ts";

/** Stdin kept for a second try in a container not yet known to have a shell; one that is sent more gets no second try. */
const REPLAY_BYTES = 65_536;
/** Above it a signal may have ended the wrapper, which then could not say a word. */
const LAST_OWN_CODE = 128;

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
  /** Whether that one sends again what was kept of the input, so that nobody else may. */
  isReplayed?: boolean;
  /** Once its channel is open. */
  followed?: Followed;
  /** Its channel, once the caller's input has followed. */
  input?: ExecChannel;
}

/** What is known of a try whose output is followed. */
interface Followed {
  readonly channel: ExecChannel;
  readonly hold: Hold;
  readonly heard: Heard;
  readonly marks: { readonly stdout: Marks; readonly stderr: Marks };
}

/**
 * One command in one container. It runs under a wrapper in the image's shell; when the cluster says that there is no shell,
 * or the wrapper that it cannot take what is handed over (then nothing has run), it is run once more in another way, if
 * there is one.
 */
export class Connection implements Source<Output>, Disposable {
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
  /** Output that has been told from a wrapper's words, and not been taken. */
  readonly #pieces: Output[] = [];
  #isOver = false;
  #exitCode: number | undefined;

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

  /** Whether the command has ended, for which see `exitCode`. */
  get isOver(): boolean {
    return this.#isOver;
  }

  take(): Output | undefined {
    const attempt = this.#attempt;
    const { followed } = attempt;
    for (;;) {
      const piece = this.#pieces.shift();
      if (piece !== undefined || this.#isOver || followed === undefined || followed.heard.isOverdue) return piece;
      const output = followed.channel.take();
      if (output === undefined || attempt.way === "plain") return output;
      this.#shellSeen(attempt);
      followed.hold.passed(output.data.length);
      if (followed.marks[output.stream].isClear(output.data)) return output;
      this.#sort(output, attempt, followed);
    }
  }

  /** Rejects with KubeError when the cluster tells no end: refused, lost, not started. */
  ready(): Promise<void> {
    const { followed } = this.#attempt;
    if (followed === undefined || followed.heard.isEnding || followed.channel.isOver) return this.#advance();
    return followed.channel.ready(); // as it is: of every piece
  }

  async #advance(): Promise<void> {
    const attempt = this.#attempt;
    try {
      const end = await this.#follow(attempt);
      if (end !== undefined) this.#ended(attempt, end);
    } catch (error) {
      this.#failed(attempt, error);
    }
  }

  /** Of the command that has ended; undefined when nothing was run. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  /** Resolves when the process' side has room for more. Rejects when the connection is over. */
  write(data: Uint8Array): Promise<void> {
    const { input } = this.#attempt;
    return input === undefined || this.#sent !== undefined ? this.#writeFirst(data) : input.write(data);
  }

  /** Of input that may have to wait, or to be sent again. */
  async #writeFirst(data: Uint8Array): Promise<void> {
    const attempt = this.#attempt;
    if (this.#sent !== undefined) {
      this.#sent.bytes += data.length;
      if (this.#sent.bytes > REPLAY_BYTES) this.#sent = undefined;
      else this.#sent.chunks.push(Buffer.from(data));
    }
    try {
      const channel = await attempt.writable.promise;
      if (attempt.isReplayed) return;
      await channel.write(data);
      attempt.input = channel;
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

  /** Whoever still waits to write is told, for nobody will ask for the end. */
  [Symbol.dispose](): void {
    this.close();
    if (!this.#isOver) this.#conclude(this.#attempt);
  }

  #try(way: Way, { argv, lines }: Wrapped, replay = this.#noInput): Attempt {
    const { pod, container } = this.#target;
    const options = { container, command: argv, stdin: true, tty: this.#tty, stderr: !this.#tty };
    const channel = this.#kube.exec(pod, { ...options, signal: this.#abort.signal }).then((open) => {
      this.#open = open;
      if (this.#size !== undefined) open.resize(this.#size.cols, this.#size.rows);
      return open;
    });
    const attempt: Attempt = {
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
      () => undefined, // told by next()
    );
    return attempt;
  }

  readonly #noInput = { chunks: [] as Uint8Array[], ended: false };

  /** Follows a try by one step; its end, once all was taken. Throws KubeError when the cluster does not tell it. */
  async #follow(attempt: Attempt): Promise<End | undefined> {
    if (attempt.followed === undefined) {
      attempt.followed = this.#begin(attempt, await attempt.channel);
      return undefined;
    }
    const { channel, heard } = attempt.followed;
    if (!channel.isOver && !heard.isOverdue) await heard.orOverdue(channel.ready());
    if (heard.isOverdue) return heard.end();
    return channel.isOver ? await this.#atEnd(attempt, attempt.followed) : undefined;
  }

  /** Tells a wrapper's words from output. */
  #sort({ stream, data }: Output, attempt: Attempt, followed: Followed): void {
    for (const piece of followed.marks[stream].pieces(data))
      if ("data" in piece) this.#pieces.push({ stream, data: piece.data });
      else this.#hear(piece.word, attempt, followed);
  }

  #begin(attempt: Attempt, channel: ExecChannel): Followed {
    const hold = new Hold(this.#kube, this.#target, this.#executionId, this.#abort.signal);
    if (attempt.way !== "plain") void channel.slow.then(() => hold.take());
    const marks = { stdout: new Marks(this.#executionId), stderr: new Marks(this.#executionId) };
    return { channel, hold, marks, heard: new Heard(this.#abort.signal) };
  }

  /** The channel is over: what was held back of its output comes first, and then how it ended. */
  async #atEnd(attempt: Attempt, { channel, heard, marks }: Followed): Promise<End | undefined> {
    for (const stream of ["stdout", "stderr"] as const)
      for (const piece of marks[stream].end()) if ("data" in piece) this.#pieces.push({ stream, data: piece.data });
    if (this.#pieces.length > 0) return undefined;
    const code = await channel.exitCode;
    this.#shellSeen(attempt);
    // API servers drop the rest of the output when it is taken slowly and the command has ended, and still tell its status.
    if (attempt.way !== "plain" && !heard.isWhole && code <= LAST_OWN_CODE)
      throw new KubeError(0, "", "the cluster told the exit status, but not all output");
    return heard.end(code);
  }

  #ended(attempt: Attempt, end: End): void {
    if (end === "no-stty") {
      this.#images.stty.learn(this.#target.place, false);
      this.#conclude(attempt, this.#try("in-url", this.#command.inUrl(this.#executionId)));
      return;
    }
    if (end !== "not-run") this.#exitCode = end.code;
    this.#conclude(attempt);
  }

  /** Tries once more where that can help; throws the error where not. */
  #failed(attempt: Attempt, error: unknown): void {
    const { plain } = this.#command;
    const lacksShell = attempt.way !== "plain" && saysNoShell(error);
    if (lacksShell) this.#images.shell.learn(this.#target.place, false);
    const sent = this.#sent;
    if (lacksShell && plain !== undefined && sent !== undefined) {
      this.#sent = undefined; // what comes from now on is sent by who brings it
      attempt.isReplayed = true;
      this.#conclude(attempt, this.#try("plain", plain, sent));
    } else {
      this.#conclude(attempt);
      throw error;
    }
  }

  /** A try is over: the next one takes its place, where there is one. */
  #conclude(attempt: Attempt, next?: Attempt): void {
    attempt.replaced.resolve(next !== undefined);
    if (next === undefined) {
      this.#isOver = true;
      attempt.writable.reject(new KubeError(0, "", "the execution has ended"));
    } else {
      attempt.writable.resolve(next.writable.promise);
      this.#attempt = next;
    }
  }

  /** A wrapper's word: of the end, or of the hand-over, through which a terminal is taken. */
  #hear(word: Word, attempt: Attempt, { channel, heard, hold }: Followed): void {
    heard.word(word);
    if (heard.isWhole) hold.release();
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
