import type { ServerResponse } from "node:http";
import type { Selector } from "./selectors.ts";
import { ApiError, forbidden, invalid } from "./status.ts";
import { type Change, KINDS, type Resource, type Store } from "./store.ts";

export interface WatchOptions {
  readonly resource: Resource;
  readonly namespace: string | undefined;
  readonly selector: Selector;
  /** Empty or "0": begin with the objects there are. */
  readonly resourceVersion: string;
  /** Begin with the objects there are, and say by a bookmark where they end (KEP-3157). */
  readonly initialEvents: boolean;
  readonly bookmarks: boolean;
  /** The stream ends cleanly after this time. */
  readonly timeoutMs: number;
  /** Time between bookmarks. */
  readonly bookmarkMs: number;
}

/** A bookmark comes this long before the time-out, so that the next watch begins at a fresh version. */
const LAST_BOOKMARK_MS = 2_000;

/** Fields without `omitempty` in Go: an empty object of the kind has them all the same. */
const EMPTY: Record<Resource, object> = {
  pods: { spec: { containers: null }, status: {} },
  persistentvolumeclaims: { spec: { resources: {} }, status: {} },
  secrets: {},
  events: {
    involvedObject: {},
    source: {},
    firstTimestamp: null,
    lastTimestamp: null,
    eventTime: null,
    reportingComponent: "",
    reportingInstance: "",
  },
};

/**
 * Streams changes as lines of JSON until the time-out or the client's leaving. A version that is too old is an ERROR
 * event with code 410 on a 200 answer. Backlog beyond what the socket takes waits in its buffer: the API server would
 * close the watch of so slow a reader, and so do we, at `MAX_BACKLOG`.
 */
const MAX_BACKLOG = 64 * 1024 * 1024;

export function serveWatch(store: Store, options: WatchOptions, response: ServerResponse): void {
  const { resource, namespace, selector, resourceVersion, initialEvents } = options;
  const from = Number(resourceVersion);
  let sent = 0;
  const send = (type: string, object: unknown) => {
    response.write(`${JSON.stringify({ type, object })}\n`);
    if (response.writableLength > MAX_BACKLOG) response.destroy();
  };
  const bookmark = (annotations?: Record<string, string>) => {
    const version = Math.max(sent, store.version);
    if (version < from) return; // whoever asked for a later one is told of nothing before
    const metadata = {
      resourceVersion: String(version),
      ...(annotations ? { annotations } : {}),
    };
    send("BOOKMARK", { kind: KINDS[resource], apiVersion: "v1", metadata, ...EMPTY[resource] });
  };
  const forward = (change: Change) => {
    if (change.version <= from) return;
    sent = change.version;
    const { metadata } = change.object;
    if (namespace !== undefined && metadata.namespace !== namespace) return;
    const event = selected(change, selector);
    if (event !== undefined) send(event.type, event.object);
  };

  response.writeHead(200, { "content-type": "application/json", "cache-control": "no-cache, private" });
  response.flushHeaders();
  try {
    if (initialEvents || resourceVersion === "" || resourceVersion === "0") {
      for (const object of store.list(resource, namespace)) {
        if (selector(object.metadata.labels)) send("ADDED", object);
      }
      if (initialEvents) bookmark({ "k8s.io/initial-events-end": "true" });
    } else {
      for (const change of store.since(resource, from)) forward(change);
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    send("ERROR", error.status);
    response.end();
    return;
  }
  stream({ store, options, response, forward, bookmark });
}

function stream(o: {
  store: Store;
  options: WatchOptions;
  response: ServerResponse;
  forward: (change: Change) => void;
  bookmark: () => void;
}): void {
  const { timeoutMs, bookmarkMs, bookmarks, resource } = o.options;
  const leave = o.store.subscribe(resource, o.forward);
  const timers = [setTimeout(() => o.response.end(), timeoutMs)];
  if (bookmarks) {
    timers.push(setInterval(o.bookmark, bookmarkMs));
    if (timeoutMs > LAST_BOOKMARK_MS) timers.push(setTimeout(o.bookmark, timeoutMs - LAST_BOOKMARK_MS));
  }
  o.response.on("close", () => {
    leave();
    for (const timer of timers) clearTimeout(timer);
  });
}

/** What a watcher with this selector is told: an object that begins or ceases to match is added or deleted for it. */
function selected({ type, object, previous, version }: Change, selector: Selector) {
  const now = type !== "DELETED" && selector(object.metadata.labels);
  const before = previous !== undefined && selector(previous.metadata.labels);
  if (now) return { type: before ? "MODIFIED" : "ADDED", object };
  if (!before) return undefined;
  if (type === "DELETED") return { type, object };
  // As it was when it still matched, but with the version of the change.
  return {
    type: "DELETED",
    object: { ...previous, metadata: { ...previous.metadata, resourceVersion: String(version) } },
  };
}

/** The query of a watch: `watch=true` or `watch=1`. */
export const isWatch = (query: URLSearchParams): boolean => /^(true|1)$/.test(query.get("watch") ?? "");

/** Whether a watch is to send what there is first; throws 422 when that is not asked for as it must be. */
export function beginsWithList(query: URLSearchParams): boolean {
  const match = query.get("resourceVersionMatch");
  const asked = query.has("sendInitialEvents");
  const problem = forbidden(
    "resourceVersionMatch",
    asked
      ? "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
      : "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
  );
  if (asked ? match !== "NotOlderThan" : match !== null) throw invalid("ListOptions", "", [problem]);
  return query.get("sendInitialEvents") === "true";
}
