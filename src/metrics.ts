import type { StateReports } from "./gateway/report.ts";
import type { Page, Pages } from "./http.ts";
import type { KubeRequests } from "./kube/requests.ts";
import type { Usage } from "./limits.ts";
import type { Exposition } from "./metrics/exposition.ts";
import {
  cacheFamilies,
  callFamilies,
  kubeFamilies,
  reportFamilies,
  trafficFamilies,
  usageFamilies,
} from "./metrics/families.ts";
import type { Family } from "./metrics/family.ts";
import { LoopLag, processFamilies, runtimeFamilies } from "./metrics/process.ts";
import type { Calls } from "./runner/calls.ts";
import type { Executions } from "./runner/execution.ts";
import type { Traffic } from "./runner/traffic.ts";
import type { PodWatcher } from "./watcher.ts";

const PREFIX = "k8s_runner_";

/** The parts that have figures. */
export interface MetricsSources {
  readonly calls: Calls;
  readonly traffic: Traffic;
  readonly executions: Executions;
  readonly watcher: PodWatcher;
  readonly requests: KubeRequests;
  readonly usage: Usage;
  /** Gives undefined while no states are reported to a platform. */
  readonly reports: () => StateReports | undefined;
}

/** What the process counts about itself, as `GET /metrics` tells Prometheus. Labels have fixed values, never an id. */
export class Metrics {
  readonly #families: readonly Family[];
  readonly #lag = new LoopLag();
  #exposition: Promise<Exposition> | undefined;

  /** A part with new figures gets families of its own here. */
  constructor({ calls, traffic, executions, watcher, requests, usage, reports }: MetricsSources) {
    const families = [
      ...callFamilies(calls),
      ...trafficFamilies(traffic, executions),
      ...cacheFamilies(watcher),
      ...kubeFamilies(requests),
      ...reportFamilies(reports),
      ...usageFamilies(usage),
      ...runtimeFamilies(this.#lag),
    ].map((family) => ({ ...family, name: PREFIX + family.name }));
    this.#families = [...families, ...processFamilies()];
  }

  /** Name, type, labels and meaning of each metric, in the order of the page. */
  get families(): readonly Pick<Family, "name" | "type" | "labels" | "help">[] {
    return this.#families;
  }

  get pages(): Pages {
    return { "/metrics": () => this.#page() };
  }

  /** Measures what must be measured all the time; until aborted, and never throws. */
  run(signal: AbortSignal): Promise<void> {
    return this.#lag.run(signal);
  }

  async #page(): Promise<Page> {
    this.#exposition ??= import("./metrics/exposition.ts").then(({ Exposition }) => new Exposition(this.#families));
    const exposition = await this.#exposition;
    return { status: 200, contentType: exposition.contentType, body: await exposition.text() };
  }
}
