import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import type { ExecResponseSchema, ExecStartRequest } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Output as Piece } from "../kube/channel.ts";
import { Tail, tailLimit } from "./tail.ts";

/** One event of an Exec stream. */
export type ExecEvent = NonNullable<MessageInitShape<typeof ExecResponseSchema>["event"]>;

/** Output as events: its streams, sequence numbers and tails (6.16.2). */
export class Output {
  readonly stdoutTail: Tail;
  readonly stderrTail: Tail;
  readonly #separate: boolean;
  #stdoutSeq = 0n;
  #stderrSeq = 0n;

  constructor({ options }: ExecStartRequest) {
    const limit = tailLimit(options?.exitTailBytes ?? 0n);
    this.stdoutTail = new Tail(limit);
    this.stderrTail = new Tail(limit);
    this.#separate = options === undefined || (options.separateStderr && !options.tty);
  }

  event({ stream, data }: Piece): ExecEvent {
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
export class Notices {
  readonly #waiting: ExecEvent[] = [];
  #arrived: (() => void) | undefined;

  add(event: ExecEvent): void {
    this.#waiting.push(event);
    this.#arrived?.();
  }

  take(): ExecEvent | undefined {
    return this.#waiting.shift();
  }

  /** True when it is ready, false when one of these is there sooner. Not a race: that makes six promises for every chunk. */
  orReady(coming: Promise<void>): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#arrived = () => resolve(false);
      coming.then(() => resolve(true), reject);
    });
  }
}
