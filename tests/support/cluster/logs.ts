import type { ServerResponse } from "node:http";
import type { RunningContainer } from "./container.ts";
import type { StoredPod } from "./objects.ts";
import { numberIn } from "./paging.ts";
import { badRequest } from "./status.ts";

/** The container that a query names, or the only one there is. Throws 400 in the API server's words. */
export function requireContainer(pod: StoredPod, query: URLSearchParams): string {
  const names = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].map(({ name }) => name);
  const { name } = pod.metadata;
  const container = query.get("container") ?? "";
  if (names.includes(container)) return container;
  const [first = "", ...others] = pod.spec.containers;
  if (container === "" && others.length === 0 && first !== "") return first.name;
  if (container !== "") throw badRequest(`container ${container} is not valid for pod ${name}`);
  const list = pod.spec.containers.map((each) => each.name).join(" ");
  throw badRequest(`a container name must be specified for pod ${name}, choose one of: [${list}]`);
}

/** pods/log: the lines there are, and with `follow` those to come, at the pace of the reader. */
export async function serveLog(
  pod: StoredPod,
  container: RunningContainer | undefined,
  query: URLSearchParams,
  response: ServerResponse,
): Promise<void> {
  const name = requireContainer(pod, query);
  const reason = container === undefined ? "ContainerCreating" : container.waitingReason;
  if (container === undefined || reason !== undefined)
    throw badRequest(`container "${name}" in pod "${pod.metadata.name}" is waiting to start: ${reason}`);
  const flag = (key: string) => /^(true|1)$/.test(query.get(key) ?? "");
  const over = new AbortController();
  response.on("close", () => over.abort());
  response.writeHead(200, { "content-type": "text/plain" });
  response.flushHeaders();
  const options = {
    follow: flag("follow"),
    timestamps: flag("timestamps"),
    tailLines: query.has("tailLines") ? numberIn(query, "tailLines") : undefined,
    since: sinceOf(query),
  };
  for await (const data of container.log.read(options, over.signal)) {
    if (!response.write(data)) await drained(response, over.signal);
    if (over.signal.aborted) return;
  }
  response.end();
}

function sinceOf(query: URLSearchParams): bigint | undefined {
  const seconds = query.get("sinceSeconds");
  const time = query.get("sinceTime");
  if (seconds !== null) return BigInt(Date.now() - Number(seconds) * 1000) * 1_000_000n;
  if (time === null) return undefined;
  const at = Date.parse(time);
  if (Number.isNaN(at))
    throw badRequest(`parsing time ${JSON.stringify(time)} as "2006-01-02T15:04:05Z07:00": cannot parse`);
  return BigInt(at) * 1_000_000n;
}

function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  response.once("drain", resolve);
  signal.addEventListener("abort", () => resolve(), { once: true });
  return promise;
}
