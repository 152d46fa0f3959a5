import { once } from "node:events";
import { chmodSync, linkSync, mkdirSync, symlinkSync, utimesSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { Parser } from "tar/parse";
import type { ReadEntry } from "tar/read-entry";
import { Failure } from "./failure.ts";

/** Two blocks of zeros end an archive; without them it was cut, be it between two members. */
const END_BYTES = 1024;

/**
 * Unpacks an archive that is not trusted into an empty directory of ours. Nothing is written outside of it: names must be plain paths
 * below it, and links are made when all else is there, so that nothing can be written through one. Throws Failure.
 */
export class Unpacking {
  readonly #directory: string;
  readonly #parser = new Parser({ strict: true });
  readonly #failed = Promise.withResolvers<never>();
  readonly #files = new Set<string>();
  readonly #later: (() => void)[] = [];
  #work: Promise<void> = Promise.resolve();
  #writing: ReadEntry | undefined;
  #over = false;
  #tail = new Uint8Array();
  #count = 0;

  constructor(directory: string) {
    this.#directory = directory;
    this.#failed.promise.catch(() => undefined); // raced wherever something is waited for
    this.#parser.on("entry", (entry) => {
      this.#work = this.#work
        .then(() => this.#take(entry))
        .catch((error: unknown) => {
          this.#fail(error);
          entry.resume();
        });
    });
    this.#parser.on("ignoredEntry", (entry) => this.#fail(refused(entry, "is of a kind that is not known")));
    this.#parser.on("error", (error) => this.#fail(new Failure(`data_loss: ${String(error)}`, undefined, error)));
  }

  #fail(error: unknown): void {
    this.#failed.reject(error);
    this.#over = true;
    // A file that is being written gets no more, and is closed.
    this.#writing?.destroy(error);
  }

  /** Takes a piece of the archive; resolves when more may come. */
  async write(data: Uint8Array): Promise<void> {
    this.#tail = Buffer.concat([this.#tail, data]).subarray(-END_BYTES);
    const drained = this.#parser.write(Buffer.from(data)) ? Promise.resolve() : once(this.#parser, "drain");
    await Promise.race([drained, this.#failed.promise]);
  }

  /** The end of the archive: resolves with the number of members, when all of them are there. */
  async end(): Promise<number> {
    if (this.#tail.length < END_BYTES || this.#tail.some((byte) => byte !== 0))
      this.#fail(new Failure("data_loss: the archive has no end"));
    await Promise.race([this.#failed.promise, Promise.resolve()]);
    const ended = once(this.#parser, "end");
    this.#parser.end();
    await Promise.race([ended.then(() => this.#work), this.#failed.promise]);
    await Promise.race([this.#failed.promise, Promise.resolve()]);
    for (const make of this.#later.reverse()) make();
    return this.#count;
  }

  async #take(entry: ReadEntry): Promise<void> {
    const name = plain(entry, entry.path);
    const path = join(this.#directory, name);
    // Without setuid and setgid: a workload must not place a program here that runs with our rights for others.
    const [mode, mtime] = [(entry.mode ?? 0o644) & 0o777, entry.mtime ?? new Date()];
    this.#count++;
    switch (entry.type) {
      case "Directory":
        entry.resume();
        mkdirSync(path, { recursive: true, mode: 0o700 });
        if (name !== ".")
          this.#later.push(() => {
            chmodSync(path, mode);
            utimesSync(path, mtime, mtime);
          });
        return;
      case "File":
      case "OldFile":
      case "ContiguousFile":
        await this.#writeFile(entry, path, mode, mtime);
        this.#files.add(name);
        return;
      case "SymbolicLink": {
        entry.resume();
        const target = entry.linkpath ?? "";
        this.#later.push(() => symlinkSync(target, path));
        return;
      }
      case "Link": {
        entry.resume();
        const target = plain(entry, entry.linkpath ?? "");
        if (!this.#files.has(target)) throw refused(entry, `is a link to ${target}, which is no file of the archive`);
        linkSync(join(this.#directory, target), path);
        this.#files.add(name);
        return;
      }
      default:
        throw refused(entry, `is a ${entry.type}`);
    }
  }

  async #writeFile(entry: ReadEntry, path: string, mode: number, mtime: Date): Promise<void> {
    mkdirSync(join(path, ".."), { recursive: true, mode: 0o700 });
    const file = await open(path, "wx", 0o600); // never over what is there
    this.#writing = entry;
    try {
      if (this.#over) return;
      for await (const data of entry) await file.writeFile(data);
      await file.chmod(mode);
      await file.utimes(mtime, mtime);
    } finally {
      this.#writing = undefined;
      await file.close();
    }
  }
}

/** The path without `./` and empty parts; "." for the archive's root. Throws Failure for one that leaves it. */
function plain(entry: ReadEntry, path: string): string {
  if (path.startsWith("/") || path.split("/").includes("..") || path.includes("\0"))
    throw refused(entry, `leaves the destination${path === entry.path ? "" : `, by its link to ${path}`}`);
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  return parts.length === 0 ? "." : parts.join("/");
}

const refused = (entry: ReadEntry, why: string): Failure =>
  new Failure(`${JSON.stringify(entry.path)} in the archive ${why}; nothing is kept`);
