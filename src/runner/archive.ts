import { randomUUID } from "node:crypto";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { invalid, withDetail } from "../errors.ts";
import type { PutArchiveRequest } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { ExecChannel } from "../kube/channel.ts";
import { releaseContent } from "../memory.ts";
import { mainContainerName } from "../pod/status.ts";
import { trim } from "../pod/validate.ts";
import { allOf } from "../source.ts";
import { saysNoShell } from "./connection.ts";
import { findPod, nameOf } from "./find.ts";
import { Marks } from "./marks.ts";
import { annotate } from "./observe.ts";
import type { Parts } from "./parts.ts";
import { Tail } from "./tail.ts";
import { archiveCommand } from "./wrapper.ts";

/** What is kept of tar's words for the error. */
const WORDS_BYTES = 2048;
/** In place of an exit code. */
const NOT_TOLD = -1;

/**
 * PutArchive (6.13): the payload on the stdin of `tar` in the main container. OK means that every byte arrived there, as
 * counted there, and that tar was content; in an image without a shell or a `dd` that counts that every byte was sent.
 */
export async function putArchive(request: PutArchiveRequest, parts: Parts, context: HandlerContext): Promise<void> {
  const id = trim(request.workloadId);
  const path = trim(request.path);
  if (id === "" || path === "") throw invalid("workload_id_and_path_required");
  annotate(context, { workload_id: id });
  const pod = await findPod(parts, id, context);
  // `./` in front of what begins with a dash: tar would take it for an option.
  const directory = path.startsWith("-") ? `./${path}` : path;
  const uploadId = randomUUID();
  const bytes = request.tarPayload.length;
  const ways = [
    { wrapped: true, command: archiveCommand(uploadId, directory, bytes) },
    { wrapped: false, command: ["tar", "-xf", "-", "-C", directory] },
  ];
  for (const { wrapped, command } of ways) {
    const options = { container: mainContainerName(pod), command, stdin: true, stderr: true, signal: context.signal };
    let channel: ExecChannel;
    try {
      channel = await parts.kube.exec(nameOf(pod), options);
    } catch (error) {
      throw failed("create exec", error);
    }
    using open = channel;
    const cause = await unpack(open, request.tarPayload, wrapped ? uploadId : undefined);
    if (cause === undefined) {
      parts.traffic.archiveBytes += bytes;
      return;
    }
    if (wrapped && saysNoShell(cause)) continue; // then nothing has run
    throw failed("put archive failed", cause);
  }
}

/**
 * Feeds tar, under the script with `uploadId` or alone; undefined when the archive is unpacked, and then the payload's memory may be
 * gone; else what went wrong, in tar's own words where it has any.
 */
export async function unpack(
  channel: ExecChannel,
  payload: Uint8Array,
  uploadId: string | undefined,
): Promise<unknown> {
  const written = channel.write(payload).then(
    () => channel.end(),
    (error: unknown) => error,
  );
  const marks = new Marks(uploadId ?? "");
  const said = { stdout: new Tail(WORDS_BYTES), stderr: new Tail(WORDS_BYTES) };
  let arrived = payload.length; // a script that cannot count says no number
  let exit: number | undefined;
  let cause: unknown;
  try {
    for await (const { stream, data } of allOf(channel))
      for (const piece of uploadId !== undefined && stream === "stdout" ? marks.pieces(data) : [{ data }]) {
        if ("data" in piece) said[stream].push(piece.data);
        else if (typeof piece.word === "object" && "arrived" in piece.word) arrived = piece.word.arrived;
        else if (typeof piece.word === "object") exit = piece.word.exit;
      }
    const status = await channel.exitCode;
    // A cluster's word alone proves nothing (docs/exec.md): the script says the end behind all else.
    const code = uploadId === undefined ? status : (exit ?? (status || NOT_TOLD));
    // A tar that ended well without having been given everything has not unpacked everything.
    if (code === 0 && arrived === payload.length) {
      const error = await written;
      if (error === undefined) releaseContent(payload);
      return error;
    }
    if (code === NOT_TOLD) cause = "the cluster told the exit status, but not all output";
    else
      cause =
        code === 0
          ? `not all of ${payload.length} bytes arrived, ${arrived} for certain`
          : `command terminated with exit code ${code}`;
  } catch (error) {
    if (saysNoShell(error)) return error;
    cause = error;
  }
  const decoder = new TextDecoder();
  const words = [said.stderr, said.stdout].map((tail) => trim(decoder.decode(tail.bytes())));
  return words.find((text) => text !== "") ?? cause;
}

function failed(prefix: string, cause: unknown): ConnectError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new ConnectError(withDetail(prefix, text), Code.Internal, undefined, undefined, cause);
}
