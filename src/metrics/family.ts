import type { Durations } from "../figures.ts";

/** Values of a family's labels, all of them. From fixed sets: never an id, a name of an object or a text from outside. */
export type Labels = Readonly<Record<string, string>>;

/** One metric with all its label values, in the words of Prometheus; read anew at each scrape. */
export type Family = {
  /** Without the prefix of the program. */
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly string[];
} & (
  | { readonly type: "counter" | "gauge"; read(): Iterable<readonly [Labels, number]> }
  | { readonly type: "histogram"; read(): Iterable<readonly [Labels, Durations]> }
);

type Read = () => number | undefined;
const single = (read: Read) => () => {
  const value = read();
  return value === undefined ? [] : [[{}, value] as const];
};

/** A metric without labels; undefined: it has no value now. */
export const counter = (name: string, help: string, read: Read): Family => ({
  type: "counter",
  name,
  help,
  read: single(read),
});
export const gauge = (name: string, help: string, read: Read): Family => ({
  type: "gauge",
  name,
  help,
  read: single(read),
});

/** One with a single label, whose values and numbers `read` gives. */
export const labelled = (
  type: "counter" | "gauge",
  { name, help, label }: { name: string; help: string; label: string },
  read: () => Iterable<readonly [string, number]>,
): Family => ({
  type,
  name,
  help,
  labels: [label],
  *read() {
    for (const [value, number] of read()) yield [{ [label]: value }, number];
  },
});
