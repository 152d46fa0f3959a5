import { type FileHandle, open } from "node:fs/promises";
import { basename, posix, resolve } from "node:path";
import { ExecExitReason } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { archiveOf, archiveOfBytes, type Member, membersOf, sizeOf } from "./archive.ts";
import type { Connection } from "./connection.ts";
import { Execution } from "./execution.ts";
import { Failure } from "./failure.ts";

/** Of one archive: every runner takes 4 MiB in a message. */
const ARCHIVE_BYTES = 3_500_000;

export interface Destination {
  readonly id: string;
  readonly path: string;
}

/**
 * Copies files and directories into the main container by PutArchive: into `path` where that is a directory or ends with `/`, else
 * under that very name. What is larger than a message goes in parts. Throws Failure; what was sent before is there then.
 */
export async function upload(
  sources: readonly string[],
  { id, path }: Destination,
  connection: Connection,
): Promise<void> {
  const [only] = sources;
  const into = path.endsWith("/") || sources.length > 1 || (await isDirectory(id, path, connection));
  const directory = into ? path : posix.dirname(path);
  // All of it is looked at first: what cannot be sent is told before anything was.
  const members = sources.flatMap((source) => [...membersOf(source, nameOf(source, into ? undefined : path))]);
  if (members.length === 0) throw new Failure(`${only} is empty, there is nothing to copy`);
  let batch: Member[] = [];
  let bytes = 0;
  const send = async () => {
    if (batch.length > 0) await put(archiveOf(batch), { id, path: directory }, connection);
    [batch, bytes] = [[], 0];
  };
  for (const member of members) {
    if (bytes + sizeOf(member) > ARCHIVE_BYTES) await send();
    if (sizeOf(member) > ARCHIVE_BYTES) await putInParts(member, { id, path: directory }, connection);
    else {
      batch.push(member);
      bytes += sizeOf(member);
    }
  }
  await send();
}

/** The first name in the archive: the given one's last part, or the source's own; empty for `dir/.`, its contents. */
function nameOf(source: string, path: string | undefined): string {
  if (path !== undefined) return posix.basename(path);
  return /(^|\/)\.$/.test(source) ? "" : basename(resolve(source));
}

async function put(tarPayload: Uint8Array, { id, path }: Destination, { client, limits }: Connection): Promise<void> {
  await client.putArchive({ workloadId: id, path, tarPayload }, limits());
}

/** Joins the part to what has come before it. */
const APPEND = 'cat "$1.part" >>"$1" && rm -f "$1.part"';
/** The whole file in its place, or nothing of it: $1 is where it was gathered, $2 its place, $3 its size, $4 its mode. */
const FINISH = '[ "$(wc -c <"$1")" -eq "$3" ] && chmod "$4" "$1" && mv -f "$1" "$2"';
const ABANDON = 'rm -f "$1" "$1.part"';

async function putInParts({ source, name, stats }: Member, to: Destination, connection: Connection): Promise<void> {
  const target = posix.join(to.path, name);
  const gathered = posix.join(posix.dirname(target), `.k8s-runner-cp-${crypto.randomUUID()}`);
  await using file = await open(source);
  try {
    for (let at = 0; at < stats.size; at += ARCHIVE_BYTES) {
      const data = await readAt(file, at, Math.min(ARCHIVE_BYTES, stats.size - at));
      const part = archiveOfBytes(`${posix.basename(gathered)}.part`, data);
      await put(part, { id: to.id, path: posix.dirname(target) }, connection);
      await shell(to.id, APPEND, [gathered], connection);
    }
    const mode = (stats.mode & 0o7777).toString(8);
    await shell(to.id, FINISH, [gathered, target, String(stats.size), mode], connection);
  } catch (error) {
    await shell(to.id, ABANDON, [gathered], connection).catch(() => undefined); // the first failure is the one to tell
    throw error;
  }
}

async function readAt(file: FileHandle, at: number, length: number): Promise<Uint8Array> {
  const data = new Uint8Array(length);
  for (let read = 0; read < length; ) {
    const { bytesRead } = await file.read(data, read, length - read, at + read);
    if (bytesRead === 0) throw new Failure("the file became shorter while it was read");
    read += bytesRead;
  }
  return data;
}

async function isDirectory(id: string, path: string, connection: Connection): Promise<boolean> {
  const { reason, exitCode } = await run(id, ["test", "-d", path], connection);
  if (reason !== ExecExitReason.COMPLETED || exitCode > 1)
    throw new Failure(`the container cannot tell whether ${path} is a directory; end it with / if it is`);
  return exitCode === 0;
}

async function shell(id: string, script: string, words: readonly string[], connection: Connection): Promise<void> {
  const { reason, exitCode, said } = await run(id, ["/bin/sh", "-c", script, "sh", ...words], connection);
  if (reason !== ExecExitReason.COMPLETED) throw new Failure("the container could not join the parts of a large file");
  if (exitCode !== 0) throw new Failure(said.trim() || "data_loss: a large file did not arrive whole");
}

async function run(targetId: string, commandArgv: string[], connection: Connection) {
  const options = { separateStderr: false, exitTailBytes: 1n };
  const execution = new Execution(connection, { targetId, commandArgv, options });
  execution.endInput();
  let said = "";
  const hear = async (data: Uint8Array) => {
    said = (said + Buffer.from(data).toString()).slice(-2048);
  };
  const { reason, exitCode } = await execution.result({ stdout: hear, stderr: hear });
  return { reason, exitCode, said };
}
