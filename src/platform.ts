import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Config } from "./config.ts";
import { catalogReportOf, reportCatalog } from "./gateway/catalog.ts";
import { Gateway } from "./gateway/client.ts";
import { enroll, parsedIdentity } from "./gateway/enroll.ts";
import { StateReporter, type StateReports } from "./gateway/report.ts";
import type { PlatformSettings } from "./gateway/settings.ts";
import { errorText, type Log } from "./log.ts";
import type { RunningServer } from "./server.ts";
import type { PodChanges } from "./watcher.ts";
import { Companion, companionProgram } from "./ziti.ts";

/** Time for the last reports to be delivered when the runner ends. */
const FLUSH_MS = 2_000;
/** Where a private directory can be made even though the root file system is read-only: /dev/shm is every container's. */
const TEMPORARY = () => [tmpdir(), "/dev/shm"];

export interface PlatformOptions {
  readonly settings: PlatformSettings;
  readonly config: Pick<Config, "catalog" | "docker">;
  readonly pods: PodChanges;
  readonly server: Pick<RunningServer, "listenOnSocket">;
  readonly log: Log;
}

/**
 * The runner's place in the platform (process.md 3.1, steps 7 to 14): enrolls, reports the catalog, serves on OpenZiti
 * and reports states. Begun at once and in the background; the port serves from before.
 */
export class PlatformLink {
  /** Resolves with the cause when the runner cannot join, or is out again: the process must end then. */
  readonly failed: Promise<Error>;
  readonly #options: PlatformOptions;
  readonly #gateway: Gateway;
  readonly #failed = Promise.withResolvers<Error>();
  readonly #leaving = new AbortController();
  readonly #over = new AbortController();
  readonly #joined: Promise<Error | undefined>;
  #reporter: StateReporter | undefined;
  #companion: Companion | undefined;
  #directory: string | undefined;

  constructor(options: PlatformOptions) {
    this.#options = options;
    this.failed = this.#failed.promise;
    const { gatewayAddress: address, gatewayTls: tls, serviceToken: token } = options.settings;
    this.#gateway = new Gateway({ address, tls, token });
    this.#joined = this.#join().then(
      () => undefined,
      (error: unknown) => {
        const failure = error instanceof Error ? error : new Error(String(error));
        this.#failed.resolve(failure);
        return failure;
      },
    );
  }

  /** What became of state reports; undefined while none are made. */
  get reports(): StateReports | undefined {
    return this.#reporter;
  }

  /** Takes no new connections from OpenZiti, and begins nothing new. */
  leave(): void {
    this.#leaving.abort(new Error("the runner is shutting down"));
    this.#companion?.unbind();
  }

  /** Ends all of it, with the last reports sent if they can be. Resolves with why it had not joined, if it had not. */
  async close(): Promise<Error | undefined> {
    this.leave();
    const failure = await this.#joined;
    await this.#reporter?.flush(FLUSH_MS);
    this.#over.abort(new Error("the runner has ended"));
    await this.#companion?.end();
    this.#gateway.close();
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true, force: true });
    return failure;
  }

  async #join(): Promise<void> {
    const { settings, config, pods, log } = this.#options;
    const { signal } = this.#leaving;
    const program = companionProgram(settings.companion); // before an enrollment, which ends the one before it
    const retries = { timeoutMs: settings.enrollmentTimeoutMs, signal, log };
    const { identity, service } = await enroll(this.#gateway, retries);
    await reportCatalog(this.#gateway, catalogReportOf(config.catalog, config.docker), retries);
    if (signal.aborted) return;
    const parsed = parsedIdentity(identity);
    const socketPath = await this.#listen(service);
    if (signal.aborted) return;
    this.#companion = new Companion({ program, identity: parsed, service, socketPath, log });
    void this.#companion.failed.then((failure) => this.#failed.resolve(failure));
    void this.#companion.bound.then(() => {
      if (signal.aborted) return;
      this.#reporter = new StateReporter({ pods, gateway: this.#gateway, log });
      void this.#reporter.run(this.#over.signal);
    });
  }

  /** The socket that OpenZiti's connections come through: in a directory that is ours alone. */
  async #listen(service: string): Promise<string> {
    const { settings, server } = this.#options;
    try {
      this.#directory = privateDirectory(settings.socketDir === undefined ? TEMPORARY() : [settings.socketDir]);
      const path = join(this.#directory, "ziti.sock");
      await server.listenOnSocket(path);
      return path;
    } catch (error) {
      throw new Error(`listen on ziti service ${service}: ${errorText(error)}`);
    }
  }
}

/** A new directory of mode 0700 in the first of these that takes one. */
function privateDirectory(parents: readonly string[]): string {
  const problems: string[] = [];
  for (const parent of parents) {
    try {
      return mkdtempSync(join(parent, "k8s-runner-"));
    } catch (error) {
      problems.push(errorText(error));
    }
  }
  throw new Error(`${problems.join("; ")}: mount an emptyDir and name it in ZITI_SOCKET_DIR`);
}
