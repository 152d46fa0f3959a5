import type { IncomingHttpHeaders } from "node:http";
import { createContextKey } from "@connectrpc/connect";
import type { Variables } from "./variables.ts";

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

const SECOND = 1000;
const MINUTE = 60 * SECOND;

export const DEFAULT_LIMITS: Limits = {
  connections: 4_000,
  connectionsPerAddress: 500,
  streams: 10_000,
  streamsPerConnection: 2_000,
  executions: 2_000,
  executionsPerConnection: 1_000,
  logStreams: 2_000,
  logStreamsPerConnection: 1_000,
  eventStreams: 200,
  eventStreamsPerConnection: 50,
  metadataBytes: 32 * 1024,
  headerMs: 10 * SECOND,
  requestMs: 2 * MINUTE,
  responseMs: MINUTE,
  idleMs: 30 * MINUTE,
  keepaliveMs: 30 * SECOND,
  keepaliveTimeoutMs: 20 * SECOND,
};

/** The variable of each limit that is a number, with the least and the most that make sense. */
const NUMBERS = {
  connections: ["MAX_CONNECTIONS", 1, 1_000_000],
  connectionsPerAddress: ["MAX_CONNECTIONS_PER_ADDRESS", 1, 1_000_000],
  streams: ["MAX_STREAMS", 1, 1_000_000],
  streamsPerConnection: ["MAX_STREAMS_PER_CONNECTION", 1, 1_000_000],
  executions: ["MAX_EXECUTIONS", 1, 1_000_000],
  executionsPerConnection: ["MAX_EXECUTIONS_PER_CONNECTION", 1, 1_000_000],
  logStreams: ["MAX_LOG_STREAMS", 1, 1_000_000],
  logStreamsPerConnection: ["MAX_LOG_STREAMS_PER_CONNECTION", 1, 1_000_000],
  eventStreams: ["MAX_EVENT_STREAMS", 1, 1_000_000],
  eventStreamsPerConnection: ["MAX_EVENT_STREAMS_PER_CONNECTION", 1, 1_000_000],
  // No more than a header block may have on its way (frames.ts), with room for what compression saves.
  metadataBytes: ["MAX_METADATA_BYTES", 1024, 64 * 1024],
} as const satisfies Partial<Record<keyof Limits, readonly [string, number, number]>>;

/** The same for those that are times; from a second up, as they are looked at once a second. */
const TIMES = {
  headerMs: "HEADER_TIMEOUT",
  requestMs: "REQUEST_TIMEOUT",
  responseMs: "RESPONSE_TIMEOUT",
  idleMs: "IDLE_TIMEOUT",
  keepaliveMs: "KEEPALIVE_INTERVAL",
  keepaliveTimeoutMs: "KEEPALIVE_TIMEOUT",
} as const satisfies Partial<Record<keyof Limits, string>>;

/** The limits that the environment sets; those that it does not are as in DEFAULT_LIMITS. */
export function limitsFrom(variables: Variables): Limits {
  const number = (name: keyof typeof NUMBERS) => {
    const [key, least, most] = NUMBERS[name];
    return variables.wholeNumber(key, { least, most }) ?? DEFAULT_LIMITS[name];
  };
  const time = (name: keyof typeof TIMES) => variables.duration(TIMES[name], SECOND) ?? DEFAULT_LIMITS[name];
  return {
    connections: number("connections"),
    connectionsPerAddress: number("connectionsPerAddress"),
    streams: number("streams"),
    streamsPerConnection: number("streamsPerConnection"),
    executions: number("executions"),
    executionsPerConnection: number("executionsPerConnection"),
    logStreams: number("logStreams"),
    logStreamsPerConnection: number("logStreamsPerConnection"),
    eventStreams: number("eventStreams"),
    eventStreamsPerConnection: number("eventStreamsPerConnection"),
    metadataBytes: number("metadataBytes"),
    headerMs: time("headerMs"),
    requestMs: time("requestMs"),
    responseMs: time("responseMs"),
    idleMs: time("idleMs"),
    keepaliveMs: time("keepaliveMs"),
    keepaliveTimeoutMs: time("keepaliveTimeoutMs"),
  };
}

/** Everything that is refused, ended or closed for a limit; `frames` is abuse of HTTP/2 (frames.ts). */
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
export function metadataBytes(headers: IncomingHttpHeaders): number {
  let bytes = 0;
  for (const name in headers) {
    const value = headers[name];
    if (typeof value === "string") bytes += name.length + value.length;
    else for (const each of value ?? []) bytes += name.length + each.length;
  }
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
