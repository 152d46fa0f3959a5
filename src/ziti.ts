import { errorText, type Log } from "./log.ts";
import { shown } from "./pod/validate.ts";
import { redact, type Secret } from "./secret.ts";
import { startTimer } from "./time.ts";

const TIMING = {
  /** It tells of a check every 30 s, which takes 20 s at most: after so long it hangs. */
  silentMs: 90_000,
  /** How long it has to end by itself, and once more when its stdin has ended: then it is killed. */
  endMs: 1_000,
};
/** Longest line that is read of it, in characters. */
const MAX_LINE = 64 * 1024;
/** What it gets of our environment: where to find proxies. Never the rest, which holds the service token. */
const PASSED_ON = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];

export interface CompanionOptions {
  /** A path, or a name to be found in PATH (`companionProgram`). */
  readonly program: string;
  /** The identity as JSON, and what in it must never be printed. */
  readonly identity: { readonly json: Secret; readonly secrets: readonly Secret[] };
  /** The OpenZiti service to bind. */
  readonly service: string;
  /** The Unix socket that takes its connections. */
  readonly socketPath: string;
  readonly log: Log;
  /** For tests. */
  readonly timing?: Partial<typeof TIMING>;
}

/** The path of the companion. Throws `create ziti context: <cause>` when there is no such program. */
export function companionProgram(program: string): string {
  const path = Bun.which(program);
  if (path === null) throw new Error(`create ziti context: no program ${program}, which ZITI_COMPANION names`);
  return path;
}

/**
 * The program that speaks OpenZiti (ziti/main.go says how): it gets the identity through stdin, binds the service and
 * passes its connections on to our Unix socket. Here it is started, watched and ended.
 */
export class Companion {
  /** Resolves once an edge router carries the service. */
  readonly bound: Promise<void>;
  /** Resolves with the cause when the service is not served any more, or never will be; not after `end`. */
  readonly failed: Promise<Error>;
  readonly #options: CompanionOptions;
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #bound = Promise.withResolvers<void>();
  readonly #failed = Promise.withResolvers<Error>();
  readonly #kill = () => this.#child.kill("SIGKILL");
  #silence: Disposable | undefined;
  #isBound = false;
  #leaving = false;
  /** Checks that failed in a row. */
  #lost = 0;

  /** Throws `create ziti context: <cause>` when it cannot be started. */
  constructor(options: CompanionOptions) {
    this.#options = options;
    this.bound = this.#bound.promise;
    this.failed = this.#failed.promise;
    this.#child = spawn(options);
    process.once("exit", this.#kill); // however this process ends, it does not stay behind
    this.#hear();
    void this.#read();
    void this.#relay();
    void this.#child.exited.then(() => this.#exited());
    quietly(this.#child.stdin.write(`${options.identity.json.reveal()}\n`));
    quietly(this.#child.stdin.flush());
  }

  /** Takes no new connections; it ends by itself when those that it has are over. */
  unbind(): void {
    this.#leaving = true;
    this.#silence?.[Symbol.dispose]();
    this.#child.kill("SIGTERM");
  }

  /** Ends it, whatever still goes through it; resolves when it is gone. */
  async end(): Promise<void> {
    this.unbind();
    const { endMs } = { ...TIMING, ...this.#options.timing };
    using _patience = startTimer(endMs, () => quietly(this.#child.stdin.end()));
    using _end = startTimer(2 * endMs, this.#kill);
    await this.#child.exited;
  }

  /** Something was heard of it: the time of its silence begins anew. */
  #hear(): void {
    this.#silence?.[Symbol.dispose]();
    if (this.#leaving) return;
    const { silentMs } = { ...TIMING, ...this.#options.timing };
    this.#silence = startTimer(silentMs, () => this.#fail(`it hangs: nothing heard of it for ${silentMs / 1000} s`));
  }

  /** Its stdout, until it ends. */
  async #read(): Promise<void> {
    try {
      for await (const line of linesOf(this.#child.stdout)) {
        this.#take(line);
        this.#hear();
      }
    } catch (error) {
      this.#fail(`its stdout: ${errorText(error)}`);
    }
  }

  #take(line: string): void {
    if (this.#leaving) return; // that it is not bound any more is our own doing
    const message = eventIn(line);
    if (message === undefined) {
      this.#fail(`it says what it should not: ${this.#safe(line).slice(0, 200)}`);
      return;
    }
    const { log, service } = this.#options;
    const { event, failures, error } = message;
    if (event === "failed") this.#failed.resolve(new Error(this.#safe(error)));
    else if (event === "bound" && !this.#isBound) {
      this.#isBound = true;
      log.info({ listener: "ziti", addr: service }, "gRPC server starting");
      this.#bound.resolve();
    } else if (event === "lost") {
      this.#lost = failures;
      log.warn({ consecutiveFailures: failures, error: this.#safe(error) }, "ziti identity check failed");
    } else if (event === "alive" && this.#lost > 0) {
      log.info({ afterFailures: this.#lost }, "ziti identity recovered");
      this.#lost = 0;
    }
  }

  /** Its stderr goes to our log: what the SDK has to say. */
  async #relay(): Promise<void> {
    try {
      for await (const line of linesOf(this.#child.stderr))
        this.#options.log.warn({ line: this.#safe(line) }, "ziti companion");
    } catch (error) {
      this.#options.log.warn({ error }, "ziti companion");
    }
  }

  #exited(): void {
    process.off("exit", this.#kill);
    this.#silence?.[Symbol.dispose]();
    if (this.#leaving) return;
    const { signalCode, exitCode } = this.#child;
    this.#fail(signalCode === null ? `it ended with status ${exitCode}` : `it was ended by ${signalCode}`);
  }

  #fail(cause: string): void {
    const before = this.#isBound ? "" : `listen on ziti service ${this.#options.service}: `;
    this.#failed.resolve(new Error(`${before}ziti companion: ${cause}`));
    if (!this.#leaving) this.#kill();
  }

  #safe(text: string): string {
    return shown(redact(text, this.#options.identity.secrets));
  }
}

/** For stdin: the program may be gone already, and then its end tells why. */
function quietly(written: number | Promise<unknown>): void {
  Promise.resolve(written).catch(() => undefined);
}

function spawn({ program, service, socketPath }: CompanionOptions): Bun.Subprocess<"pipe", "pipe", "pipe"> {
  try {
    return Bun.spawn([program, "-service", service, "-socket", socketPath], {
      env: Object.fromEntries(
        PASSED_ON.flatMap((key) => (process.env[key] === undefined ? [] : [[key, process.env[key]]])),
      ),
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
  } catch (error) {
    throw new Error(`create ziti context: start ${program}: ${errorText(error)}`);
  }
}

const EVENTS = ["bound", "alive", "lost", "failed"] as const;

/** A line of its stdout; undefined when it is none of its messages. */
function eventIn(line: string): { event: (typeof EVENTS)[number]; failures: number; error: string } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined; // the caller tells of the line
  }
  if (typeof value !== "object" || value === null || !("event" in value)) return undefined;
  const event = EVENTS.find((known) => known === value.event);
  const failures = "failures" in value && typeof value.failures === "number" ? value.failures : 0;
  const error = "error" in value && typeof value.error === "string" ? value.error : "";
  if (event === undefined || (event === "failed" && error === "")) return undefined;
  return { event, failures, error };
}

/** Lines without their ends, the last one too when it has none. Throws when one has more than 64 Ki characters. */
async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const data of stream) {
    const lines = (rest + decoder.decode(data, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
    if (rest.length > MAX_LINE) throw new Error("a line without end");
  }
  if (rest !== "") yield rest;
}
