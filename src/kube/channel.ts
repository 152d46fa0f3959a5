import { release } from "../memory.ts";
import type { Source } from "../source.ts";
import { sleep } from "../time.ts";
import { type KubeError, type KubeStatus, noAnswer } from "./error.ts";
import { outcomeOf, statusOf } from "./exec-status.ts";
import type { Transport } from "./request.ts";

/*
 * Exec over a WebSocket in the sub-protocol v5.channel.k8s.io (Kubernetes 1.30 or newer, ruling 14): the first byte of
 * every message is its channel. https://kubernetes.io/docs/reference/using-api/websockets/
 */
export const PROTOCOL = "v5.channel.k8s.io";
const [STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE] = [0, 1, 2, 3, 4, 255];

/** Proxies cut a connection that is silent for a minute or less. */
const PING_MS = 10_000;
/** A connection that answered no ping for so long, while we were listening, is lost; the next beat finds it out, within 60 s. */
const SILENCE_MS = 50_000;
/** After the status the server closes at once; one that does not is not waited for. */
const LINGER_MS = 5_000;

/** Output that waits for its reader, in bytes: above the mark the socket is paused, below the half it goes on. */
const OUTPUT_MARK = 256 * 1024;
/** A socket that was paused for so long altogether has a slow reader. */
const PATIENCE_MS = 1_000;
/** What a message costs beside its bytes: a flood of tiny ones counts too. */
const MESSAGE_COST = 128;
/** Input that waits for the network, in bytes: above the mark the writer waits, until half of it is gone. */
const INPUT_MARK = 1024 * 1024;
const INPUT_FRAME = 32 * 1024;
/** For the next message of input, of any channel: the socket masks what it is given into memory of its own, at once. */
const inputFrame = new Uint8Array(1 + INPUT_FRAME);
/** What one piece of output holds at most: what waits is joined up to it, what is larger is cut. */
const OUTPUT_FRAME = 32 * 1024;
/**
 * Output that follows a piece within this time is gathered for as long at most, unless there is so much of it that to put it
 * together costs more than another message. In ms and bytes.
 */
const GATHER_MS = 1;
const GATHER_BYTES = 8 * 1024;
/** Bun's WebSocket tells nobody when its buffer drains (1.4.5), so writers look: soon at first, then less often. */
const DRAIN_POLL_MS = { min: 1, max: 16 };
/** The kubelet keeps some MiB of input for a process that does not read, then stops answering even pings. */
const INPUT_PROOF = 64 * 1024;

export interface Output {
  readonly stream: "stdout" | "stderr";
  readonly data: Buffer;
}

/** A command that runs in a container: its output, in order of arrival. While nobody takes it, the socket is paused. */
export interface ExecChannel extends Source<Output>, Disposable {
  /**
   * The exit code (0 to 255) as the status frame told it, once the connection is over. Rejects with KubeError: status 0
   * when the connection was lost before the status, else what the cluster says, e.g. of a program that is not there;
   * with the signal's reason when that ended it.
   */
  readonly exitCode: Promise<number>;
  /** Resolves when output is taken more slowly than it comes; never when it is not. */
  readonly slow: Promise<void>;
  /** Resolves when there is room for more; rejects with KubeError when the connection is over. */
  write(data: Uint8Array): Promise<void>;
  /** End of stdin. */
  end(): void;
  /** Of the terminal, in characters; 16 bits are kept. */
  resize(columns: number, rows: number): void;
  /** Drops the connection. A command without a terminal may live on. */
  close(): void;
}

export interface ChannelOptions {
  readonly signal: AbortSignal;
  readonly pingMs?: number;
  readonly silenceMs?: number;
}

/** An open WebSocket as an ExecChannel. Made when it opens, so that no message is missed. */
export class Channel implements ExecChannel {
  readonly exitCode: Promise<number>;
  readonly slow: Promise<void>;
  readonly #tellSlow: () => void;
  #patienceMs = PATIENCE_MS;
  #pausedAt = 0;
  #patience: NodeJS.Timeout | undefined;
  readonly #settle: (result: { code: number } | { error: unknown }) => void;
  readonly #socket: WebSocket;
  readonly #transport: Transport;
  readonly #signal: AbortSignal;
  readonly #silenceMs: number;
  readonly #heartbeat: NodeJS.Timeout;
  readonly #waiting: Output[] = [];
  #waitingBytes = 0;
  /** Wakes who waits for output. */
  #wake: (() => void) | undefined;
  /** Runs while output that came soon after other waits for more of it. */
  #gathering: NodeJS.Timeout | undefined;
  /** When output was taken last. */
  #takenAt = Number.NEGATIVE_INFINITY;
  #status: { readonly at: number; readonly value: KubeStatus | undefined } | undefined;
  #failure: KubeError | undefined;
  #over = false;
  #ended = false;
  #heardAt = performance.now();
  /** Whether output came, or may have come unseen, since the last beat. */
  #active = false;
  /** Input bytes sent, and how many of them the server is proven to have taken: the last pong's payload. */
  #sent = 0;
  #taken = 0;

  constructor(
    socket: WebSocket,
    transport: Transport,
    { signal, pingMs = PING_MS, silenceMs = SILENCE_MS }: ChannelOptions,
  ) {
    this.#socket = socket;
    this.#transport = transport;
    this.#signal = signal;
    this.#silenceMs = silenceMs;
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.exitCode = promise;
    this.#settle = (result) => ("code" in result ? resolve(result.code) : reject(result.error));
    ({ promise: this.slow, resolve: this.#tellSlow } = Promise.withResolvers<void>());
    promise.catch(() => undefined); // a caller that closes early need not ask for the outcome
    socket.addEventListener("message", (event) => this.#receive(event.data));
    socket.addEventListener("pong", (event) => this.#proven(Number(Buffer.from(event.data).toString("latin1"))));
    socket.addEventListener("close", () => this.#finish());
    signal.addEventListener("abort", this.#abort, { once: true });
    this.#heartbeat = setInterval(() => this.#beat(), pingMs);
  }

  get isOver(): boolean {
    return this.#over;
  }

  take(): Output | undefined {
    const now = performance.now();
    if (!this.#isEnough(now)) return undefined;
    const next = this.#joined();
    if (next === undefined) return undefined;
    this.#takenAt = now;
    if (this.#socket.isPaused && this.#waitingBytes < OUTPUT_MARK / 2) this.#resume();
    return next;
  }

  ready(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      this.#tell(performance.now());
    });
  }

  /** Whether what waits is to be taken, and not to be gathered first. */
  #isEnough(now: number): boolean {
    return this.#over || this.#waitingBytes >= (now - this.#takenAt < GATHER_MS ? GATHER_BYTES : 1);
  }

  /** Wakes who waits, once it is enough or has been gathered for long enough. */
  #tell(now: number): void {
    if (this.#wake === undefined) return;
    if (this.#isEnough(now)) this.#tellNow();
    else if (this.#waiting.length > 0) this.#gathering ??= setTimeout(this.#tellNow, GATHER_MS);
  }

  readonly #tellNow = (): void => {
    clearTimeout(this.#gathering);
    this.#gathering = undefined;
    this.#wake?.();
    this.#wake = undefined;
  };

  /** The first that waits, and what can be joined to it. */
  #joined(): Output | undefined {
    const [first] = this.#waiting;
    if (first === undefined) return undefined;
    let count = 0;
    let bytes = 0;
    for (const { stream, data } of this.#waiting) {
      if (stream !== first.stream || bytes + data.length > OUTPUT_FRAME) break;
      count += 1;
      bytes += data.length;
    }
    this.#waitingBytes -= bytes + count * MESSAGE_COST;
    if (count === 1) return this.#waiting.shift();
    const parts = this.#waiting.splice(0, count).map(({ data }) => data);
    const data = Buffer.concat(parts, bytes);
    for (const part of parts) release(part);
    return { stream: first.stream, data };
  }

  async write(data: Uint8Array): Promise<void> {
    for (let from = 0; from < data.length; from += INPUT_FRAME) {
      const part = data.subarray(from, from + INPUT_FRAME);
      const frame = inputFrame.subarray(0, part.length + 1);
      frame[0] = STDIN;
      frame.set(part, 1);
      if (this.#over || this.#ended) throw this.#failure ?? noAnswer("stdin is closed");
      this.#socket.send(frame);
      this.#sent += part.length;
      if (this.#socket.bufferedAmount > INPUT_MARK) await this.#drained();
    }
  }

  end(): void {
    if (this.#over || this.#ended) return;
    this.#ended = true;
    this.#socket.send(Uint8Array.of(CLOSE, STDIN));
  }

  resize(columns: number, rows: number): void {
    if (this.#over) return;
    const size = JSON.stringify({ Width: columns & 0xffff, Height: rows & 0xffff });
    this.#socket.send(Uint8Array.of(RESIZE, ...Buffer.from(size)));
  }

  close(): void {
    this.#waiting.length = 0;
    this.#drop(noAnswer("the exec connection was closed by us"));
  }

  [Symbol.dispose](): void {
    this.close();
  }

  readonly #abort = () => this.close();

  #receive(message: unknown): void {
    this.#heardAt = performance.now();
    const bytes = message instanceof Buffer ? message : Buffer.from(String(message));
    const [channel] = bytes;
    if (channel === STATUS) this.#status ??= { at: this.#heardAt, value: statusOf(bytes.subarray(1)) };
    if ((channel !== STDOUT && channel !== STDERR) || bytes.length === 1 || this.#over) return;
    this.#active = true;
    const stream = channel === STDOUT ? "stdout" : "stderr";
    for (let at = 1; at < bytes.length; at += OUTPUT_FRAME) {
      const data = bytes.subarray(at, at + OUTPUT_FRAME);
      this.#waiting.push({ stream, data });
      this.#waitingBytes += data.length + MESSAGE_COST;
    }
    if (this.#waitingBytes > OUTPUT_MARK && !this.#socket.isPaused) this.#pause();
    this.#tell(this.#heardAt);
  }

  #pause(): void {
    this.#socket.pause();
    this.#pausedAt = performance.now();
    this.#patience = setTimeout(this.#tellSlow, this.#patienceMs);
  }

  #resume(): void {
    clearTimeout(this.#patience);
    this.#patienceMs = Math.max(0, this.#patienceMs - (performance.now() - this.#pausedAt));
    this.#heardAt = performance.now(); // silence while we did not listen says nothing
    this.#active = true;
    this.#socket.resume();
  }

  #proven(taken: number): void {
    this.#heardAt = performance.now();
    if (taken > this.#taken) this.#taken = taken;
  }

  /** Keeps the connection alive, and finds out when it is not. */
  #beat(): void {
    if (this.#socket.isPaused) return; // no pong could be seen
    // Output keeps it alive, too. And a ping to a server that has sent everything and closed makes it reset the connection,
    // which loses what of its output is still on the way.
    const active = this.#active;
    this.#active = false;
    if (active) return;
    const now = performance.now();
    this.#socket.ping(String(this.#sent));
    if (this.#status !== undefined && now - this.#status.at > LINGER_MS) this.#drop();
    else if (now - this.#heardAt >= this.#silenceMs) this.#suspect(now);
  }

  #suspect(now: number): void {
    const lost = noAnswer(`exec connection lost: no answer for ${this.#silenceMs} ms`);
    // A process that does not read its stdin silences the server too. Whether the API can be reached decides it then.
    if (this.#sent - this.#taken < INPUT_PROOF) this.#drop(lost);
    else {
      this.#heardAt = now;
      void this.#transport.reachable(this.#signal).then((reachable) => {
        if (!reachable) this.#drop(lost);
      });
    }
  }

  async #drained(): Promise<void> {
    for (let delayMs = DRAIN_POLL_MS.min; ; delayMs = Math.min(delayMs * 2, DRAIN_POLL_MS.max)) {
      await sleep(delayMs, this.#signal);
      if (this.#over) throw this.#failure ?? noAnswer("the exec connection is over");
      if (this.#socket.bufferedAmount <= INPUT_MARK / 2) return;
    }
  }

  #drop(failure?: KubeError): void {
    if (this.#over) return;
    this.#failure ??= failure;
    this.#socket.resume(); // a paused socket would never be closed (Bun 1.4.5)
    this.#socket.terminate();
    this.#finish();
  }

  /** The connection is over: what waits can still be read, and the outcome is known. */
  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#heartbeat);
    clearTimeout(this.#patience);
    this.#signal.removeEventListener("abort", this.#abort);
    this.#failure ??= noAnswer("exec connection lost");
    if (this.#status !== undefined) this.#settle(outcomeOf(this.#status.value));
    else this.#settle({ error: this.#signal.aborted ? this.#signal.reason : this.#failure });
    this.#tellNow();
  }
}
