import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { sharedRunner } from "../support/runner.ts";
import { alerts, metricsIn, panels } from "./monitoring.ts";
import { scrape } from "./scrape.ts";

/* The chart's alerts and dashboard speak of metrics that there are, and the documents of both. */
const runner = sharedRunner();
const doc = (name: string) => readFileSync(`${import.meta.dir}/../../docs/${name}`, "utf8");

/** Every family of a scrape, by `name type`; those of a histogram with their parts. */
async function families() {
  await runner().run(); // so that there is one of each
  const { text } = await scrape(runner());
  const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = "", type = ""]) => ({ name, type }));
  return { types, text };
}

test("every metric of the alerts and of the dashboard is one that a scrape tells, with the labels that are asked for", async () => {
  const { samples } = await scrape(runner());
  await runner().run();
  const labels = new Map<string, Set<string>>();
  for (const { name, labels: given } of [...samples, ...(await scrape(runner())).samples])
    labels.set(name, new Set([...(labels.get(name) ?? []), ...Object.keys(given)]));
  const asked = [...alerts(), ...panels().flatMap(({ targets = [] }) => targets)].map(({ expr }) => expr);
  expect(asked.length).toBeGreaterThan(30);
  for (const expr of asked) {
    for (const name of metricsIn(expr)) expect([...labels.keys()]).toContain(name);
    for (const [, name = "", selector = ""] of expr.matchAll(/\b((?:k8s_runner|process)_[a-z_]+)\{([^}]*)\}/g))
      for (const [, label = ""] of selector.matchAll(/([a-z_]+)(?:=~|!=|=)/g))
        expect(["namespace", ...(labels.get(name) ?? [])]).toContain(label);
  }
});

test("every metric that a scrape tells is on the dashboard", async () => {
  const { types } = await families();
  const shown = new Set(panels().flatMap(({ targets = [] }) => targets.flatMap(({ expr }) => metricsIn(expr))));
  for (const { name, type } of types) expect([...shown]).toContain(type === "histogram" ? `${name}_bucket` : name);
});

describe("the eight alerts", () => {
  test("have a name, a severity, and a runbook of their own in docs/runbooks.md", () => {
    const all = alerts();
    expect(new Set(all.map(({ alert }) => alert)).size).toBe(8);
    const headings = [...doc("runbooks.md").matchAll(/^## (.+)$/gm)].map(([, heading = ""]) => heading);
    expect(headings).toEqual(all.map(({ alert }) => alert));
    for (const { alert, annotations, labels } of all) {
      expect(annotations.runbook_url).toEndWith(`/docs/runbooks.md#${alert.toLowerCase()}`);
      expect(labels.severity).toMatch(/^(critical|warning)$/);
      expect(annotations.summary).not.toBe("");
    }
  });

  test("have a runbook that says how to see and what to do, of metrics that there are", async () => {
    const { types } = await families();
    const names = types.flatMap(({ name }) => [name, `${name}_bucket`]);
    for (const section of doc("runbooks.md").split(/^## /m).slice(1)) {
      expect(section).toMatch(/^See\b/m);
      expect(section).toMatch(/^Do:$/m);
      for (const name of metricsIn(section)) expect(names).toContain(name);
    }
  });
});

test("the table of metrics in docs/operations.md is what a scrape tells", async () => {
  const { types, text } = await families();
  const rows = [
    ...doc("operations.md").matchAll(/^\| `((?:k8s_runner|process)_[a-z_]+)` +\| (\w+) +\| (.*?) +\| (.+?) +\|$/gm),
  ];
  const labels = (name: string) =>
    [
      ...new Set(
        [...text.matchAll(new RegExp(`^${name}(?:_bucket)?\\{(.*)\\} `, "gm"))].flatMap(([, all = ""]) =>
          [...all.matchAll(/([a-z_]+)="/g)].map(([, label]) => label),
        ),
      ),
    ]
      .filter((label) => label !== "le")
      .map((label) => `\`${label}\``)
      .join(", ");
  const help = (name: string) => new RegExp(`^# HELP ${name} (.*)$`, "m").exec(text)?.[1];
  expect(rows.map(([, name, type, labelled, meaning]) => [name, type, labelled, meaning])).toEqual(
    types.map(({ name, type }) => [name, type, labels(name), help(name)]),
  );
});
