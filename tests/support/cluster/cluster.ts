/**
 * A Kubernetes of one node in this process, for the tests and the demo: the part of the API that k8s-runner uses, over TLS,
 * with containers that are local processes. It words its answers as a kube-apiserver 1.34 does; the same end-to-end files
 * run on a real cluster, so that it cannot drift from one.
 */
import { randomInt } from "node:crypto";
import { mkdtempSync, realpathSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Access as ClusterAccess } from "../../../src/kube/access.ts";
import { Access, type Attributes } from "./access.ts";
import { claimRules, eventRules, runControllers, secretRules } from "./claims.ts";
import { Collection } from "./collections.ts";
import type { RunningContainer } from "./container.ts";
import { execOptions, requireUpgrade, serveExec } from "./exec.ts";
import { Kubelet } from "./kubelet.ts";
import { requireContainer, serveLog } from "./logs.ts";
import { sandboxKind } from "./namespaces.ts";
import { isPod, type StoredPod } from "./objects.ts";
import { numberIn, Pager } from "./paging.ts";
import { podRules } from "./pods.ts";
import { clusterAnswer, review } from "./reviews.ts";
import { attributesOf } from "./route.ts";
import type { SandboxKind } from "./sandbox.ts";
import { parseSelector } from "./selectors.ts";
import { ApiListener, type RecordedRequest, readBody, sendJson } from "./server.ts";
import { methodNotAllowed, notFound, unknownPath } from "./status.ts";
import { KINDS, type Listener, type Resource, Store } from "./store.ts";
import { tlsMaterial } from "./tls.ts";
import { beginsWithList, serveWatch } from "./watch.ts";
import { Watchdog } from "./watchdog.ts";

/** Changes a resource remembers for watches that resume. */
const HISTORY = 10_000;
const BOOKMARK_MS = 60_000;
/** How long a watch lasts that does not say, in seconds; the API server draws lots between half an hour and an hour. */
const WATCH_SECONDS = { min: 1800, max: 3600 };

export interface EmbeddedCluster extends AsyncDisposable {
  /** `https://127.0.0.1:port` */
  readonly url: string;
  readonly caPem: string;
  /** Of the runner's ServiceAccount: ruling 23's rights in `namespace`, and no others. */
  readonly token: string;
  /** Of a user who may do everything. */
  readonly adminToken: string;
  readonly namespace: string;
  /** Whether containers have namespaces of their own, or are plain processes (see sandbox.ts). */
  readonly sandbox: SandboxKind;
  /** Every request so far, in order of arrival. */
  readonly requests: readonly RecordedRequest[];
  /** As a compaction of etcd: watches and continue tokens of before are answered 410. */
  compact(): void;
  /** Takes rights from the runner, as `pods/exec get`; those that it had before and that are not named it has again. */
  deny(...rights: string[]): void;
  /** Drops every connection, as a crash does. */
  dropConnections(): void;
  /** Every change of this resource from now on, in order, as etcd has it. Returns the way to end it. */
  journal(resource: Resource, listener: Listener): () => void;
}

export async function startCluster({ namespace = "workloads", port = 0 } = {}): Promise<EmbeddedCluster> {
  // Without links in it: mounts are resolved.
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "embedded-cluster-")));
  const watchdog = new Watchdog(directory);
  const tls = tlsMaterial(Date.now());
  const kind = sandboxKind();
  const store = new Store({ historyLimit: HISTORY });
  const api = new Api(store, new Access(namespace), namespace);
  const kubelet = new Kubelet({ store, directory, kind, watchdog });
  api.kubelet = kubelet;
  const stopControllers = runControllers(store, api.collections.persistentvolumeclaims);
  const listener = new ApiListener(tls, api);
  const boundPort = await listener.listen(port);
  return {
    url: `https://127.0.0.1:${boundPort}`,
    caPem: tls.caPem,
    token: api.access.token,
    adminToken: api.access.adminToken,
    namespace,
    sandbox: kind,
    requests: listener.requests,
    compact() {
      store.compact();
      api.pager.expire();
    },
    deny(...rights) {
      api.access.denied.clear();
      for (const right of rights) api.access.denied.add(right);
    },
    dropConnections: () => listener.dropConnections(),
    journal: (resource, listener) => store.subscribe(resource, listener),
    async [Symbol.asyncDispose]() {
      await listener[Symbol.asyncDispose]();
      stopControllers();
      await kubelet[Symbol.asyncDispose]();
      await watchdog[Symbol.asyncDispose]();
    },
  };
}

/** The runner's way to the cluster; with `admin` one that may do everything. */
export function embeddedAccess(cluster: EmbeddedCluster, { admin = false } = {}): ClusterAccess {
  const authorization = `Bearer ${admin ? cluster.adminToken : cluster.token}`;
  return {
    server: new URL(cluster.url),
    source: "embedded cluster",
    namespace: cluster.namespace,
    credentials: async () => ({ headers: { authorization }, tls: { ca: cluster.caPem } }),
  };
}

const isResource = (name: string): name is Resource => Object.hasOwn(KINDS, name);

class Api {
  readonly access: Access;
  readonly pager: Pager;
  readonly collections: Record<Resource, Collection>;
  kubelet: Kubelet | undefined;
  readonly #store: Store;
  readonly #namespace: string;

  constructor(store: Store, access: Access, namespace: string) {
    this.#store = store;
    this.access = access;
    this.#namespace = namespace;
    this.pager = new Pager(store);
    const rules = { pods: podRules, persistentvolumeclaims: claimRules, secrets: secretRules, events: eventRules };
    const collection = (resource: Resource) => new Collection({ resource, store, rules: rules[resource] });
    this.collections = {
      pods: collection("pods"),
      persistentvolumeclaims: collection("persistentvolumeclaims"),
      secrets: collection("secrets"),
      events: collection("events"),
    };
  }

  async request(request: IncomingMessage, url: URL, response: ServerResponse): Promise<void> {
    const user = this.access.authenticate(request.headers.authorization);
    const reviewed = await review(request, url, { access: this.access, user });
    if (reviewed !== undefined) return sendJson(response, 201, reviewed);
    const attributes = this.#authorized(request, url);
    const answer = attributes === undefined ? plainAnswer(url.pathname) : clusterAnswer(attributes, this.#namespace);
    if (attributes === undefined || answer !== undefined) return sendJson(response, 200, answer);
    const { subresource, resource } = attributes;
    if (!isResource(resource)) throw unknownPath();
    if (subresource !== undefined) return this.#subresource(request, url, response, attributes);
    await this.#object(request, url, response, { ...attributes, resource });
  }

  upgrade(request: IncomingMessage, url: URL, socket: Socket, head: Buffer): number {
    const attributes = this.#authorized(request, url);
    if (attributes?.resource !== "pods" || attributes.subresource !== "exec") throw unknownPath();
    const { container, options, name } = this.#exec(request, url, attributes);
    void serveExec({ request, socket, head }, container, options, name);
    return 101;
  }

  #authorized(request: IncomingMessage, url: URL): Attributes | undefined {
    const user = this.access.authenticate(request.headers.authorization);
    const attributes = attributesOf(request.method ?? "GET", url);
    if (attributes === undefined) this.access.authorizePath(user, url.pathname);
    else this.access.authorize(user, attributes);
    return attributes;
  }

  async #object(
    request: IncomingMessage,
    { searchParams: query }: URL,
    response: ServerResponse,
    { verb, resource, namespace, name }: Attributes & { resource: Resource },
  ): Promise<void> {
    const collection = this.collections[resource];
    if (verb === "list") {
      const selector = parseSelector(query.get("labelSelector") ?? "");
      return sendJson(response, 200, this.pager.list({ resource, namespace, selector, query }));
    }
    if (verb === "watch") {
      const { min, max } = WATCH_SECONDS;
      return serveWatch(
        this.#store,
        {
          resource,
          namespace,
          selector: parseSelector(query.get("labelSelector") ?? ""),
          resourceVersion: query.get("resourceVersion") ?? "",
          initialEvents: beginsWithList(query),
          bookmarks: query.get("allowWatchBookmarks") === "true",
          timeoutMs: (numberIn(query, "timeoutSeconds") || randomInt(min, max)) * 1000,
          bookmarkMs: BOOKMARK_MS,
        },
        response,
      );
    }
    if (namespace === undefined) throw methodNotAllowed();
    const body = await readBody(request);
    const call = { namespace, query, manager: (request.headers["user-agent"] ?? "unknown").split("/")[0] ?? "unknown" };
    if (verb === "create" && name === undefined) return sendJson(response, 201, collection.create(body, call));
    if (name === undefined) throw methodNotAllowed();
    if (verb === "get") return sendJson(response, 200, collection.get(namespace, name));
    if (verb === "patch") return sendJson(response, 200, collection.patch(name, body, call));
    if (verb === "delete") return sendJson(response, 200, collection.delete(name, body, call));
    throw methodNotAllowed();
  }

  async #subresource(
    request: IncomingMessage,
    url: URL,
    response: ServerResponse,
    attributes: Attributes,
  ): Promise<void> {
    const { resource, subresource } = attributes;
    if (resource !== "pods") throw unknownPath();
    if (subresource === "exec") {
      this.#exec(request, url, attributes); // throws: without the upgrade there is nothing to answer
      return;
    }
    if (subresource === "status" && request.method === "PATCH") {
      const { name = "", namespace = "" } = attributes;
      const call = { namespace, query: url.searchParams, manager: "status" };
      return sendJson(response, 200, this.collections.pods.patchStatus(name, await readBody(request), call));
    }
    if (subresource !== "log" || request.method !== "GET") throw unknownPath();
    const pod = this.#pod(attributes);
    const container = this.kubelet?.container(pod, requireContainer(pod, url.searchParams));
    await serveLog(pod, container, url.searchParams, response);
  }

  #exec(request: IncomingMessage, url: URL, attributes: Attributes) {
    const pod = this.#pod(attributes);
    const name = requireContainer(pod, url.searchParams);
    requireUpgrade(request);
    const container: RunningContainer | undefined = this.kubelet?.container(pod, name);
    return { container, options: execOptions(url.searchParams), name };
  }

  #pod({ namespace = "", name = "" }: Attributes): StoredPod {
    const pod = this.#store.get("pods", namespace, name);
    if (!isPod(pod)) throw notFound("pods", name);
    return pod;
  }
}

/** What is asked of a server in general. */
function plainAnswer(path: string): object {
  if (path === "/version")
    return { major: "1", minor: "34", gitVersion: "v1.34.4-embedded", platform: process.platform };
  if (path === "/readyz" || path === "/livez" || path === "/healthz") return { status: "ok" };
  if (path === "/api") return { kind: "APIVersions", versions: ["v1"] };
  throw unknownPath();
}
