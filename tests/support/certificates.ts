import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TlsFiles } from "../../src/tls.ts";
import { type Authority, authority } from "./cluster/tls.ts";

const HOUR_MS = 3_600_000;

export type Pair = ReturnType<Authority["issue"]>;

/** A CA of servers and one of clients, and what each side may show. */
export function certificates() {
  const now = Date.now();
  const servers = authority("servers", now);
  const clients = authority("clients", now);
  const client = (validity = {}, of = clients) => of.issue("client", { usage: "client", ...validity });
  return {
    servers,
    clients,
    server: servers.issue("server"),
    client: client(),
    expired: client({ from: now - 2 * HOUR_MS, until: now - HOUR_MS }),
    early: client({ from: now + HOUR_MS, until: now + 2 * HOUR_MS }),
    /** Of another CA that has the same name. */
    strange: client({}, authority("clients", now)),
  };
}

/**
 * A Secret as the kubelet mounts it: the files are links into a directory that is itself a link, which is replaced when the
 * Secret changes, so that all files change at once.
 */
export class MountedSecret implements Disposable {
  readonly #path = mkdtempSync(join(tmpdir(), "secret-"));
  #version = 0;

  constructor(files: Record<string, string>) {
    this.replace(files);
    for (const name of Object.keys(files)) symlinkSync(join("..data", name), this.path(name));
  }

  path(name: string): string {
    return join(this.#path, name);
  }

  get tls(): TlsFiles {
    return { cert: this.path("tls.crt"), key: this.path("tls.key"), clientCa: this.path("ca.crt") };
  }

  replace(files: Record<string, string>): void {
    const version = `..v${++this.#version}`;
    mkdirSync(this.path(version));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(this.#path, version, name), text);
    symlinkSync(version, this.path("..data_tmp"));
    renameSync(this.path("..data_tmp"), this.path("..data"));
  }

  [Symbol.dispose](): void {
    rmSync(this.#path, { recursive: true });
  }
}

/** The data of a Secret of type kubernetes.io/tls. */
export const secretOf = ({ certPem, keyPem }: Pair, caPem: string): Record<string, string> => ({
  "tls.crt": certPem,
  "tls.key": keyPem,
  "ca.crt": caPem,
});
