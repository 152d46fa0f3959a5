import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate, timestampNow } from "@bufbuild/protobuf/wkt";
import { ConnectError, type HandlerContext } from "@connectrpc/connect";
import {
  ExecExitReason,
  type ExecRequest,
  type ExecResponseSchema,
  type ExecStartRequest,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { KubeError } from "../kube/error.ts";
import type { Pod } from "../kube/types.ts";
import { podName, workloadIdOf } from "../pod/names.ts";
import { sleep } from "../time.ts";
import { commandOf, InvalidCommand, killCommand, saysNotFound } from "./command.ts";
import { Connection, type Target } from "./connection.ts";
import { Cut, type Execution } from "./execution.ts";
import { findPod, nameOf } from "./find.ts";
import { annotate } from "./observe.ts";
import type { Parts } from "./parts.ts";
import { Tail, tailLimit } from "./tail.ts";

type Event = NonNullable<MessageInitShape<typeof ExecResponseSchema>["event"]>;
type Response = MessageInitShape<typeof ExecResponseSchema>;

/** Killing, from the cause to the last look for survivors; after that `killed` is false (ruling 4). */
const KILL_MS = 5_000;
/** A container that has gone ends its executions itself, with the code; this long it may take before we do. */
const GONE_GRACE_MS = 1_000;

/** A failure that the contract wants told in the stream, on an OK status (6.16.1). */
class Refusal extends Error {
  readonly code: string;
  readonly retryable: boolean;

  constructor(code: string, message: string, retryable = false) {
    super(message);
    this.code = code;
    this.retryable = retryable;
  }

  get event(): Event {
    return { case: "error", value: { code: this.code, message: this.message, retryable: this.retryable } };
  }
}

/** Exec (6.16): one command in a container, from its start message to its exit event. */
export async function* exec(
  requests: AsyncIterable<ExecRequest>,
  parts: Parts,
  context: HandlerContext,
): AsyncGenerator<Response> {
  const incoming = requests[Symbol.asyncIterator]();
  const first = await incoming.next();
  if (first.done) return;
  try {
    const start = requireStart(first.value);
    const command = commandFor(start);
    const { pod, target } = await findTarget(start.targetId, parts, context.signal);
    annotate(context, { workload_id: workloadIdOf(pod), container: target.container });
    yield* new Session(start, command, { pod, target }, parts).run(incoming, context.signal);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    yield { event: error.event };
  }
}

/** One execution with its connection, its caller and the events on their way to that caller. */
class Session {
  readonly #start: ExecStartRequest;
  readonly #command: ReturnType<typeof commandOf>;
  readonly #pod: Pod;
  readonly #target: Target;
  readonly #parts: Parts;
  readonly #notices = new Notices();
  #killed: Promise<boolean> = Promise.resolve(false);

  constructor(
    start: ExecStartRequest,
    command: ReturnType<typeof commandOf>,
    { pod, target }: { pod: Pod; target: Target },
    parts: Parts,
  ) {
    this.#start = start;
    this.#command = command;
    this.#pod = pod;
    this.#target = target;
    this.#parts = parts;
  }

  async *run(incoming: AsyncIterator<ExecRequest>, caller: AbortSignal): AsyncGenerator<Response> {
    const { options } = this.#start;
    using execution = this.#parts.executions.open({
      timeoutMs: Number(options?.timeoutMs ?? 0n),
      idleTimeoutMs: Number(options?.idleTimeoutMs ?? 0n),
      killOnTimeout: options?.killOnTimeout ?? false,
    });
    yield {
      event: {
        case: "started",
        value: { executionId: execution.id, startedAt: timestampFromDate(execution.startedAt) },
      },
    };
    using connection = new Connection(
      this.#parts.kube,
      this.#target,
      { marked: this.#command.marked(execution.id), plain: this.#command.plain },
      { shells: this.#parts.executions.shells, tty: options?.tty ?? false },
    );
    this.#endOnCut(execution, connection, caller);
    void this.#endWithContainer(execution);
    void this.#feed(incoming, connection, execution);
    const output = new Output(this.#start);
    const events = this.#events(connection, execution, output);
    // Not yield*: the return value says how it ended, and the exit event comes last.
    for (let step = await events.next(); ; step = await events.next()) {
      if (step.done) {
        yield { event: await this.#exit(execution, output, step.value) };
        return;
      }
      execution.touch();
      yield { event: step.value };
    }
  }

  /** Output and notices as they come; returns the exit code, or undefined when there is none. */
  async *#events(
    connection: Connection,
    execution: Execution,
    output: Output,
  ): AsyncGenerator<Event, number | undefined> {
    const run = connection.run();
    let next = run.next();
    try {
      for (;;) {
        const notice = this.#notices.take();
        if (notice !== undefined) {
          yield notice;
          continue;
        }
        // A fresh promise each time: a long-lived one in a race would collect a reaction for every chunk.
        const step = await Promise.race([next, this.#notices.arrival()]);
        if (step === undefined) continue;
        if (step.done) return output.notFound ? undefined : step.value;
        const event = output.event(step.value);
        next = run.next();
        next.catch(() => undefined); // looked at in the next round, or never when the caller has gone
        if (event !== undefined) yield event;
      }
    } catch (error) {
      if (execution.cutBy === undefined)
        this.#parts.log.warn({ execution_id: execution.id, pod: this.#target.pod, error }, "execution failed");
      return undefined;
    }
  }

  async #exit(execution: Execution, output: Output, code: number | undefined): Promise<Event> {
    const cut = execution.cutBy;
    const ended = cut === undefined ? COMPLETED(code) : { reason: cut.reason, exitCode: code || cut.exitCode };
    if (cut?.detail !== undefined)
      this.#parts.log.warn({ execution_id: execution.id, pod: this.#target.pod }, `execution ended: ${cut.detail}`);
    const killed = await this.#killed;
    return {
      case: "exit",
      value: {
        executionId: execution.id,
        ...ended,
        killed,
        stdoutTail: output.stdoutTail.bytes(),
        stderrTail: output.stderrTail.bytes(),
        finishedAt: timestampNow(),
      },
    };
  }

  /**
   * A cut acts at once, whatever the generator waits for: a caller that has gone or does not read leaves it suspended for
   * ever. So the connection and the place in the table are given back here.
   */
  #endOnCut(execution: Execution, connection: Connection, caller: AbortSignal): void {
    execution.signal.addEventListener(
      "abort",
      () => {
        if (execution.cutBy?.kill) this.#killed = this.#kill(execution, connection);
        else connection.close();
      },
      { once: true },
    );
    const leave = () => {
      execution.cut(new Cut(ExecExitReason.CANCELLED));
      execution[Symbol.dispose]();
    };
    caller.addEventListener("abort", leave, { once: true, signal: execution.over });
    if (caller.aborted) leave();
  }

  /** True when every process of the execution is seen to be gone. A handshake under way must end first: it may start one. */
  async #kill(execution: Execution, connection: Connection): Promise<boolean> {
    const signal = AbortSignal.timeout(KILL_MS);
    try {
      const started = await Promise.race([connection.started(), sleep(KILL_MS, signal)]);
      connection.close();
      if (started !== true || !connection.marked) return false;
      const { pod, container } = this.#target;
      using channel = await this.#parts.kube.exec(pod, {
        container,
        command: killCommand(execution.id),
        stderr: true,
        signal,
      });
      for await (const _ of channel.output()); // it prints nothing that matters
      return (await channel.exitCode) === 0;
    } catch (error) {
      this.#parts.log.warn({ execution_id: execution.id, pod: this.#target.pod, error }, "kill could not be proven");
      return false;
    } finally {
      connection.close();
    }
  }

  /** Ends the execution when its Pod or container has gone and the cluster does not say so on the connection. */
  async #endWithContainer(execution: Execution): Promise<void> {
    const { pods } = this.#parts;
    const gone = (pod: Pod | undefined) => (isRunning(pod, this.#pod, this.#target.container) ? undefined : true);
    try {
      await pods.until(workloadIdOf(this.#pod), gone, execution.over);
      await sleep(GONE_GRACE_MS, execution.over);
      execution.cut(new Cut(ExecExitReason.RUNNER_ERROR, { detail: "the container is gone" }));
    } catch (error) {
      if (!execution.over.aborted) throw error;
    }
  }

  /** Carries the caller's messages to the process until either side is done. Never rejects. */
  async #feed(incoming: AsyncIterator<ExecRequest>, connection: Connection, execution: Execution): Promise<void> {
    let ended = false;
    try {
      for (let message = await incoming.next(); !message.done; message = await incoming.next()) {
        execution.touch();
        const { msg } = message.value;
        if (msg.case === "start")
          this.#notices.add(new Refusal("exec_already_started", "duplicate exec start received").event);
        else if (msg.case === "resize") {
          const { cols, rows } = msg.value;
          if (this.#start.options?.tty && cols > 0 && rows > 0) connection.resize(cols, rows);
        } else if (msg.case === "stdin") {
          const { data, eof } = msg.value;
          if (ended && data.length > 0) {
            execution.cut(new Cut(ExecExitReason.RUNNER_ERROR, { detail: "stdin data after its end" }));
            return;
          }
          if (data.length > 0) await connection.write(data);
          if (eof && !ended) await connection.end();
          ended ||= eof;
        }
      }
      // Half-close: a terminal is hung up; elsewhere it is the end of stdin and no more (ruling 1).
      if (this.#start.options?.tty) execution.cut(new Cut(ExecExitReason.CANCELLED));
      else if (!ended) await connection.end();
    } catch (error) {
      // A connection that is over tells its own end through its output; a lost RPC aborts the caller's signal.
      this.#parts.log.debug({ execution_id: execution.id, error }, "stdin ended");
    }
  }
}

const COMPLETED = (code: number | undefined) =>
  code === undefined
    ? { reason: ExecExitReason.RUNNER_ERROR, exitCode: -1 }
    : { reason: ExecExitReason.COMPLETED, exitCode: code };

/** Output as events: its streams, sequence numbers and tails (6.16.2). */
class Output {
  readonly stdoutTail: Tail;
  readonly stderrTail: Tail;
  /** The wrapper said that there is no such program; nothing has run. */
  notFound = false;
  readonly #separate: boolean;
  #stdoutSeq = 0n;
  #stderrSeq = 0n;

  constructor({ options }: ExecStartRequest) {
    const limit = tailLimit(options?.exitTailBytes ?? 0n);
    this.stdoutTail = new Tail(limit);
    this.stderrTail = new Tail(limit);
    this.#separate = options === undefined || (options.separateStderr && !options.tty);
  }

  /** undefined for the wrapper's own word, which is not the caller's to see. */
  event({ stream, data }: { stream: "stdout" | "stderr"; data: Uint8Array }): Event | undefined {
    if (this.#stdoutSeq + this.#stderrSeq === 0n && saysNotFound(data)) {
      this.notFound = true;
      return undefined;
    }
    const ts = timestampNow();
    if (stream === "stderr" && this.#separate) {
      this.stderrTail.push(data);
      return { case: "stderr", value: { seq: ++this.#stderrSeq, data, ts } };
    }
    this.stdoutTail.push(data);
    return { case: "stdout", value: { seq: ++this.#stdoutSeq, data, ts } };
  }
}

/** Events of our own between the output: few, and never waiting for it. */
class Notices {
  readonly #waiting: Event[] = [];
  #arrived: (() => void) | undefined;

  add(event: Event): void {
    this.#waiting.push(event);
    this.#arrived?.();
  }

  take(): Event | undefined {
    return this.#waiting.shift();
  }

  arrival(): Promise<undefined> {
    return new Promise((resolve) => {
      this.#arrived = () => resolve(undefined);
    });
  }
}

function requireStart({ msg }: ExecRequest): ExecStartRequest {
  if (msg.case !== "start") throw new Refusal("exec_start_required", "exec start required");
  if (msg.value.targetId.trim() === "") throw new Refusal("target_id_required", "target_id required");
  return msg.value;
}

function commandFor(start: ExecStartRequest): ReturnType<typeof commandOf> {
  try {
    return commandOf(start);
  } catch (error) {
    if (error instanceof InvalidCommand) throw new Refusal("invalid_command", error.message);
    throw error;
  }
}

/** The Pod and container of `workload-<id>` or `<id>`, each also with `:<container>` (ruling 2). */
async function findTarget(targetId: string, parts: Parts, signal: AbortSignal): Promise<{ pod: Pod; target: Target }> {
  const [name = "", container, ...rest] = targetId.split(":");
  const prefix = podName("");
  const workloadId = name.startsWith(prefix) ? name.slice(prefix.length) : name;
  let pod: Pod;
  try {
    pod = await findPod(parts, workloadId, signal);
  } catch (error) {
    throw startFailed(error, name);
  }
  const [main] = pod.spec?.containers ?? [];
  // The reference lets its gRPC error show here as text; clients may match on it (6.16.1).
  if (main === undefined)
    throw new Refusal("exec_start_failed", "rpc error: code = Internal desc = pod_missing_containers");
  if (container === undefined)
    return { pod, target: { pod: nameOf(pod), container: main.name, image: imageOf(pod, main) } };
  const found = [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])].find(
    (each) => each.name === container,
  );
  if (found === undefined || rest.length > 0)
    throw new Refusal("exec_start_failed", `container not found: ${[container, ...rest].join(":")}`);
  return { pod, target: { pod: nameOf(pod), container, image: imageOf(pod, found) } };
}

/** The failed look-up in the plain words of Kubernetes, as clients of this event know them. */
function startFailed(error: unknown, name: string): unknown {
  if (error instanceof KubeError)
    return new Refusal("exec_start_failed", error.unreachable ? "cluster_unreachable" : error.message, error.retryable);
  if (!(error instanceof ConnectError)) return error;
  const absent = error.rawMessage.startsWith("resource not found: ");
  return absent
    ? new Refusal("exec_start_failed", `pods "${name}" not found`)
    : new Refusal("exec_start_failed", error.rawMessage, error.rawMessage === "cluster_unreachable");
}

/** The image by its digest when the kubelet has told it: a tag may move. */
function imageOf(pod: Pod, container: { name: string; image?: string }): string {
  const statuses = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])];
  return statuses.find(({ name }) => name === container.name)?.imageID || (container.image ?? "");
}

/** Whether the container may still run: the same Pod is there, and no status says that the container has ended. */
function isRunning(pod: Pod | undefined, as: Pod, container: string): boolean {
  if (pod === undefined || pod.metadata?.uid !== as.metadata?.uid) return false;
  const statuses = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])];
  return statuses.find(({ name }) => name === container)?.state?.terminated === undefined;
}
