import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { invalid, withDetail } from "../errors.ts";
import type { PutArchiveRequest } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { ExecChannel } from "../kube/channel.ts";
import { mainContainerName } from "../pod/status.ts";
import { trim } from "../pod/validate.ts";
import { findPod, nameOf } from "./find.ts";
import { annotate } from "./observe.ts";
import type { Parts } from "./parts.ts";
import { Tail } from "./tail.ts";

/** Bytes written to the channel at a time. */
const CHUNK_BYTES = 32_768;
/** What is kept of tar's words for the error. */
const WORDS_BYTES = 2048;

/** PutArchive (6.13): the payload on the stdin of `tar` in the main container. */
export async function putArchive(request: PutArchiveRequest, parts: Parts, context: HandlerContext): Promise<void> {
  const id = trim(request.workloadId);
  const path = trim(request.path);
  if (id === "" || path === "") throw invalid("workload_id_and_path_required");
  annotate(context, { workload_id: id });
  const pod = await findPod(parts, id, context.signal);
  const container = mainContainerName(pod);
  // `./` in front of what begins with a dash: tar would take it for an option.
  const directory = path.startsWith("-") ? `./${path}` : path;
  const command = ["tar", "-xf", "-", "-C", directory];
  const { signal } = context;
  let channel: ExecChannel;
  try {
    channel = await parts.kube.exec(nameOf(pod), { container, command, stdin: true, stderr: true, signal });
  } catch (error) {
    throw failed("create exec", error);
  }
  using open = channel;
  const written = write(open, request.tarPayload);
  const words = { stdout: new Tail(WORDS_BYTES), stderr: new Tail(WORDS_BYTES) };
  let cause: unknown;
  try {
    for await (const { stream, data } of open.output()) words[stream].push(data);
    const code = await open.exitCode;
    // A tar that ended well without having been given everything has not unpacked everything.
    if (code === 0) return await written;
    cause = `command terminated with exit code ${code}`;
  } catch (error) {
    cause = error;
  }
  const decoder = new TextDecoder();
  const said = [words.stderr, words.stdout]
    .map((tail) => trim(decoder.decode(tail.bytes())))
    .find((text) => text !== "");
  throw failed("put archive failed", said ?? cause);
}

async function write(channel: ExecChannel, payload: Uint8Array): Promise<void> {
  try {
    for (let at = 0; at < payload.length; at += CHUNK_BYTES)
      await channel.write(payload.subarray(at, at + CHUNK_BYTES));
    channel.end();
  } catch (error) {
    throw failed("put archive failed", error);
  }
}

function failed(prefix: string, cause: unknown): ConnectError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new ConnectError(withDetail(prefix, text), Code.Internal, undefined, undefined, cause);
}
