/** What `load -json` writes of a run; the names are those of the Go program. */

export interface Verdict {
  readonly Text: string;
  readonly Met: boolean;
}

/** One subject of a row; ratios are of the row's subject to this one: all rounds, least and greatest of a round. */
export interface Line {
  readonly Row: string;
  readonly Measured: string;
  readonly Callers: number;
  readonly Calls: number;
  /** In milliseconds. */
  readonly P50: number;
  readonly P99: number;
  /** Calls or bytes a second. */
  readonly Rate: number;
  readonly InBytes: boolean;
  /** Seconds of the server for 1,000 calls, or for 1 GiB. */
  readonly CPU: number | null;
  readonly RatioP50: readonly [number, number, number] | null;
  readonly RatioRate: readonly [number, number, number] | null;
  readonly Goals: readonly Verdict[] | null;
}

export interface Figure {
  readonly Row: string;
  readonly Measured: string;
  readonly Unit: string;
  readonly Value: number;
  readonly Goals: readonly Verdict[] | null;
}

export interface Report {
  readonly CPUs: number;
  readonly CPU: string;
  readonly Kernel: string;
  readonly Go: string;
  readonly Quick: boolean;
  readonly Lines: readonly Line[] | null;
  readonly Figures: readonly Figure[] | null;
}
