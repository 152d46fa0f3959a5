import type http from "node:http";
import type { Pod } from "../../src/kube/types.ts";
import { MANAGED_BY_LABEL, MANAGER, podName, WORKLOAD_ID_LABEL } from "../../src/pod/names.ts";
import { json, listObject, type ScriptedServer, type Seen, scriptedServer, statusObject } from "../kube/server.ts";

export interface PodOptions {
  uid?: string;
  labels?: Record<string, string>;
  claims?: string[];
  phase?: string;
  /** On top of the phase. */
  status?: NonNullable<Pod["status"]>;
  managed?: boolean;
}

/** A workload's Pod as the API server has it. */
export function workloadPod(id: string, version: string, options: PodOptions = {}): Pod {
  const { uid = `uid-${id}`, labels = {}, claims = [], phase = "Running", status = {}, managed = true } = options;
  const ours = { [MANAGED_BY_LABEL]: MANAGER, [WORKLOAD_ID_LABEL]: id };
  return {
    kind: "Pod",
    apiVersion: "v1",
    metadata: { name: podName(id), uid, resourceVersion: version, labels: { ...labels, ...(managed ? ours : {}) } },
    spec: {
      containers: [{ name: "main", image: "alpine:3.21" }],
      volumes: claims.map((claimName) => ({ name: claimName, persistentVolumeClaim: { claimName } })),
    },
    status: { phase, ...status },
  };
}

interface Event {
  readonly type: string;
  readonly object: Pod;
}

/** LIST, WATCH and GET of Pods, with a history; `intercept` may answer first. */
export class PodApi {
  readonly pods = new Map<string, Pod>();
  readonly history: Event[] = [];
  readonly watches = new Set<http.ServerResponse>();
  /** Answers in place of the API when it returns true; looked at for every request. */
  intercept: (seen: Seen, response: http.ServerResponse) => boolean = () => false;
  /** Whether changes are sent to open watches. */
  telling = true;
  version = 100;
  pageSize = Number.POSITIVE_INFINITY;
  /** Whether a watch may begin with a list (KEP-3157). */
  streaming = false;
  #server: ScriptedServer | undefined;

  async start(): Promise<ScriptedServer> {
    this.#server = await scriptedServer((seen, response) => this.#answer(seen, response));
    return this.#server;
  }

  /** Creates or changes; returns the object as stored. */
  put(id: string, options?: PodOptions): Pod {
    const pod = workloadPod(id, String(++this.version), options);
    const type = this.pods.has(podName(id)) ? "MODIFIED" : "ADDED";
    this.pods.set(podName(id), pod);
    this.#tell({ type, object: pod });
    return pod;
  }

  remove(id: string): void {
    const pod = this.pods.get(podName(id));
    if (pod === undefined) return;
    this.pods.delete(podName(id));
    this.#tell({
      type: "DELETED",
      object: { ...pod, metadata: { ...pod.metadata, resourceVersion: String(++this.version) } },
    });
  }

  bookmark(): void {
    this.send({ type: "BOOKMARK", object: { kind: "Pod", metadata: { resourceVersion: String(this.version) } } });
  }

  /** One line to every open watch. */
  send(event: object | string): void {
    for (const watch of this.watches) watch.write(typeof event === "string" ? event : `${JSON.stringify(event)}\n`);
  }

  /** Ends every open watch. */
  endWatches(how: "end" | "reset" = "end"): void {
    for (const watch of this.watches) how === "end" ? watch.end() : watch.socket?.resetAndDestroy();
  }

  /** Sends what was held back while `telling` was false. */
  tellAll(since: number): void {
    this.telling = true;
    for (const event of this.history) if (Number(event.object.metadata?.resourceVersion) > since) this.send(event);
  }

  count(verb: Verb): number {
    return (this.#server?.seen ?? []).filter((seen) => verbOf(seen) === verb).length;
  }

  #tell(event: Event): void {
    this.history.push(event);
    if (this.telling) this.send(event);
  }

  #answer(seen: Seen, response: http.ServerResponse): void {
    if (this.intercept(seen, response)) return;
    const verb = verbOf(seen);
    if (verb === "get") {
      const name = seen.path.split("/").at(-1) ?? "";
      const pod = this.pods.get(name);
      if (pod === undefined) json(response, 404, statusObject(404, "NotFound", `pods "${name}" not found`));
      else json(response, 200, pod);
    } else if (verb === "stream") this.#streamedList(response);
    else if (verb === "list") this.#list(seen, response);
    else this.#watch(seen, response);
  }

  #streamedList(response: http.ServerResponse): void {
    if (!this.streaming) {
      json(response, 422, statusObject(422, "Invalid", "sendInitialEvents: Forbidden: not enabled"));
      return;
    }
    const all = [...this.pods.values()].map((object): object => ({ type: "ADDED", object }));
    const metadata = { resourceVersion: String(this.version), annotations: { "k8s.io/initial-events-end": "true" } };
    this.#open(response, [...all, { type: "BOOKMARK", object: { kind: "Pod", metadata } }]);
  }

  #list({ query }: Seen, response: http.ServerResponse): void {
    const from = Number(query.get("continue") ?? 0);
    const all = [...this.pods.values()].map((pod) => ({ ...pod, kind: undefined, apiVersion: undefined }));
    const page = all.slice(from, from + this.pageSize);
    const token = from + page.length < all.length ? String(from + page.length) : undefined;
    json(response, 200, listObject(page, String(this.version), token));
  }

  #watch({ query }: Seen, response: http.ServerResponse): void {
    const since = Number(query.get("resourceVersion"));
    this.#open(
      response,
      this.history.filter(({ object }) => Number(object.metadata?.resourceVersion) > since),
    );
  }

  #open(response: http.ServerResponse, events: readonly object[]): void {
    response.writeHead(200, { "content-type": "application/json", "transfer-encoding": "chunked" });
    response.flushHeaders();
    this.watches.add(response);
    response.once("close", () => this.watches.delete(response));
    for (const event of events) response.write(`${JSON.stringify(event)}\n`);
  }
}

/** `stream`: a watch that begins with a list. */
type Verb = "list" | "stream" | "watch" | "get";

export function verbOf({ path, query }: Seen): Verb {
  if (query.has("sendInitialEvents")) return "stream";
  if (query.has("watch")) return "watch";
  return path.endsWith("/pods") ? "list" : "get";
}
