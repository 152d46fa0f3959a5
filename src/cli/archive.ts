import { lstatSync, readdirSync, readFileSync, readlinkSync, type Stats } from "node:fs";
import { join } from "node:path";
import { Header } from "tar/header";
import { Pax } from "tar/pax";
import { Failure } from "./failure.ts";

const BLOCK = 512;
/** What an entry adds to its data at most: header, padding, and a long name's own entry. */
const OVERHEAD = 4 * BLOCK;

/** One member of an archive to be made. */
export interface Member {
  /** The file on this machine. */
  readonly source: string;
  /** Its path in the archive. */
  readonly name: string;
  readonly stats: Stats;
}

/**
 * A file, link or directory with all that is below it, parents first; `name` is the first one's path in the archive, empty for a
 * directory whose contents alone are meant. Throws Failure for what no archive of ours can hold.
 */
export function* membersOf(source: string, name: string): Generator<Member> {
  const stats = lstatSync(source);
  if (!stats.isFile() && !stats.isDirectory() && !stats.isSymbolicLink())
    throw new Failure(`${source} is neither a file nor a directory nor a symbolic link`);
  if (name !== "") yield { source, name, stats };
  if (!stats.isDirectory()) return;
  for (const entry of readdirSync(source).sort())
    yield* membersOf(join(source, entry), name === "" ? entry : `${name}/${entry}`);
}

/** Bytes that the member takes in an archive, at most. */
export const sizeOf = ({ stats }: Member): number => OVERHEAD + (stats.isFile() ? stats.size : 0);

/** The members as one tar archive: modes and times as they are, owned by whoever unpacks it. Throws Failure. */
export function archiveOf(members: readonly Member[]): Uint8Array {
  return Buffer.concat([...members.flatMap(entryOf), Buffer.alloc(2 * BLOCK)]);
}

/** A file of these bytes as the one member of an archive. */
export function archiveOfBytes(name: string, data: Uint8Array): Uint8Array {
  return Buffer.concat([
    ...entry({ path: name, type: "File", mode: 0o600, mtime: new Date() }, data),
    Buffer.alloc(2 * BLOCK),
  ]);
}

function entryOf({ source, name, stats }: Member): Uint8Array[] {
  const about = { path: name, mode: stats.mode & 0o7777, mtime: stats.mtime };
  if (stats.isDirectory()) return entry({ ...about, path: `${name}/`, type: "Directory" });
  if (stats.isSymbolicLink()) return entry({ ...about, type: "SymbolicLink", linkpath: readlinkSync(source) });
  const data = readFileSync(source);
  if (data.length !== stats.size) throw new Failure(`${source} changed while it was read`);
  return entry({ ...about, type: "File" }, data);
}

interface About {
  readonly path: string;
  readonly type: "File" | "Directory" | "SymbolicLink";
  readonly mode: number;
  readonly mtime: Date;
  readonly linkpath?: string;
}

function entry(about: About, data: Uint8Array = new Uint8Array()): Uint8Array[] {
  const header = new Header({ ...about, size: data.length, uid: 0, gid: 0 });
  const long = header.encode();
  const { path, linkpath } = about;
  const pax = long
    ? [new Pax({ path, size: data.length, ...(linkpath === undefined ? {} : { linkpath }) }).encode()]
    : [];
  const padding = new Uint8Array((BLOCK - (data.length % BLOCK)) % BLOCK);
  return [...pax, header.block ?? fail("a header without its block"), data, padding];
}

function fail(message: string): never {
  throw new TypeError(message);
}
