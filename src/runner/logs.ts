import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampNow } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { notFound } from "../errors.ts";
import type {
  StreamWorkloadLogsRequest,
  StreamWorkloadLogsResponseSchema,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { KubeError } from "../kube/error.ts";
import type { Pod } from "../kube/types.ts";
import { release } from "../memory.ts";
import { Backoff, boundedSignal } from "../time.ts";
import { findPod, getPod, nameOf, requireText, requireWorkloadId, uidOf } from "./find.ts";
import { LogResume } from "./log-resume.ts";
import { annotate } from "./observe.ts";
import type { Parts } from "./parts.ts";

type Response = MessageInitShape<typeof StreamWorkloadLogsResponseSchema>;
type LogOptions = { timestamps: boolean; tailLines?: number; sinceTime?: string };

/** How long the watcher may take to learn that a container ended whose log has ended. */
const END_WAIT_MS = 1_000;
/** Lost connections in a row, without a byte between them, before the caller is told. */
const ATTEMPTS = 8;

const chunk = (data: Uint8Array): Response => ({ event: { case: "chunk", value: { data, ts: timestampNow() } } });

/** StreamWorkloadLogs (6.14, ruling 17). */
export async function* streamWorkloadLogs(
  request: StreamWorkloadLogsRequest,
  parts: Parts,
  context: HandlerContext,
): AsyncGenerator<Response> {
  const id = requireWorkloadId(request.workloadId);
  const container = requireText(request.containerName, "container_name_required");
  annotate(context, { workload_id: id, container });
  const pod = await findPod(parts, id, context);
  const { containers = [], initContainers = [] } = pod.spec ?? {};
  if (![...containers, ...initContainers].some(({ name }) => name === container)) throw notFound("container_not_found");
  if (request.follow) parts.traffic.opened("log_follow", context.signal);
  const follow = new Follow(id, pod, container, parts, context.signal);
  for await (const data of request.follow ? follow.bytes(optionsOf(request)) : follow.once(optionsOf(request))) {
    parts.traffic.logBytes += data.length;
    yield chunk(data);
  }
}

function optionsOf(request: StreamWorkloadLogsRequest): LogOptions {
  const tailLines = request.tailLines || request.tail;
  const since = request.sinceTime
    ? timestampDate(request.sinceTime)
    : request.since > 0n
      ? new Date(Number(request.since) * 1000)
      : undefined;
  // The API reads whole seconds (RFC 3339); a time that no Date can hold is no limit in the past and all of it in the future.
  const sinceTime =
    since === undefined || Number.isNaN(since.getTime()) ? undefined : since.toISOString().replace(/\.\d+Z$/, "Z");
  return {
    timestamps: request.timestamps,
    ...(tailLines > 0 ? { tailLines } : {}),
    ...(sinceTime === undefined ? {} : { sinceTime }),
  };
}

type Ending = "running" | "terminated" | "never" | "deleted";

class Follow {
  readonly #id: string;
  readonly #pod: Pod;
  readonly #container: string;
  readonly #parts: Parts;
  readonly #signal: AbortSignal;

  constructor(id: string, pod: Pod, container: string, parts: Parts, signal: AbortSignal) {
    this.#id = id;
    this.#pod = pod;
    this.#container = container;
    this.#parts = parts;
    this.#signal = signal;
  }

  /** What there is now. A read that was complete is complete, even when the Pod has gone meanwhile (ruling 17). */
  async *once(options: LogOptions): AsyncGenerator<Uint8Array> {
    let begun = false;
    try {
      for await (const data of this.#read({ ...options, follow: false })) {
        begun = true;
        yield data;
      }
    } catch (error) {
      this.#signal.throwIfAborted();
      if (!begun || !(error instanceof KubeError)) throw error;
      await getPod(this.#parts, this.#id, this.#signal).catch((lookup: unknown) => {
        throw isAbsent(lookup) ? podDeleted() : lookup;
      });
      throw new ConnectError("logs_stream_error", Code.Internal, undefined, undefined, error);
    }
  }

  /**
   * The log until the container has ended and all of it was sent. Each read begins at the last line sent; the one that was
   * begun after the container's end is the last.
   */
  async *bytes(options: LogOptions): AsyncGenerator<Uint8Array> {
    const resume = new LogResume({ keepTimestamps: options.timestamps });
    const backoff = new Backoff({ minMs: 100, maxMs: 5_000 });
    let failures = 0;
    for (;;) {
      const before = await this.#started();
      if (before === "deleted") throw podDeleted();
      if (before === "never") throw notFound("container_not_started");
      try {
        const from = resume.sinceTime === undefined ? options : { sinceTime: resume.sinceTime };
        resume.begin();
        for await (const data of this.#read({ ...from, timestamps: true, follow: true })) {
          failures = 0;
          backoff.reset();
          const fresh = resume.take(data);
          if (fresh.length > 0) yield fresh;
          release(fresh); // whoever asks for more has done with it
        }
        const rest = resume.finish();
        if (rest.length > 0) yield rest;
        release(rest);
        if (before === "terminated") return;
        if ((await this.#ended()) === "running") await backoff.wait(this.#signal);
      } catch (error) {
        this.#signal.throwIfAborted();
        if (isGap(error) && (await this.#leaving())) throw podDeleted();
        if (!(error instanceof KubeError)) throw error;
        if (error.notFound) throw podDeleted();
        // 400: the container is not ready to give its log after all; its state will tell.
        if (!error.retryable && error.status !== 400) throw error;
        if (++failures >= ATTEMPTS) throw error;
        this.#parts.log.debug({ pod: nameOf(this.#pod), container: this.#container, error }, "log connection lost");
        await backoff.wait(this.#signal, (error.retryAfterSeconds ?? 0) * 1000);
      }
    }
  }

  #read(options: LogOptions & { follow: boolean }): AsyncGenerator<Uint8Array> {
    return this.#parts.kube.log(nameOf(this.#pod), { container: this.#container, signal: this.#signal, ...options });
  }

  /** Waits for the container to have started, or to be known never to. */
  #started(): Promise<Ending> {
    const pick = (pod: Pod | undefined) => {
      const state = this.#stateIn(pod);
      return state === "waiting" ? undefined : state;
    };
    return this.#parts.pods.until(this.#id, pick, this.#signal);
  }

  /** The container's state once it has ended, or `running` when that is not heard of in a second. */
  async #ended(): Promise<Ending> {
    using bound = boundedSignal(END_WAIT_MS, this.#signal);
    const pick = (pod: Pod | undefined) => {
      const state = this.#stateIn(pod);
      return state === "terminated" || state === "deleted" || state === "never" ? state : undefined;
    };
    try {
      return await this.#parts.pods.until(this.#id, pick, bound.signal);
    } catch (error) {
      if (bound.timedOut) return "running";
      throw error;
    }
  }

  /** Whether the Pod has gone or is about to: its log goes before it does. */
  async #leaving(): Promise<boolean> {
    try {
      const pod = await getPod(this.#parts, this.#id, this.#signal);
      return uidOf(pod) !== uidOf(this.#pod) || pod.metadata?.deletionTimestamp !== undefined;
    } catch (error) {
      if (isAbsent(error)) return true;
      throw error;
    }
  }

  #stateIn(pod: Pod | undefined): Ending | "waiting" {
    if (pod === undefined || uidOf(pod) !== uidOf(this.#pod)) return "deleted";
    const statuses = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])];
    const state = statuses.find(({ name }) => name === this.#container)?.state;
    if (state?.terminated !== undefined) return state.terminated.startedAt ? "terminated" : "never";
    if (state?.running !== undefined) return "running";
    const over = pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
    return over ? "never" : "waiting";
  }
}

const podDeleted = (): ConnectError => new ConnectError("pod_deleted", Code.Unavailable);

const isGap = (error: unknown): boolean => error instanceof ConnectError && error.rawMessage === "logs_gap";

const isAbsent = (error: unknown): boolean =>
  (error instanceof KubeError && error.notFound) || (error instanceof ConnectError && error.code === Code.NotFound);
