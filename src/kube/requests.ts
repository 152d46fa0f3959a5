import { Durations } from "../figures.ts";
import type { RequestInfo } from "./request.ts";

/** In seconds: from a GET on the cluster's own network to the bound of a request. */
const BOUNDS = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** HTTP statuses that API servers answer with; any other one is told by its hundred, so that no server can make them many. */
const STATUSES = [
  101, 200, 201, 202, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 501, 502, 503, 504,
] as const;

const statusNames: ReadonlyMap<number, string> = new Map(STATUSES.map((status) => [status, String(status)]));

/** A status as a label: `404`, `4xx` for one that is rare, `none` without an answer. */
export function statusName(status: number): string {
  const hundred = Math.floor(status / 100);
  return statusNames.get(status) ?? (hundred >= 1 && hundred <= 5 ? `${hundred}xx` : "none");
}

export interface RequestFigures {
  readonly verb: string;
  readonly resource: string;
  readonly durations: Durations;
  /** How many were answered with each status. */
  readonly codes: Map<string, number>;
}

/** Requests to the Kubernetes API so far, by verb and resource. Of a stream the duration is that of its opening. */
export class KubeRequests implements Iterable<RequestFigures> {
  readonly #figures = new Map<string, RequestFigures>();

  add({ verb, resource, status, seconds }: RequestInfo): void {
    const key = `${verb} ${resource}`;
    const figures = this.#figures.get(key) ?? { verb, resource, durations: new Durations(BOUNDS), codes: new Map() };
    this.#figures.set(key, figures);
    const code = statusName(status);
    figures.codes.set(code, (figures.codes.get(code) ?? 0) + 1);
    figures.durations.add(seconds);
  }

  [Symbol.iterator](): MapIterator<RequestFigures> {
    return this.#figures.values();
  }
}
