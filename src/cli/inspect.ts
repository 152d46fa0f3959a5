import { timestampDate } from "@bufbuild/protobuf/wkt";
import {
  type InspectWorkloadResponse,
  InspectWorkloadResponseSchema,
  type WorkloadContainer,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { CALL_MS, connect } from "./connection.ts";
import type { Invocation } from "./invocation.ts";
import { printJson } from "./json.ts";
import { age, print, printable, table } from "./output.ts";
import { containerStatus, roleName, workloadStatus } from "./state.ts";
import { workloadId } from "./workload.ts";

/** Everything that the runner tells of one workload. */
export async function inspect(invocation: Invocation): Promise<number> {
  const [word = ""] = invocation.operands;
  using connection = await connect(invocation, invocation.durationMs("timeout") ?? CALL_MS);
  const id = await workloadId(word, connection);
  const workload = await connection.client.inspectWorkload({ workloadId: id }, connection.limits());
  if (invocation.on("json")) await printJson(InspectWorkloadResponseSchema, workload);
  else await print(described(workload, Date.now()));
  return 0;
}

function described(workload: InspectWorkloadResponse, now: number): string {
  const { id, image, configImage, configLabels, mounts, containers } = workload;
  const labels = Object.entries(configLabels).sort(([a], [b]) => (a < b ? -1 : 1));
  const lines = [
    ["Id", id],
    ["Status", workloadStatus(workload)],
    ["Image", image === configImage ? image : `${image} (asked for as ${configImage})`],
    ...labels.map(([key, value], index) => [index === 0 ? "Labels" : "", `${key}=${value}`]),
    ...mounts.map(({ type, source, destination, readOnly }, index) => [
      index === 0 ? "Mounts" : "",
      `${destination} ${readOnly ? "ro" : "rw"}, ${type === "pvc" ? "claim" : type} ${source}`,
    ]),
  ].map(([name = "", text = ""]) => `${name.padEnd(8)}${printable(text)}\n`);
  const rows = containers.map((container) => containerRow(container, now));
  return `${lines.join("")}\n${table(["CONTAINER", "ROLE", "STATUS", "RESTARTS", "STARTED", "IMAGE"], rows)}${messages(containers)}`;
}

function containerRow(container: WorkloadContainer, now: number): string[] {
  const { name, restartCount, startedAt, image } = container;
  return [
    name,
    roleName(container),
    containerStatus(container),
    String(restartCount),
    startedAt === undefined ? "-" : `${age(timestampDate(startedAt), now)} ago`,
    image,
  ];
}

/** Kubernetes' sentences, below the table, for they are long. */
function messages(containers: readonly WorkloadContainer[]): string {
  const told = containers.filter(({ message }) => message);
  return told.map(({ name, message = "" }) => `\n${printable(name)}: ${printable(message)}\n`).join("");
}
