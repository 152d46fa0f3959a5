import { Tally } from "../figures.ts";

/** What passes through the handlers, in plain figures for metrics. */
export class Traffic {
  /** Bytes of executions, as they came from callers and from the cluster. */
  readonly exec = new Tally(["stdin", "stdout", "stderr"]);
  /** Bytes of logs that were sent to callers. */
  logBytes = 0;
  /** Bytes of archives that were unpacked. */
  archiveBytes = 0;
  /** Streams that are open now. */
  readonly open = new Tally(["log_follow", "event"]);

  /** Counts a stream as open until `signal`, its call's own, aborts: its generator may never come to its end. */
  opened(kind: "log_follow" | "event", signal: AbortSignal): void {
    if (signal.aborted) return;
    this.open.add(kind);
    signal.addEventListener("abort", () => this.open.add(kind, -1), { once: true });
  }
}
