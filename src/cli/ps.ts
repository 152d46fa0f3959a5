import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  ContainerRole,
  ContainerStatus,
  type InspectWorkloadResponse,
  InspectWorkloadResponseSchema,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { CALL_MS, type Connection, connect } from "./connection.ts";
import type { Invocation } from "./invocation.ts";
import { printJson } from "./json.ts";
import { age, print, table } from "./output.ts";
import { workloadStatus } from "./state.ts";
import { pairs } from "./values.ts";

/** Calls under way at a time: more would wait for each other on the runner's side anyway. */
const AT_ONCE = 16;

/** The workloads, one a line: one call for their ids, and one for the state of each. */
export async function ps(invocation: Invocation): Promise<number> {
  const labels = pairs(invocation, "label");
  using connection = await connect(invocation, invocation.durationMs("timeout") ?? CALL_MS);
  const { targetIds } = await connection.client.findWorkloadsByLabels(
    { labels, all: !invocation.on("running") },
    connection.limits(),
  );
  if (invocation.on("quiet")) {
    await print(targetIds.map((id) => `${id}\n`).join(""));
    return 0;
  }
  const found = await inspectAll(targetIds, connection);
  if (invocation.on("json")) for (const workload of found) await printJson(InspectWorkloadResponseSchema, workload);
  else
    await print(
      table(
        ["ID", "KEY", "STATUS", "UP", "IMAGES"],
        found.map((workload) => row(workload, Date.now())),
      ),
    );
  return 0;
}

/** In the order of the ids. One that has gone since its id was told is not listed. */
async function inspectAll(ids: readonly string[], connection: Connection): Promise<InspectWorkloadResponse[]> {
  const found: (InspectWorkloadResponse | undefined)[] = [];
  const left = ids.entries();
  const worker = async () => {
    for (const [index, workloadId] of left)
      found[index] = await connection.client
        .inspectWorkload({ workloadId }, connection.limits())
        .catch((error: unknown) => {
          if (ConnectError.from(error).code === Code.NotFound) return undefined;
          throw error;
        });
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return found.filter((workload) => workload !== undefined);
}

function row(workload: InspectWorkloadResponse, now: number): string[] {
  const { id, configLabels, containers } = workload;
  const main = containers.find(({ role }) => role === ContainerRole.MAIN);
  const running = main?.status === ContainerStatus.RUNNING ? main.startedAt : undefined;
  const images = [main, ...containers.filter((container) => container !== main)].map((container) => container?.image);
  return [
    id,
    configLabels.workload_key ?? "-",
    workloadStatus(workload),
    age(running && timestampDate(running), now),
    [...new Set(images)].join(" "),
  ];
}
