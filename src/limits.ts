import { createContextKey } from "@connectrpc/connect";
import type { HeaderFields } from "./exchange.ts";
import { Variables } from "./variables.ts";

/** What callers may use, so that none of them takes it all; docs/limits.md tells what happens above each. */
export interface Limits {
  /** MAX_CONNECTIONS: at once, over TCP and the Unix socket together. */
  readonly connections: number;
  /** MAX_CONNECTIONS_PER_ADDRESS: at once from one address; the Unix socket has none and is not counted. */
  readonly connectionsPerAddress: number;
  /** MAX_STREAMS: HTTP/2 streams, which are calls, at once in all. */
  readonly streams: number;
  /** MAX_STREAMS_PER_CONNECTION: as clients are told by SETTINGS_MAX_CONCURRENT_STREAMS. */
  readonly streamsPerConnection: number;
  /** MAX_EXECUTIONS: calls of Exec at once in all. */
  readonly executions: number;
  /** MAX_EXECUTIONS_PER_CONNECTION. */
  readonly executionsPerConnection: number;
  /** MAX_LOG_STREAMS: calls of StreamWorkloadLogs at once in all. */
  readonly logStreams: number;
  /** MAX_LOG_STREAMS_PER_CONNECTION. */
  readonly logStreamsPerConnection: number;
  /** MAX_EVENT_STREAMS: calls of StreamEvents at once in all. */
  readonly eventStreams: number;
  /** MAX_EVENT_STREAMS_PER_CONNECTION. */
  readonly eventStreamsPerConnection: number;
  /** MAX_METADATA_BYTES: names and values of all header fields of one call. */
  readonly metadataBytes: number;
  /** HEADER_TIMEOUT in ms: from a connection's or a request's first byte to the end of its header. */
  readonly headerMs: number;
  /** REQUEST_TIMEOUT in ms: from the header of a call to the end of its only message, or its first one. */
  readonly requestMs: number;
  /** RESPONSE_TIMEOUT in ms: how long a client may take to read the rest of an answer that is complete. */
  readonly responseMs: number;
  /** IDLE_TIMEOUT in ms: an HTTP/2 connection without a call for so long is closed. */
  readonly idleMs: number;
  /** KEEPALIVE_INTERVAL in ms: an HTTP/2 connection that is silent for so long is asked by a ping. */
  readonly keepaliveMs: number;
  /** KEEPALIVE_TIMEOUT in ms: and dropped when it says nothing for so long after that. */
  readonly keepaliveTimeoutMs: number;
}

/** Times are looked at once a second. */
const LEAST_MS = 1_000;
const COUNTS = { least: 1, most: 1_000_000 };
/** No more than a header block may have on its way (http2/budget.ts). */
const METADATA_BYTES = { least: 1024, most: 64 * 1024 };

/** The limits that the environment sets. */
export const limitsFrom = (variables: Variables): Limits => ({
  connections: variables.wholeNumber("MAX_CONNECTIONS", COUNTS),
  connectionsPerAddress: variables.wholeNumber("MAX_CONNECTIONS_PER_ADDRESS", COUNTS),
  streams: variables.wholeNumber("MAX_STREAMS", COUNTS),
  streamsPerConnection: variables.wholeNumber("MAX_STREAMS_PER_CONNECTION", COUNTS),
  executions: variables.wholeNumber("MAX_EXECUTIONS", COUNTS),
  executionsPerConnection: variables.wholeNumber("MAX_EXECUTIONS_PER_CONNECTION", COUNTS),
  logStreams: variables.wholeNumber("MAX_LOG_STREAMS", COUNTS),
  logStreamsPerConnection: variables.wholeNumber("MAX_LOG_STREAMS_PER_CONNECTION", COUNTS),
  eventStreams: variables.wholeNumber("MAX_EVENT_STREAMS", COUNTS),
  eventStreamsPerConnection: variables.wholeNumber("MAX_EVENT_STREAMS_PER_CONNECTION", COUNTS),
  metadataBytes: variables.wholeNumber("MAX_METADATA_BYTES", METADATA_BYTES),
  headerMs: variables.duration("HEADER_TIMEOUT", LEAST_MS),
  requestMs: variables.duration("REQUEST_TIMEOUT", LEAST_MS),
  responseMs: variables.duration("RESPONSE_TIMEOUT", LEAST_MS),
  idleMs: variables.duration("IDLE_TIMEOUT", LEAST_MS),
  keepaliveMs: variables.duration("KEEPALIVE_INTERVAL", LEAST_MS),
  keepaliveTimeoutMs: variables.duration("KEEPALIVE_TIMEOUT", LEAST_MS),
});

export const DEFAULT_LIMITS: Limits = limitsFrom(new Variables({}));

/** Everything that is refused, ended or closed for a limit; `frames` is abuse of HTTP/2 (http2/budget.ts). */
export type LimitName = keyof Limits | "messageBytes" | "frames";

const NAMES: readonly LimitName[] = [
  ...(Object.keys(DEFAULT_LIMITS) as (keyof Limits)[]), // the keys of a constant object are its type's
  "messageBytes",
  "frames",
];

/** What is counted while it is there. */
export type Resource = "connections" | "streams" | "executions" | "logStreams" | "eventStreams";
const RESOURCES: readonly Resource[] = ["connections", "streams", "executions", "logStreams", "eventStreams"];

/** Names and values of all fields of a request's header, as they are told to handlers. */
export function metadataBytes(headers: HeaderFields): number {
  let bytes = 0;
  for (const name in headers) bytes += name.length + (headers[name]?.length ?? 0);
  return bytes;
}

/** The connection that a call came over, for limits on each: any object, the same for all calls of one connection. */
export const connectionKey = createContextKey<object | undefined>(undefined);

/** The limits, what is in use of them, and how often each was reached since the process began. */
export class Usage {
  readonly limits: Limits;
  readonly #refused = zeros(NAMES);
  readonly #current = zeros(RESOURCES);

  constructor(limits: Limits = DEFAULT_LIMITS) {
    this.limits = limits;
  }

  /** How often something was refused, ended or closed for each limit. */
  refused(): Readonly<Record<LimitName, number>> {
    return { ...this.#refused };
  }

  /** What is in use now. */
  current(): Readonly<Record<Resource, number>> {
    return { ...this.#current };
  }

  /** Notes that a limit was reached. */
  refuse(name: LimitName, count = 1): void {
    this.#refused[name] += count;
  }

  /** Takes one unless there are as many as may be; then notes that and says false. */
  take(resource: Resource): boolean {
    if (this.#current[resource] >= this.limits[resource]) {
      this.refuse(resource);
      return false;
    }
    this.#current[resource] += 1;
    return true;
  }

  /** Gives back what `take` took. */
  give(resource: Resource, count = 1): void {
    this.#current[resource] -= count;
  }
}

const zeros = <Name extends string>(names: readonly Name[]) =>
  Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>; // of all names
