import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join, posix, resolve } from "node:path";
import { ExecExitReason } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Connection } from "./connection.ts";
import { Execution } from "./execution.ts";
import { Failure } from "./failure.ts";
import { Unpacking } from "./unpack.ts";

/** Of what tar says on its standard error. */
const WORDS_BYTES = 2048;

/**
 * Copies a file or directory of a container to this machine, with the container's own tar, as the API has no such call: into
 * `destination` where that is a directory, else under that very name. It is unpacked beside its place and moved there when all
 * of it has come; until then nothing of it is to be seen. Throws Failure.
 */
export async function download(
  from: { readonly targetId: string; readonly path: string },
  destination: string,
  connection: Connection,
): Promise<void> {
  const path = posix.normalize(from.path);
  const contents = path === "/" || /\/\.?$/.test(from.path); // the directory's contents rather than itself
  const name = posix.basename(path);
  const into = statSync(destination, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (!into && destination.endsWith("/")) throw new Failure(`${destination} is no directory`);
  const target = resolve(into && !contents ? join(destination, name) : destination);
  const parent = into ? resolve(destination) : dirname(target);
  if (!existsSync(parent)) throw new Failure(`${parent} is no directory`);
  using staging = new Staging(parent);
  const tarArguments = contents ? ["-C", path, "."] : ["-C", posix.dirname(path), `./${name}`];
  const count = await unpack(from.targetId, ["tar", "-cf", "-", ...tarArguments], staging.path, connection);
  if (count === 0) throw new Failure("data_loss: the archive is empty");
  if (contents && !existsSync(target)) mkdirSync(target);
  move(contents ? staging.path : join(staging.path, name), target, contents);
}

/** A directory of ours for what has not wholly come; gone whenever this process can still see to it. */
class Staging implements Disposable {
  readonly path: string;
  readonly #remove = () => rmSync(this.path, { recursive: true, force: true });
  readonly #interrupt = (signal: NodeJS.Signals) => process.exit(signal === "SIGTERM" ? 143 : 130);

  constructor(parent: string) {
    this.path = mkdtempSync(join(parent, ".k8s-runner-cp-"));
    process.on("exit", this.#remove);
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, this.#interrupt);
  }

  [Symbol.dispose](): void {
    this.#remove();
    process.off("exit", this.#remove);
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, this.#interrupt);
  }
}

async function unpack(targetId: string, commandArgv: string[], into: string, connection: Connection): Promise<number> {
  const execution = new Execution(connection, {
    targetId,
    commandArgv,
    options: { separateStderr: true, exitTailBytes: 1n },
  });
  execution.endInput();
  const unpacking = new Unpacking(into);
  let words = "";
  const { reason, exitCode } = await execution.result({
    stdout: (data) => unpacking.write(data),
    stderr: async (data) => {
      words = (words + Buffer.from(data).toString()).slice(-WORDS_BYTES);
    },
  });
  if (reason !== ExecExitReason.COMPLETED)
    throw new Failure("tar could not be run in the container, or the connection to it was lost");
  if (exitCode !== 0) throw new Failure(words.trim().replaceAll("\n", "; ") || `tar ended with ${exitCode}`);
  return await unpacking.end();
}

/**
 * Puts what has come in its place: in place of a file, and into a directory that is there already. A link to a directory is taken for
 * one only where `followed`, which is at the destination itself. Throws Failure.
 */
function move(from: string, to: string, followed: boolean): void {
  const there = (followed ? statSync : lstatSync)(to, { throwIfNoEntry: false });
  const isDirectory = lstatSync(from).isDirectory();
  if (there?.isDirectory() && isDirectory)
    for (const entry of readdirSync(from)) move(join(from, entry), join(to, entry), false);
  else if (there !== undefined && there.isDirectory() !== isDirectory)
    throw new Failure(`${to} is ${isDirectory ? "no" : "a"} directory, unlike what was to take its place`);
  else renameSync(from, to);
}
