import type { Log } from "../log.ts";
import type { Access } from "./access.ts";
import { eventOf, isKind, isList, type ListPage, type WatchEvent } from "./answer.ts";
import type { ExecChannel } from "./channel.ts";
import { fromStatus, isStatus, KubeError, noAnswer } from "./error.ts";
import { openExec } from "./exec.ts";
import { type Query, type RequestInfo, resourcePath, Transport } from "./request.ts";
import { linesOf, openStream } from "./stream.ts";
import type { Claim, KubeEvent, Pod, Secret } from "./types.ts";

/** A watch without a byte for so long is taken for dead: its server ends it after 25 to 30 s. */
const WATCH_IDLE_MS = 35_000;
/** Until a watch is answered; API servers do so before there is anything to tell. */
const WATCH_OPEN_MS = 10_000;

interface Call {
  signal?: AbortSignal | undefined;
}

export interface KubeOptions {
  readonly access: Access;
  readonly namespace: string;
  readonly log: Log;
  /** Called after every request, for metrics. */
  readonly onRequest?: (info: RequestInfo) => void;
  /** For tests: the bounds of requests and of silence, in ms. */
  readonly timing?: {
    requestMs?: number;
    watchIdleMs?: number;
    watchOpenMs?: number;
    pingMs?: number;
    silenceMs?: number;
  };
}

/**
 * One kind of object in the workload namespace. Every method throws KubeError, or `signal.reason` when aborted.
 * A name that no object can have is answered with NotFound, without a request.
 */
export class Collection<T> {
  readonly #transport: Transport;
  readonly #namespace: string;
  readonly #resource: string;
  readonly #kind: string;
  readonly #watchBounds: { readonly idleMs: number; readonly openMs: number };

  constructor(
    transport: Transport,
    {
      namespace,
      resource,
      kind,
      timing: { watchIdleMs = WATCH_IDLE_MS, watchOpenMs = WATCH_OPEN_MS } = {},
    }: { namespace: string; resource: string; kind: string; timing?: KubeOptions["timing"] },
  ) {
    this.#transport = transport;
    this.#namespace = namespace;
    this.#resource = resource;
    this.#kind = kind;
    this.#watchBounds = { idleMs: watchIdleMs, openMs: watchOpenMs };
  }

  async get(name: string, { signal }: Call = {}): Promise<T> {
    return this.#object(await this.#transport.json({ method: "GET", path: this.#path(name), signal }));
  }

  async create(object: T, { dryRun = false, signal }: Call & { dryRun?: boolean } = {}): Promise<T> {
    const query: Query = dryRun ? [["dryRun", "All"]] : [];
    return this.#object(
      await this.#transport.json({ method: "POST", path: this.#path(), query, body: object, signal }),
    );
  }

  /**
   * The object as answered (its deletion may take its time); undefined when the answer was a bare Status. With a `uid` it is
   * repeated when its answer was lost, for no other object can be hit: NotFound, or Conflict for another object of that
   * name, may then be the work of the first request.
   */
  async delete(
    name: string,
    {
      uid,
      resourceVersion,
      gracePeriodSeconds,
      signal,
    }: Call & { uid?: string; resourceVersion?: string; gracePeriodSeconds?: number } = {},
  ): Promise<T | undefined> {
    const body = {
      apiVersion: "v1",
      kind: "DeleteOptions",
      ...(gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds }),
      ...(uid === undefined && resourceVersion === undefined ? {} : { preconditions: { uid, resourceVersion } }),
    };
    const repeatable = uid !== undefined;
    const answer = await this.#transport.json({ method: "DELETE", path: this.#path(name), body, repeatable, signal });
    return isStatus(answer) ? undefined : this.#object(answer);
  }

  /**
   * A JSON merge patch (RFC 7386), repeated when its answer was lost. With a resourceVersion in it, a Conflict may then be
   * the work of the first request.
   */
  async patch(name: string, patch: object, { signal }: Call = {}): Promise<T> {
    const contentType = "application/merge-patch+json";
    const request = { path: this.#path(name), body: patch, contentType, repeatable: true, signal };
    return this.#object(await this.#transport.json({ method: "PATCH", ...request }));
  }

  /** One page of a consistent read: no resourceVersion is asked for, so no stale replica may answer. */
  async list({
    labelSelector,
    limit,
    continue: token,
    signal,
  }: Call & { labelSelector?: string; limit?: number; continue?: string } = {}): Promise<ListPage<T>> {
    return this.#page(given({ labelSelector, limit: limit?.toString(), continue: token }), signal);
  }

  /**
   * Everything that matches, as of one moment, in the API's order: whole or not at all, for a short list would be taken for
   * the truth (ruling 5). One whose continue token expires (410) is begun again, a few times. Throws as `list`.
   */
  async listAll({
    labelSelector,
    signal,
  }: Call & { labelSelector?: string }): Promise<{ items: T[]; version: string }> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#pages(given({ labelSelector, limit: String(PAGE) }), signal);
      } catch (error) {
        if (!(error instanceof KubeError && error.gone)) throw error;
        if (attempt === LIST_ATTEMPTS) throw noAnswer(`a list expired ${attempt} times before its end`, error);
      }
    }
  }

  /**
   * Changes after `resourceVersion`, with bookmarks, until the server ends the watch (after `timeoutSeconds`).
   * `sendInitialEvents` instead: first every object that there is, as ADDED, then a bookmark with the annotation
   * `k8s.io/initial-events-end`; servers that do not offer it refuse with 422. An ERROR event, silence, a watch that
   * outlasts `totalMs`, a line that is no event, and every other end throw KubeError.
   */
  async *watch({
    labelSelector,
    resourceVersion,
    sendInitialEvents = false,
    timeoutSeconds,
    totalMs,
    signal,
  }: Call & {
    labelSelector?: string;
    resourceVersion?: string;
    sendInitialEvents?: boolean;
    timeoutSeconds?: number;
    totalMs?: number;
  }): AsyncGenerator<WatchEvent<T>, void> {
    const query = given({
      watch: "true",
      allowWatchBookmarks: "true",
      labelSelector,
      resourceVersion,
      ...(sendInitialEvents ? { sendInitialEvents: "true", resourceVersionMatch: "NotOlderThan" } : {}),
      timeoutSeconds: timeoutSeconds?.toString(),
    });
    const request = { path: this.#path(), query, verb: "WATCH", signal, ...this.#watchBounds, totalMs };
    for await (const line of linesOf(openStream(this.#transport, request))) {
      const event = eventOf<T>(line);
      if (event === undefined) throw noAnswer(`the watch of ${this.#resource} sent something that is no event`);
      if (isStatus(event)) throw fromStatus(event, 500);
      yield event;
    }
  }

  async #pages(query: Query, signal: AbortSignal | undefined): Promise<{ items: T[]; version: string }> {
    let page = await this.#page(query, signal);
    const { items } = page;
    const version = page.metadata.resourceVersion; // all pages show the state of the first
    for (let pages = 1; page.metadata.continue; pages++) {
      if (pages === MAX_PAGES) throw new KubeError(200, "", `a list of more than ${MAX_PAGES} pages`);
      page = await this.#page([...query, ["continue", page.metadata.continue]], signal);
      for (const item of page.items) items.push(item); // one by one: the arguments of a call are limited in number
    }
    return { items, version };
  }

  async #page(query: Query, signal: AbortSignal | undefined): Promise<ListPage<T>> {
    const answer = await this.#transport.json({ method: "GET", verb: "LIST", path: this.#path(), query, signal });
    if (!isList<T>(answer, `${this.#kind}List`)) throw this.#wrong(`${this.#kind}List`);
    return answer;
  }

  #path(name?: string) {
    return resourcePath(this.#namespace, this.#resource, name);
  }

  /** Fails closed: an answer of another kind is never taken for an object. */
  #object(answer: unknown): T {
    if (!isKind<T>(answer, this.#kind)) throw this.#wrong(this.#kind);
    return answer;
  }

  #wrong(kind: string): KubeError {
    return new KubeError(200, "", `the Kubernetes API answered something that is not a ${kind}`);
  }
}

export class Kube {
  readonly namespace: string;
  readonly pods: Collection<Pod>;
  readonly claims: Collection<Claim>;
  readonly secrets: Collection<Secret>;
  readonly events: Collection<KubeEvent>;
  readonly #transport: Transport;
  readonly #timing: NonNullable<KubeOptions["timing"]>;

  constructor({ access, namespace, log, onRequest, timing = {} }: KubeOptions) {
    this.namespace = namespace;
    this.#timing = timing;
    const observe = (info: RequestInfo) => {
      log.trace(info, "kubernetes request");
      onRequest?.(info);
    };
    this.#transport = new Transport({ access, onRequest: observe, requestMs: timing.requestMs });
    const collection = <T>(resource: string, kind: string) =>
      new Collection<T>(this.#transport, { namespace, resource, kind, timing });
    this.pods = collection("pods", "Pod");
    this.claims = collection("persistentvolumeclaims", "PersistentVolumeClaim");
    this.secrets = collection("secrets", "Secret");
    this.events = collection("events", "Event");
  }

  /**
   * The container's log in pieces of 64 KiB at most, each of which is gone when the next is asked for. Throws KubeError when it is
   * refused or the connection is lost, never a silent end. But a log that the API server loses between itself and the kubelet ends
   * like a complete one: with `follow`, look whether the container still runs.
   */
  log(
    pod: string,
    {
      container,
      follow,
      timestamps,
      tailLines,
      sinceTime,
      signal,
    }: Call & { container: string; follow?: boolean; timestamps?: boolean; tailLines?: number; sinceTime?: string },
  ): AsyncGenerator<Uint8Array> {
    const query = given({
      container,
      follow: follow ? "true" : undefined,
      timestamps: timestamps ? "true" : undefined,
      tailLines: tailLines?.toString(),
      sinceTime,
    });
    return openStream(this.#transport, {
      path: resourcePath(this.namespace, "pods", pod, "log"),
      query,
      verb: "GET",
      signal,
      short: !follow,
      gatherMs: follow ? LOG_GATHER_MS : Number.POSITIVE_INFINITY,
    });
  }

  /**
   * Starts a command in a running container. Resolves when the channel is open. Throws KubeError, before anything was
   * started, when the API server refuses; with status 0 when the connection is lost in between, and nobody knows.
   */
  async exec(
    pod: string,
    options: {
      container: string;
      command: readonly string[];
      stdin?: boolean;
      tty?: boolean;
      stderr?: boolean;
      signal: AbortSignal;
    },
  ): Promise<ExecChannel> {
    const path = resourcePath(this.namespace, "pods", pod, "exec");
    return openExec(this.#transport, { path, ...options, ...this.#timing });
  }
}

function given(parameters: Record<string, string | undefined>): Query {
  return Object.entries(parameters).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
}

/** What a reader of a log does not notice. */
const LOG_GATHER_MS = 5;

/** Items a page: about a mebibyte of Pods. */
const PAGE = 500;
/** More are an attack or a mistake: a million objects. */
const MAX_PAGES = 2_000;
/** How often a list is begun before it is given up: a cluster where tokens expire that fast cannot be listed. */
const LIST_ATTEMPTS = 3;
