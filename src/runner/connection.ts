import type { ExecChannel } from "../kube/channel.ts";
import type { Kube } from "../kube/client.ts";
import { KubeError } from "../kube/error.ts";

export interface Target {
  readonly pod: string;
  readonly container: string;
  /** Tells this container from every other one, of all times. */
  readonly place: string;
}

/** Stdin kept for a second try in a container not yet known to have a shell; one that is sent more gets no second try. */
const REPLAY_BYTES = 65_536;
/** Containers remembered at most; forgetting one costs one more failed try. */
const PLACES_LIMIT = 10_000;

/**
 * Which containers have /bin/sh, learnt from how executions went. Not which images: a mount can hide the shell and a
 * workload can remove it, and no other workload may lose its marks, and so its kill, by that.
 */
export class Shells {
  readonly #known = new Map<string, boolean>();

  has(place: string): boolean | undefined {
    return this.#known.get(place);
  }

  learn(place: string, hasShell: boolean): void {
    if (this.#known.get(place) === hasShell) return;
    if (this.#known.size >= PLACES_LIMIT) this.#known.clear();
    this.#known.set(place, hasShell);
  }
}

/**
 * One command in one container. It runs marked, under the image's shell; when the cluster says that there is no shell
 * (then nothing has run) it is run once more as it was given, if it can be.
 */
export class Connection implements Disposable {
  readonly #kube: Kube;
  readonly #target: Target;
  readonly #commands: { marked: string[]; plain: string[] | undefined };
  readonly #shells: Shells;
  readonly #tty: boolean;
  readonly #abort = new AbortController();
  /** The channel to write to; replaced by the second try's. */
  #channel: Promise<ExecChannel>;
  /** What a second try would have to be sent again; undefined when there will be none. */
  #sent: { chunks: Uint8Array[]; bytes: number; ended: boolean } | undefined;
  #size: { cols: number; rows: number } | undefined;
  #open: ExecChannel | undefined;
  #marked: boolean;

  constructor(
    kube: Kube,
    target: Target,
    commands: { marked: string[]; plain: string[] | undefined },
    { shells, tty }: { shells: Shells; tty: boolean },
  ) {
    this.#kube = kube;
    this.#target = target;
    this.#commands = commands;
    this.#shells = shells;
    this.#tty = tty;
    const plain = shells.has(target.place) === false ? commands.plain : undefined;
    this.#marked = plain === undefined;
    if (this.#marked && commands.plain !== undefined && shells.has(target.place) === undefined)
      this.#sent = { chunks: [], bytes: 0, ended: false };
    this.#channel = this.#connect(plain ?? commands.marked);
  }

  /** Whether the processes carry the execution's mark, without which they cannot be found again. */
  get marked(): boolean {
    return this.#marked;
  }

  /** Settles when the handshake is over: true when the command was started. */
  async started(): Promise<boolean> {
    return this.#channel.then(
      () => true,
      () => false,
    );
  }

  /** Output in order of arrival; returns the exit code. Throws KubeError when there is none: refused, lost, not started. */
  async *run(): AsyncGenerator<{ stream: "stdout" | "stderr"; data: Uint8Array }, number> {
    try {
      const channel = await this.#channel;
      for await (const output of channel.output()) {
        this.#shellSeen();
        yield output;
      }
      const code = await channel.exitCode;
      this.#shellSeen();
      return code;
    } catch (error) {
      if (!this.#saysNoShell(error) || this.#commands.plain === undefined) throw error;
      this.#shells.learn(this.#target.place, false);
      const sent = this.#sent;
      if (sent === undefined) throw error;
      this.#marked = false;
      this.#sent = undefined;
      this.#channel = this.#connect(this.#commands.plain);
      const channel = await this.#channel;
      for (const chunk of sent.chunks) await channel.write(chunk);
      if (sent.ended) channel.end();
      yield* channel.output();
      return await channel.exitCode;
    }
  }

  /** Resolves when the process' side has room for more. Rejects when the connection is over. */
  async write(data: Uint8Array): Promise<void> {
    const channel = await this.#channel;
    if (this.#sent !== undefined) {
      this.#sent.bytes += data.length;
      if (this.#sent.bytes > REPLAY_BYTES) this.#sent = undefined;
      else this.#sent.chunks.push(data);
    }
    await channel.write(data);
  }

  async end(): Promise<void> {
    const channel = await this.#channel;
    if (this.#sent !== undefined) this.#sent.ended = true;
    channel.end();
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

  #connect(command: string[]): Promise<ExecChannel> {
    const { pod, container } = this.#target;
    const options = { container, command, stdin: true, tty: this.#tty, stderr: !this.#tty, signal: this.#abort.signal };
    const channel = this.#kube.exec(pod, options).then((open) => {
      this.#open = open;
      if (this.#size !== undefined) open.resize(this.#size.cols, this.#size.rows);
      return open;
    });
    channel.catch(() => undefined); // whoever awaits it is told; nobody may be waiting yet
    return channel;
  }

  #shellSeen(): void {
    if (this.#marked) this.#shells.learn(this.#target.place, true);
    this.#sent = undefined;
  }

  /** The runtime's answer when the program of an exec is not there; it names /bin/sh when that is what it lacks. */
  #saysNoShell(error: unknown): boolean {
    return (
      this.#marked &&
      error instanceof KubeError &&
      /exec.*\/bin\/sh.*(no such file or directory|not found)/s.test(error.message)
    );
  }
}
