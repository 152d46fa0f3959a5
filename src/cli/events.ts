import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type RunnerEventData, StreamEventsResponseSchema } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { boundedSignal } from "../time.ts";
import { CALL_MS, connect } from "./connection.ts";
import { Failure } from "./failure.ts";
import type { Invocation } from "./invocation.ts";
import { printJson } from "./json.ts";
import { print, printable } from "./output.ts";
import { sinceDate } from "./values.ts";
import { workloadId } from "./workload.ts";

/**
 * Kubernetes' Events about the runner's objects, or one workload's Pod: those of the past, then live ones. The API does not tell where
 * the past ends, so the stream has no end of its own: it is ended by --for, by a failure, or by who reads it.
 */
export async function events(invocation: Invocation): Promise<number> {
  const since = sinceDate(invocation);
  const forMs = invocation.durationMs("for");
  const [word] = invocation.operands;
  using connection = await connect(invocation, CALL_MS);
  const names = word === undefined ? [] : [`workload-${await workloadId(word, connection)}`];
  const filters = [
    { key: "involvedObject.name", values: names },
    { key: "reason", values: [...invocation.texts("reason")] },
    { key: "type", values: [...invocation.texts("type")] },
  ]; // a filter without values holds always
  const request = { filters, since: BigInt(Math.floor((since?.getTime() ?? 0) / 1000)) };
  using bound = boundedSignal(forMs ?? Number.POSITIVE_INFINITY);
  try {
    for await (const response of connection.client.streamEvents(request, { signal: bound.signal })) {
      if (invocation.on("json")) await printJson(StreamEventsResponseSchema, response);
      else if (response.event.case === "data") await print(line(response.event.value));
      if (response.event.case === "error")
        throw new Failure(`${response.event.value.code}: ${response.event.value.message}`);
    }
  } catch (error) {
    if (bound.timedOut && !(error instanceof Failure)) return 0;
    throw error;
  }
  throw new Failure("the runner ended the stream");
}

/** Time, type, reason, object and message. */
function line({ json, ts }: RunnerEventData): string {
  const event: unknown = JSON.parse(json);
  const object = at(event, "involvedObject");
  const name = `${text(object, "kind").toLowerCase()}/${text(object, "name")}`;
  const time =
    ts === undefined
      ? "-"
      : timestampDate(ts)
          .toISOString()
          .replace(/\.\d+Z$/, "Z");
  const words = [time, text(event, "type"), text(event, "reason"), name, text(event, "message")];
  return `${words.map(printable).join("  ")}\n`;
}

/** The JSON is the API server's and not ours: what is not as expected is shown as nothing. */
const at = (value: unknown, key: string): unknown =>
  typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;

function text(value: unknown, key: string): string {
  const found = at(value, key);
  return typeof found === "string" ? found : "-";
}
