import { readFileSync } from "node:fs";
import { parse } from "yaml";

/** The chart's alerts and dashboard, as far as tests look into them. */

const MONITORING = `${import.meta.dir}/../../charts/k8s-runner/monitoring`;
export const ALERTS = `${MONITORING}/alerts.yaml`;

export interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string; readonly runbook_url: string };
}

// The casts: promtool checks the one, and the tests below would fail on another shape of the other.
export const alerts = (): Alert[] =>
  (parse(readFileSync(ALERTS, "utf8")) as { groups: { rules: Alert[] }[] }).groups.flatMap(({ rules }) => rules);

export interface Panel {
  readonly title: string;
  readonly type: string;
  readonly targets?: readonly { readonly expr: string }[];
}

export const panels = (): Panel[] =>
  (JSON.parse(readFileSync(`${MONITORING}/dashboard.json`, "utf8")) as { panels: Panel[] }).panels;

/** A dashboard's query as Prometheus takes it, with Grafana's variables filled in. */
export const filledIn = (expr: string): string =>
  expr.replaceAll("$__rate_interval", "5m").replaceAll("$namespace", "agyn-platform");

/** Names of metrics in a query. */
export const metricsIn = (expr: string): string[] =>
  [...expr.matchAll(/\b(?:k8s_runner|process)_[a-z_]+/g)].map(String);
