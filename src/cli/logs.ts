import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ContainerRole, StreamWorkloadLogsResponseSchema } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { type Connection, connect } from "./connection.ts";
import { Failure } from "./failure.ts";
import { type Invocation, UsageError } from "./invocation.ts";
import { printJson } from "./json.ts";
import { print } from "./output.ts";
import { sinceDate } from "./values.ts";
import { workloadId } from "./workload.ts";

/** The log of one container as it is, byte for byte. How it ended is told on standard error unless it ended well. */
export async function logs(invocation: Invocation): Promise<number> {
  const tailLines = invocation.count("tail") ?? 0;
  if (invocation.has("tail") && tailLines === 0) throw new UsageError("--tail: at least 1");
  const since = sinceDate(invocation);
  const [word = ""] = invocation.operands;
  using connection = await connect(invocation, invocation.durationMs("timeout") ?? 0);
  const id = await workloadId(word, connection);
  const request = {
    workloadId: id,
    containerName: invocation.text("container") ?? (await mainContainer(id, connection)),
    follow: invocation.on("follow"),
    timestamps: invocation.on("timestamps"),
    tailLines,
    ...(since && { sinceTime: timestampFromDate(since) satisfies Timestamp }),
  };
  for await (const response of connection.client.streamWorkloadLogs(request, connection.limits())) {
    if (invocation.on("json")) await printJson(StreamWorkloadLogsResponseSchema, response);
    else if (response.event.case === "chunk") await print(response.event.value.data);
    // Runners of before; this one's failures are the status of the stream.
    if (response.event.case === "error")
      throw new Failure(`${response.event.value.code}: ${response.event.value.message}`);
  }
  return 0;
}

async function mainContainer(id: string, { client, limits }: Connection): Promise<string> {
  const { containers } = await client.inspectWorkload({ workloadId: id }, limits());
  const main = containers.find(({ role }) => role === ContainerRole.MAIN);
  if (main === undefined)
    throw new Failure(`the runner tells of no main container of ${id}; name one with --container`);
  return main.name;
}
