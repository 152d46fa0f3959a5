import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { doctorOptions } from "../../src/cli/doctor.ts";
import { parse } from "../../src/cli/parse.ts";
import { commands } from "../../src/cli/table.ts";
import { doctor } from "../../src/doctor/doctor.ts";

/** One check as `--json` tells it. */
export interface Told {
  readonly id: string;
  readonly status: "ok" | "warn" | "fail" | "skip";
  readonly seen: string;
  readonly advice?: string;
  readonly blockedBy?: string;
}

export interface Visit {
  readonly exit: number;
  readonly checks: readonly Told[];
  /** Everything that was printed. */
  readonly text: string;
  /** The check of this id. Throws when there is none. */
  of(id: string): Told;
  /** Ids of the checks that failed. */
  readonly failed: readonly string[];
}

export interface VisitOptions {
  readonly env: Readonly<Record<string, string>>;
  readonly args?: readonly string[];
  readonly signal?: AbortSignal;
  readonly patienceMs?: number;
}

/** What `k8s-runner doctor --json` says. */
export async function visit({ args = [], ...options }: VisitOptions): Promise<Visit> {
  const { exit, text } = await run({ args: ["--json", ...args], ...options });
  const { checks }: { checks: Told[] } = JSON.parse(text);
  const of = (id: string) => checks.find((check) => check.id === id) ?? fail(`no check ${id} in ${text}`);
  return { exit, checks, text, of, failed: checks.filter(({ status }) => status === "fail").map(({ id }) => id) };
}

/** `k8s-runner doctor` with these arguments: its exit status and what it printed. Throws UsageError. */
export async function run({
  env,
  args = [],
  signal,
  patienceMs,
}: VisitOptions): Promise<{ exit: number; text: string }> {
  const command = commands.find(({ name }) => name === "doctor") ?? fail("no such command");
  const invocation = parse(command, args, env);
  if (invocation === "help") throw new Error("help is not the doctor's own");
  let text = "";
  const out = (more: string) => {
    text += more;
  };
  const options = doctorOptions(invocation);
  const exit = await doctor({
    options,
    version: "0.0.0",
    env,
    out,
    signal: signal ?? new AbortController().signal,
    patienceMs,
  });
  return { exit, text };
}

export interface KubeconfigParts {
  readonly server: string;
  readonly ca?: string | undefined;
  readonly token?: string | undefined;
}

/** Files of one test file, removed with it. */
export class Files implements Disposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "doctor-"));
  #count = 0;

  write(text: string): string {
    const path = join(this.#directory, `${this.#count++}`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }

  kubeconfig({ server, ca, token }: KubeconfigParts): string {
    // Without TLS nothing is verified, and the library wants to be told so.
    const authority =
      ca === undefined ? { "insecure-skip-tls-verify": true } : { "certificate-authority-data": btoa(ca) };
    return this.write(
      JSON.stringify({
        apiVersion: "v1",
        kind: "Config",
        "current-context": "c",
        contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
        clusters: [{ name: "c", cluster: { server, ...authority } }],
        users: [{ name: "u", user: token === undefined ? {} : { token } }],
      }),
    );
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true });
  }
}

function fail(message: string): never {
  throw new Error(message);
}
