import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate, timestampNow } from "@bufbuild/protobuf/wkt";
import type { HandlerContext } from "@connectrpc/connect";
import {
  ExecExitReason,
  type ExecRequest,
  type ExecResponseSchema,
  type ExecStartRequest,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Pod } from "../kube/types.ts";
import { release } from "../memory.ts";
import { workloadIdOf } from "../pod/names.ts";
import { trim } from "../pod/validate.ts";
import { sleep } from "../time.ts";
import { runBeside, type Target } from "./beside.ts";
import { Command, InvalidCommand } from "./command.ts";
import { Connection } from "./connection.ts";
import { Cut, type Execution } from "./execution.ts";
import { hangUpCommand, killCommand } from "./kill.ts";
import { annotate } from "./observe.ts";
import { type ExecEvent, Notices, Output } from "./output.ts";
import type { Parts } from "./parts.ts";
import { findTarget, isRunning, Refusal } from "./target.ts";

type Response = MessageInitShape<typeof ExecResponseSchema>;

/** Killing, from the cause to the last look for survivors; after that `killed` is false (ruling 4). Hanging up likewise. */
const KILL_MS = 5_000;
/** A container that has gone ends its executions itself, with the code; this long it may take before we do. */
const GONE_GRACE_MS = 1_000;

/** Exec (6.16): one command in a container, from its start message to its exit event. */
export async function* exec(
  requests: AsyncIterable<ExecRequest>,
  parts: Parts,
  context: HandlerContext,
): AsyncGenerator<Response> {
  const incoming = requests[Symbol.asyncIterator]();
  const first = await incoming.next();
  if (first.done) return;
  const session = await sessionFor(first.value, parts, context);
  if (session instanceof Refusal) {
    yield { event: session.event };
    return;
  }
  using open = session;
  yield { event: open.begin(incoming, context.signal) };
  for (let event = await open.next(); event !== undefined; event = await open.next()) yield { event };
}

async function sessionFor(first: ExecRequest, parts: Parts, context: HandlerContext): Promise<Session | Refusal> {
  try {
    const start = requireStart(first);
    const command = commandFor(start);
    const { pod, target } = await findTarget(start.targetId, parts, context.signal);
    annotate(context, { workload_id: workloadIdOf(pod), container: target.container });
    return new Session(start, command, { pod, target }, parts);
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

/** One execution with its connection, its caller and the events on their way to that caller. */
class Session implements Disposable {
  readonly #start: ExecStartRequest;
  readonly #pod: Pod;
  readonly #target: Target;
  readonly #parts: Parts;
  readonly #execution: Execution;
  readonly #connection: Connection;
  readonly #output: Output;
  readonly #notices = new Notices();
  /** Output that is waited for. */
  #coming: Promise<void> | undefined;
  #killed: Promise<boolean> = Promise.resolve(false);
  #isTold = false;

  constructor(start: ExecStartRequest, command: Command, { pod, target }: { pod: Pod; target: Target }, parts: Parts) {
    const { options } = start;
    this.#start = start;
    this.#pod = pod;
    this.#target = target;
    this.#parts = parts;
    this.#output = new Output(start);
    this.#execution = parts.executions.open({
      timeoutMs: Number(options?.timeoutMs ?? 0n),
      idleTimeoutMs: Number(options?.idleTimeoutMs ?? 0n),
      killOnTimeout: options?.killOnTimeout ?? false,
    });
    // It opens while the caller is told, who may then cancel it by its id.
    const how = { command, executionId: this.#execution.id, tty: options?.tty ?? false };
    this.#connection = new Connection(parts.kube, target, how, parts.executions.images);
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
    this.#execution[Symbol.dispose]();
  }

  /** The first event. From now on the caller's messages are carried to the process. */
  begin(incoming: AsyncIterator<ExecRequest>, caller: AbortSignal): ExecEvent {
    const { id: executionId, startedAt } = this.#execution;
    this.#endOnCut(caller);
    void this.#endWithContainer();
    void this.#feed(incoming);
    return { case: "started", value: { executionId, startedAt: timestampFromDate(startedAt) } };
  }

  /** Output and notices as they come, then the exit, then undefined. One caller at a time. */
  async next(): Promise<ExecEvent | undefined> {
    while (!this.#isTold) {
      const event = this.#notices.take() ?? this.#take() ?? (this.#connection.isOver ? await this.#exit() : undefined);
      if (event !== undefined) {
        this.#execution.touch();
        return event;
      }
      this.#coming ??= this.#connection.ready();
      try {
        if (await this.#notices.orReady(this.#coming)) this.#coming = undefined;
      } catch (error) {
        this.#coming = undefined;
        if (this.#execution.cutBy === undefined)
          this.#parts.log.warn({ execution_id: this.#execution.id, pod: this.#target.pod, error }, "execution failed");
      }
    }
    return undefined;
  }

  /** Output that has come. */
  #take(): ExecEvent | undefined {
    const piece = this.#connection.take();
    if (piece === undefined) return undefined;
    const event = this.#output.event(piece);
    const { case: stream, value } = event;
    if (stream === "stdout" || stream === "stderr") this.#parts.traffic.exec.add(stream, value.data?.length);
    return event;
  }

  async #exit(): Promise<ExecEvent> {
    this.#isTold = true;
    const execution = this.#execution;
    const code = this.#connection.exitCode;
    const cut = execution.cutBy;
    const ended = cut === undefined ? COMPLETED(code) : { reason: cut.reason, exitCode: code || cut.exitCode };
    if (cut?.detail !== undefined)
      this.#parts.log.warn({ execution_id: execution.id, pod: this.#target.pod }, `execution ended: ${cut.detail}`);
    const killed = await this.#killed;
    execution.exited(ended.reason);
    return {
      case: "exit",
      value: {
        executionId: execution.id,
        ...ended,
        killed,
        stdoutTail: this.#output.stdoutTail.bytes(),
        stderrTail: this.#output.stderrTail.bytes(),
        finishedAt: timestampNow(),
      },
    };
  }

  /**
   * A cut acts at once, whatever the generator waits for: a caller that has gone or does not read leaves it suspended for
   * ever. So the connection and the place in the table are given back here.
   */
  #endOnCut(caller: AbortSignal): void {
    const [execution, connection] = [this.#execution, this.#connection];
    execution.signal.addEventListener(
      "abort",
      () => {
        if (execution.cutBy?.kill) this.#killed = this.#kill();
        else {
          connection.close();
          if (this.#start.options?.tty && connection.isWrapped) void this.#parts.underway.add(this.#hangUp());
        }
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
  async #kill(): Promise<boolean> {
    const [execution, connection] = [this.#execution, this.#connection];
    const signal = AbortSignal.timeout(KILL_MS);
    try {
      const started = await Promise.race([connection.started(), sleep(KILL_MS, signal)]);
      connection.close();
      if (started !== true || !connection.isWrapped) return false;
      return (await runBeside(this.#parts.kube, this.#target, killCommand(execution.id), signal)) === 0;
    } catch (error) {
      this.#parts.log.warn({ execution_id: execution.id, pod: this.#target.pod, error }, "kill could not be proven");
      return false;
    } finally {
      connection.close();
    }
  }

  /**
   * Hangs up the terminal. That its connection is dropped does not: containerd (1.6.20 with Kubernetes 1.34) keeps it open
   * for as long as its process lives, which would be for ever.
   */
  async #hangUp(): Promise<void> {
    const execution = this.#execution;
    try {
      await runBeside(this.#parts.kube, this.#target, hangUpCommand(execution.id), AbortSignal.timeout(KILL_MS));
    } catch (error) {
      this.#parts.log.debug({ execution_id: execution.id, pod: this.#target.pod, error }, "terminal not hung up");
    }
  }

  /** Ends the execution when its Pod or container has gone and the cluster does not say so on the connection. */
  async #endWithContainer(): Promise<void> {
    const { pods } = this.#parts;
    const execution = this.#execution;
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
  async #feed(incoming: AsyncIterator<ExecRequest>): Promise<void> {
    const [execution, connection] = [this.#execution, this.#connection];
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
          this.#parts.traffic.exec.add("stdin", data.length);
          if (data.length > 0) await connection.write(data);
          release(data);
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

function requireStart({ msg }: ExecRequest): ExecStartRequest {
  if (msg.case !== "start") throw new Refusal("exec_start_required", "exec start required");
  if (trim(msg.value.targetId) === "") throw new Refusal("target_id_required", "target_id required");
  return msg.value;
}

function commandFor(start: ExecStartRequest): Command {
  try {
    return new Command(start);
  } catch (error) {
    if (error instanceof InvalidCommand) throw new Refusal("invalid_command", error.message);
    throw error;
  }
}
