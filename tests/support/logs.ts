import type { MessageInitShape } from "@bufbuild/protobuf";
import type { CallOptions } from "@connectrpc/connect";
import type { StreamWorkloadLogsRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { RunnerClient } from "./runner.ts";

export type LogRequest = MessageInitShape<typeof StreamWorkloadLogsRequestSchema>;

/** The data of a log stream as it comes; throws what the RPC ends with, and for any event that is not a chunk of data. */
export async function* logChunks(
  client: RunnerClient,
  request: LogRequest,
  options?: CallOptions,
): AsyncGenerator<Uint8Array> {
  for await (const { event } of client.streamWorkloadLogs(request, options)) {
    if (event.case !== "chunk") throw new Error(`a log event of kind ${event.case}`);
    if (event.value.ts === undefined) throw new Error("a chunk without its time");
    yield event.value.data;
  }
}

/** The whole log, read to the regular end of the stream. */
export async function logText(client: RunnerClient, request: LogRequest): Promise<string> {
  return Buffer.concat(await Array.fromAsync(logChunks(client, request))).toString();
}
