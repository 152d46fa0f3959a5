import { Tally } from "../figures.ts";

const OUTCOMES = ["told", "late", "skipped", "left"] as const;

/**
 * What came of a read that found the cache behind one of our own writes: `told` by the watch in time; `late`, so that the
 * API was asked; `skipped`, asked at once as the watch was known to be later than that; `left` by its caller.
 */
export type FreshnessOutcome = (typeof OUTCOMES)[number];

/** What the watcher counts about itself, for metrics. */
export class WatcherStats {
  /** Lists and watches that failed or ended early, by cause: `gone`, `connection`, `short`, `restored`, an HTTP status. */
  readonly failures = new Map<string, number>();
  /** performance.now() of the last event of a Pod. */
  lastEventAt: number | undefined;
  readonly freshnessWaits = new Tally<FreshnessOutcome>(OUTCOMES);
}
