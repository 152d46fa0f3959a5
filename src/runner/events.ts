import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { HandlerContext } from "@connectrpc/connect";
import { unreachable } from "../errors.ts";
import type { StreamEventsRequest, StreamEventsResponseSchema } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { KubeError } from "../kube/error.ts";
import type { KubeEvent } from "../kube/types.ts";
import {
  isManaged,
  isManagedClaim,
  MANAGED_BY_LABEL,
  MANAGED_SELECTOR,
  MANAGER,
  podName,
  WORKLOAD_ID_LABEL,
} from "../pod/names.ts";
import { isWorkloadId, trim } from "../pod/validate.ts";
import { Backoff } from "../time.ts";
import { ignoreNotFound, nameOf } from "./find.ts";
import type { Parts } from "./parts.ts";

/** A watch lives this long at most, so that a dead link is found (with the idle limit of the transport). */
const WATCH_SECONDS = 28;
/** Failures in a row before the caller is told that there is no cluster to hear of. */
const ATTEMPTS = 6;
/** Watches that end at once without an event: some API servers say so that a version has expired (facts of 1.34). */
const EMPTY_WATCHES = 3;
const EMPTY_WATCH_MS = 1_000;
/** Up to so many events at once their objects are looked up one by one. */
const FEW = 3;
/** Objects whose owner is remembered, by uid. */
const OWNERS_LIMIT = 10_000;
/** Pods that are not managed (`isManaged`), as the API can be asked for them. */
const FOREIGN_SELECTORS = [`${MANAGED_BY_LABEL}!=${MANAGER}`, `${MANAGED_SELECTOR},!${WORKLOAD_ID_LABEL}`];

/**
 * StreamEvents (6.15, ruling 16): what the API still holds about our objects, then what comes. A watch that ends is taken
 * up where it ended; when its version has expired, a new list is told, in which events may come again but none is missing.
 */
export async function* streamEvents(
  request: StreamEventsRequest,
  parts: Parts,
  { signal }: HandlerContext,
): AsyncGenerator<MessageInitShape<typeof StreamEventsResponseSchema>> {
  parts.traffic.opened("event", signal);
  const owners = new Owners(parts);
  for await (const events of eventsWithoutEnd(parts, signal)) {
    const wanted = events.filter((event) => passes(event, request) && !isBefore(event, request.since));
    for (const event of await owners.ours(wanted, signal)) {
      yield {
        event: { case: "data", value: { json: JSON.stringify(plain(event)), ts: timestampFromDate(timeOf(event)) } },
      };
    }
  }
}

/** Ends only with the signal, or with UNAVAILABLE when the API stays away. */
async function* eventsWithoutEnd({ kube, log }: Parts, signal: AbortSignal): AsyncGenerator<KubeEvent[]> {
  const backoff = new Backoff({ minMs: 200, maxMs: 5_000 });
  let version = "";
  let failures = 0;
  let emptyWatches = 0;
  while (!signal.aborted) {
    try {
      if (version === "") {
        const { items, version: listed } = await kube.events.listAll({ signal });
        yield items;
        version = listed;
      }
      const since = performance.now();
      let told = false;
      for await (const { type, object } of kube.events.watch({
        resourceVersion: version,
        timeoutSeconds: WATCH_SECONDS,
        signal,
      })) {
        version = object.metadata.resourceVersion ?? version;
        told = true;
        failures = 0;
        backoff.reset();
        if (type !== "BOOKMARK") yield [object];
      }
      failures = 0;
      log.debug({ namespace: kube.namespace }, "event watch resumed");
      emptyWatches = !told && performance.now() - since < EMPTY_WATCH_MS ? emptyWatches + 1 : 0;
      if (emptyWatches >= EMPTY_WATCHES) version = "";
      if (emptyWatches > 0) await backoff.wait(signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof KubeError) || !(error.retryable || error.gone)) throw error;
      log.warn({ namespace: kube.namespace, error }, "event watcher closed");
      if (error.gone || error.status === 500) version = "";
      if (++failures >= ATTEMPTS) throw unreachable(error);
      await backoff.wait(signal, (error.retryAfterSeconds ?? 0) * 1000);
    }
  }
}

/** Which objects are ours; each is looked up once, and those of a whole list together. */
class Owners {
  readonly #parts: Pick<Parts, "kube" | "pods">;
  readonly #known = new Map<string, boolean>();

  constructor(parts: Pick<Parts, "kube" | "pods">) {
    this.#parts = parts;
  }

  /** Those about objects of ours, in their order; however many there are, with a few requests. */
  async ours(events: KubeEvent[], signal: AbortSignal): Promise<KubeEvent[]> {
    if (events.length > FEW) return await this.#survey(events, signal);
    const ours = await Promise.all(events.map((event) => this.#isOurs(event, signal)));
    return events.filter((_, index) => ours[index]);
  }

  async #survey(events: KubeEvent[], signal: AbortSignal): Promise<KubeEvent[]> {
    const { pods, claims } = this.#parts.kube;
    const [managedClaims, ...foreignPods] = await Promise.all([
      claims.listAll({ labelSelector: MANAGED_SELECTOR, signal }),
      ...FOREIGN_SELECTORS.map((labelSelector) => pods.listAll({ labelSelector, signal })),
    ]);
    const ourClaims = new Set(managedClaims.items.map(nameOf));
    const foreign = new Set(foreignPods.flatMap(({ items }) => items.map(nameOf)));
    return events.filter(({ involvedObject: { kind, name = "" } }) =>
      kind === "Pod"
        ? workloadIdIn(name) !== undefined && !foreign.has(name)
        : kind === "PersistentVolumeClaim" && ourClaims.has(name),
    );
  }

  async #isOurs({ involvedObject }: KubeEvent, signal: AbortSignal): Promise<boolean> {
    const { kind, name = "", uid = name } = involvedObject;
    const known = this.#known.get(uid);
    if (known !== undefined) return known;
    const ours =
      (kind === "Pod" && (await this.#isOurPod(name, signal))) ||
      (kind === "PersistentVolumeClaim" && (await this.#isOurClaim(name, signal)));
    if (this.#known.size >= OWNERS_LIMIT) this.#known.clear();
    this.#known.set(uid, ours);
    return ours;
  }

  /** A Pod of ours, or one that has gone and had a name that only we give. */
  async #isOurPod(name: string, signal: AbortSignal): Promise<boolean> {
    const workloadId = workloadIdIn(name);
    if (workloadId === undefined) return false;
    if (this.#parts.pods.peek(workloadId) !== undefined) return true;
    const other = await ignoreNotFound(this.#parts.kube.pods.get(name, { signal }));
    return other === undefined || isManaged(other);
  }

  async #isOurClaim(name: string, signal: AbortSignal): Promise<boolean> {
    const claim = await ignoreNotFound(this.#parts.kube.claims.get(name, { signal }));
    return claim !== undefined && isManagedClaim(claim);
  }
}

/** The id in a Pod's name of the form that we give; undefined for any other name. */
function workloadIdIn(name: string): string | undefined {
  const workloadId = name.slice(podName("").length);
  return name.startsWith(podName("")) && isWorkloadId(workloadId) ? workloadId : undefined;
}

/** `since` in seconds since 1970; 0 or less: no limit. */
const isBefore = (event: KubeEvent, since: bigint): boolean =>
  since > 0n && timeOf(event).getTime() < Number(since) * 1000;

const timeOf = (event: KubeEvent): Date =>
  new Date(event.eventTime ?? event.lastTimestamp ?? event.firstTimestamp ?? Date.now());

/** Every filter must hold; one without values is no filter, and a key that is not known matches nothing. */
function passes(event: KubeEvent, { filters }: StreamEventsRequest): boolean {
  return filters.every(({ key, values }) => {
    const value = fields.get(trim(key))?.(event) ?? "";
    return values.length === 0 || (value !== "" && values.includes(value));
  });
}

const fields: ReadonlyMap<string, (event: KubeEvent) => string | undefined> = new Map([
  ["involvedObject.name", ({ involvedObject }) => involvedObject.name],
  ["involvedObject.namespace", ({ involvedObject }) => involvedObject.namespace],
  ["involvedObject.kind", ({ involvedObject }) => involvedObject.kind],
  ["involvedObject.uid", ({ involvedObject }) => involvedObject.uid],
  ["reason", ({ reason }) => reason],
  ["type", ({ type }) => type],
  ["namespace", ({ metadata }) => metadata.namespace],
  ["metadata.name", ({ metadata }) => metadata.name],
] satisfies [string, (event: KubeEvent) => string | undefined][]);

/** The API object without its kind, with the fields that are there even when they are empty. */
function plain({ kind: _kind, apiVersion: _apiVersion, ...event }: KubeEvent): object {
  const empty = { source: {}, firstTimestamp: null, lastTimestamp: null, eventTime: null };
  return { ...empty, reportingComponent: "", reportingInstance: "", ...event };
}
