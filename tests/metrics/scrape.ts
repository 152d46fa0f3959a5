import type { TestRunner } from "../support/runner.ts";

/** One line of a scrape: `name{label="value"} 1`. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** What `/metrics` told at one moment. */
export class Scrape {
  readonly text: string;
  readonly samples: readonly Sample[];

  constructor(text: string) {
    this.text = text;
    this.samples = text
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"))
      .map(sampleOf);
  }

  /** The sum of the samples of this name that have these labels, of `k8s_runner_` unless the name says otherwise. */
  sum(name: string, labels: Readonly<Record<string, string>> = {}): number {
    return this.of(name, labels).reduce((sum, { value }) => sum + value, 0);
  }

  of(name: string, labels: Readonly<Record<string, string>> = {}): Sample[] {
    const full = name.startsWith("process_") ? name : `k8s_runner_${name}`;
    return this.samples.filter(
      (each) => each.name === full && Object.entries(labels).every(([label, value]) => each.labels[label] === value),
    );
  }
}

const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;

function sampleOf(line: string): Sample {
  const [, name, labels = "", value = ""] = LINE.exec(line) ?? [];
  if (name === undefined) throw new Error(`not a sample: ${line}`);
  const pairs = [...labels.matchAll(/([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g)];
  return {
    name,
    labels: Object.fromEntries(pairs.map(([, label = "", text = ""]) => [label, text])),
    value: value === "+Inf" ? Number.POSITIVE_INFINITY : Number(value),
  };
}

/** Throws unless the page is there, and is Prometheus's text. */
export async function scrape({ baseUrl }: Pick<TestRunner, "baseUrl">): Promise<Scrape> {
  const answer = await fetch(`${baseUrl}/metrics`);
  const type = answer.headers.get("content-type");
  if (answer.status !== 200 || type !== "text/plain; version=0.0.4; charset=utf-8")
    throw new Error(`/metrics: ${answer.status} ${type}`);
  return new Scrape(await answer.text());
}

/** How much metrics move while `work` runs, by the key of what they are asked by. */
export async function moved<Key extends string>(
  runner: Pick<TestRunner, "baseUrl">,
  asked: Readonly<Record<Key, readonly [name: string, labels?: Readonly<Record<string, string>>]>>,
  work: () => Promise<unknown>,
): Promise<Record<Key, number>> {
  const before = await scrape(runner);
  await work();
  const after = await scrape(runner);
  // The cast: fromEntries forgets which keys there are.
  return Object.fromEntries(
    Object.entries<readonly [string, Readonly<Record<string, string>>?]>(asked).map(([key, [name, labels]]) => [
      key,
      after.sum(name, labels) - before.sum(name, labels),
    ]),
  ) as Record<Key, number>;
}
