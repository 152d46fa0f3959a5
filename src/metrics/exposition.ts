import { Counter, Gauge, type Histogram, Registry } from "prom-client";
import type { Durations } from "../figures.ts";
import type { Family, Labels } from "./family.ts";

/*
 * The one place that knows prom-client. It is loaded by the first scrape: nothing is counted in it, so a process that is
 * never scraped does without its code and memory.
 */

/** The families as text that Prometheus reads. */
export class Exposition {
  readonly #registry = new Registry();

  constructor(families: readonly Family[]) {
    for (const family of families) this.#add(family);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #add(family: Family): void {
    const { name, help, labels = [] } = family;
    const described = { name, help, labelNames: [...labels], registers: [this.#registry] };
    if (family.type === "histogram")
      // The cast: a registry asks a metric for its name and for `get` alone, and prom-client has no type that says so.
      this.#registry.registerMetric(new ReadHistogram(name, help, family.read) as unknown as Histogram);
    else if (family.type === "counter")
      new Counter({
        ...described,
        collect() {
          this.reset();
          for (const [values, value] of family.read()) this.inc(values, value);
        },
      });
    else
      new Gauge({
        ...described,
        collect() {
          this.reset();
          if (labels.length === 0) this.remove(); // a reset makes it 0, and it may have no value now
          for (const [values, value] of family.read()) this.set(values, value);
        },
      });
  }
}

/** A histogram whose observations were counted elsewhere. */
class ReadHistogram {
  readonly name: string;
  readonly #help: string;
  readonly #read: () => Iterable<readonly [Labels, Durations]>;

  constructor(name: string, help: string, read: () => Iterable<readonly [Labels, Durations]>) {
    this.name = name;
    this.#help = help;
    this.#read = read;
  }

  async get() {
    return { name: this.name, help: this.#help, type: "histogram", aggregator: "sum", values: [...this.#values()] };
  }

  *#values() {
    for (const [labels, { bounds, counts, count, sum }] of this.#read()) {
      let sofar = 0;
      for (const [index, le] of bounds.entries()) {
        sofar += counts[index] ?? 0;
        yield { metricName: `${this.name}_bucket`, labels: { ...labels, le }, value: sofar };
      }
      yield { metricName: `${this.name}_bucket`, labels: { ...labels, le: "+Inf" }, value: count };
      yield { metricName: `${this.name}_sum`, labels, value: sum };
      yield { metricName: `${this.name}_count`, labels, value: count };
    }
  }
}
