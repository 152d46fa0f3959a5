import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { one, render } from "../chart/helm.ts";
import { exec } from "../support/exec.ts";
import { sharedRunner } from "../support/runner.ts";
import { refusal } from "../support/wait.ts";
import { ALERTS, alerts, filledIn, panels } from "./monitoring.ts";
import { scrape } from "./scrape.ts";

/* What Prometheus's own tool says of metrics, alerts and queries. PROMTOOL and HELM are the programs; run.sh installs them. */
const runner = sharedRunner();

function promtool(args: readonly string[], input = ""): { ok: boolean; text: string } {
  const { success, stdout, stderr } = Bun.spawnSync([process.env.PROMTOOL ?? "promtool", ...args], {
    stdin: Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
  });
  return { ok: success, text: stdout.toString() + stderr.toString() };
}

/** The same with a file of this text, whose path stands for FILE. */
function promtoolWith(text: string, ...args: readonly string[]) {
  const directory = mkdtempSync(join(tmpdir(), "promtool-"));
  try {
    const path = join(directory, "file.yaml");
    writeFileSync(path, text);
    return promtool(args.map((arg) => (arg === "FILE" ? path : arg)));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

test("promtool check metrics finds nothing in a scrape of a runner that has worked", async () => {
  const { target } = await runner().run();
  await exec(runner().client, { targetId: target, commandArgv: ["true"] });
  await refusal(runner().client.startWorkload({}));
  const { text } = await scrape(runner());
  expect(promtool(["check", "metrics"], text)).toEqual({ ok: true, text: "" });
  // It would have said so.
  expect(promtool(["check", "metrics"], text.replaceAll("rpc_started_total", "rpc_started")).ok).toBe(false);
});

test("promtool check rules takes the alerts, as they are and as the chart renders them", () => {
  expect(promtool(["check", "rules", "--lint-fatal", ALERTS])).toMatchObject({ ok: true });
  const rules = one(render({ metrics: { rules: { enabled: true } } }), "PrometheusRule");
  const { ok, text } = promtoolWith(stringify(rules.spec), "check", "rules", "--lint-fatal", "FILE");
  expect([ok, text]).toEqual([true, expect.stringContaining("8 rules found")]);
});

test("promtool test rules: each alert fires when it should, and not before, nor for a runner that is well", () => {
  const tests = readFileSync(`${import.meta.dir}/alerts.test.yaml`, "utf8");
  for (const { alert } of alerts()) expect(tests.split(`alertname: ${alert}\n`).length).toBe(4);
  const withAlerts = tests.replace("[ALERTS]", JSON.stringify([ALERTS]));
  expect(promtoolWith(withAlerts, "test", "rules", "FILE")).toMatchObject({ ok: true });
  expect(promtoolWith(withAlerts.replace("0+6x60", "0+600x60"), "test", "rules", "FILE").ok).toBe(false);
});

test("every query of the dashboard is one that Prometheus can read", () => {
  const queries = panels().flatMap(({ targets = [] }) => targets);
  const rules = queries.map(({ expr }, index) => ({ record: `dashboard:query:${index}`, expr: filledIn(expr) }));
  const { ok, text } = promtoolWith(stringify({ groups: [{ name: "dashboard", rules }] }), "check", "rules", "FILE");
  expect([ok, text]).toEqual([true, expect.stringContaining(`${queries.length} rules found`)]);
});

test("the chart's rules are for the release's namespace and the operator's runbooks, and all is off by default", () => {
  const values = { rules: { enabled: true, labels: { release: "p" }, runbookUrl: "https://wiki/runbooks" } };
  const rule = one(render({ metrics: values }, "--namespace", "elsewhere"), "PrometheusRule");
  expect(rule.metadata).toMatchObject({ namespace: "elsewhere", labels: { release: "p" } });
  const text = JSON.stringify(rule.spec);
  expect(text.split('namespace=\\"elsewhere\\"').length).toBeGreaterThan(8);
  expect(text).not.toContain("agyn-platform");
  expect(
    rule.spec.groups[0].rules.map((each: { annotations: { runbook_url: string } }) => each.annotations.runbook_url),
  ).toEqual(alerts().map(({ alert }) => `https://wiki/runbooks#${alert.toLowerCase()}`));
  // Prometheus's own templates come through whole.
  expect(rule.spec.groups[0].rules[1].annotations.description).toStartWith("{{ $labels.pod }} has had");
  expect(render().map(({ kind }) => kind)).not.toContain("PrometheusRule");
});

test("the chart's dashboard is the file, in a ConfigMap that Grafana's sidecar finds", () => {
  const dashboard = { enabled: true, annotations: { grafana_folder: "agyn" } };
  const map = one(render({ metrics: { dashboard } }), "ConfigMap");
  expect(map.metadata).toMatchObject({ labels: { grafana_dashboard: "1" }, annotations: { grafana_folder: "agyn" } });
  expect(JSON.parse(map.data["k8s-runner.json"]).panels).toEqual(panels());
});

test("the monitor asks with the operator's TLS settings where the port has TLS", () => {
  const tlsConfig = { insecureSkipVerify: true };
  const values = { metrics: { enabled: true, tlsConfig }, tls: { enabled: true, secretName: "tls" } };
  expect(one(render(values), "ServiceMonitor").spec.endpoints).toEqual([
    { port: "grpc", path: "/metrics", interval: "30s", scheme: "https", tlsConfig },
  ]);
  expect(
    one(render({ metrics: { enabled: true, tlsConfig } }), "ServiceMonitor").spec.endpoints[0].tlsConfig,
  ).toBeUndefined();
});
