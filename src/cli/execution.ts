import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type {
  ExecExit,
  ExecOutput,
  ExecRequestSchema,
  ExecResponse,
  ExecStartRequestSchema,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Connection } from "./connection.ts";
import { Failure, failureText } from "./failure.ts";
import { Outbox } from "./outbox.ts";
import type { Size } from "./terminal.ts";

/** Exit statuses of an execution that has no exit code of its own. */
export const NOT_RUN = 125;
export const LOST = 126;

/** Longest message of input, in bytes. */
const INPUT_BYTES = 65_536;
/** For CancelExecution, in ms. */
const CANCEL_MS = 5_000;

export type ExecStart = Exclude<MessageInitShape<typeof ExecStartRequestSchema>, { $typeName: string }>;

/** Where the output goes; each call is awaited before more is read. */
export interface Outputs {
  stdout(data: Uint8Array): Promise<void>;
  stderr(data: Uint8Array): Promise<void>;
  /** Every event, before anything else is done with it. */
  event?(response: ExecResponse): Promise<void>;
}

/**
 * One Exec call: input and sizes go out, output comes in, and in the end there is an exit event or a Failure with status 125
 * (nothing has run) or 126 (it ran, and how it ended is not known).
 */
export class Execution {
  readonly #connection: Connection;
  readonly #outbox = new Outbox<MessageInitShape<typeof ExecRequestSchema>>();
  readonly #abort = new AbortController();
  readonly #started = Promise.withResolvers<string | undefined>();
  readonly #seq = { stdout: 0n, stderr: 0n };

  constructor(connection: Connection, start: ExecStart) {
    this.#connection = connection;
    void this.#outbox.put({ msg: { case: "start", value: start } });
  }

  /** All of the input, then its end. Who reads it slowly holds the source back. */
  async feed(input: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const data of input)
      for (let at = 0; at < data.length; at += INPUT_BYTES)
        await this.#outbox.put({ msg: { case: "stdin", value: { data: data.subarray(at, at + INPUT_BYTES) } } });
    this.endInput();
  }

  /** Half-close: the end of the input, and with a terminal that of the execution. */
  endInput(): void {
    this.#outbox.close();
  }

  resize(size: Size): void {
    void this.#outbox.put({ msg: { case: "resize", value: size } });
  }

  /** Ends it by CancelExecution, or drops the call where it has no id yet, or the runner does not answer. */
  async cancel(force: boolean): Promise<void> {
    const id = await Promise.race([this.#started.promise, Promise.resolve(undefined)]);
    try {
      if (id === undefined) this.drop();
      else await this.#connection.client.cancelExecution({ executionId: id, force }, { timeoutMs: CANCEL_MS });
    } catch {
      this.drop(); // the runner cancels what loses its call
    }
  }

  /** Gives the call up. */
  drop(): void {
    this.#abort.abort();
  }

  /** Delivers output until the end. */
  async result({ stdout, stderr, event }: Outputs): Promise<ExecExit> {
    let exit: ExecExit | undefined;
    let begun = false;
    try {
      const { signal } = this.#abort;
      for await (const response of this.#connection.client.exec(this.#outbox, { signal })) {
        await event?.(response);
        const { case: kind, value } = response.event;
        if (kind === "started") {
          begun = true;
          this.#started.resolve(value.executionId);
        } else if (kind === "stdout") await stdout(this.#inOrder("stdout", value));
        else if (kind === "stderr") await stderr(this.#inOrder("stderr", value));
        else if (kind === "exit") exit = value;
        else if (kind === "error") throw new Failure(`${value.code}: ${value.message}`, begun ? LOST : NOT_RUN);
      }
    } catch (error) {
      if (exit === undefined && error instanceof ConnectError) throw this.#unfinished(begun, error);
      if (exit === undefined || !(error instanceof ConnectError)) throw error;
      // An exit is the last word; how the connection ended after it does not matter.
    } finally {
      this.#started.resolve(undefined);
      this.#outbox.close();
      this.drop();
    }
    if (exit === undefined)
      throw this.#unfinished(begun, new ConnectError("the stream ended without an exit", Code.DataLoss));
    return exit;
  }

  #unfinished(begun: boolean, error: ConnectError): Failure {
    const about = begun ? "; the command may still run" : "";
    return new Failure(`${failureText(error)}${about}`, begun ? LOST : NOT_RUN, error);
  }

  /** The output's bytes; a number that is left out would be output that is lost. */
  #inOrder(stream: "stdout" | "stderr", { seq, data }: ExecOutput): Uint8Array {
    const expected = this.#seq[stream] + 1n;
    if (seq !== expected) throw new Failure(`data_loss: ${stream} has part ${seq} after ${expected - 1n}`, LOST);
    this.#seq[stream] = seq;
    return data;
  }
}
