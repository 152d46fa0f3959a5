import { Tally } from "../figures.ts";
import { REPORT_OUTCOMES, type StateReports } from "../gateway/report.ts";
import { type KubeRequests, statusName } from "../kube/requests.ts";
import type { Usage } from "../limits.ts";
import { snakeCase } from "../naming.ts";
import type { Calls, MethodFigures } from "../runner/calls.ts";
import type { Executions } from "../runner/execution.ts";
import type { Traffic } from "../runner/traffic.ts";
import type { PodWatcher } from "../watcher.ts";
import { counter, type Family, gauge, type Labels, labelled } from "./family.ts";

export function callFamilies(calls: Calls): Family[] {
  const labels = ["rpc_service", "rpc_method"];
  const of = ({ service, method }: MethodFigures): Labels => ({ rpc_service: service, rpc_method: method });
  const typed = (method: MethodFigures): Labels => ({ ...of(method), rpc_type: method.type });
  const durations = (isUnary: boolean) =>
    calls[Symbol.iterator]()
      .filter(({ type }) => (type === "unary") === isUnary)
      .map((method) => [of(method), method.durations] as const);
  return [
    {
      type: "counter",
      name: "rpc_started_total",
      help: "Calls that came, whatever their protocol. Those of methods that are not there are told as unknown.",
      labels: [...labels, "rpc_type"],
      read: () => calls[Symbol.iterator]().map((method) => [typed(method), method.started] as const),
    },
    {
      type: "counter",
      name: "rpc_handled_total",
      help: "Calls that ended, by gRPC status code.",
      labels: [...labels, "rpc_type", "code"],
      *read() {
        for (const method of calls)
          for (const [code, count] of method.handled()) yield [{ ...typed(method), code }, count];
      },
    },
    {
      type: "gauge",
      name: "rpc_in_flight",
      help: "Calls that have not ended.",
      labels,
      read: () => calls[Symbol.iterator]().map((method) => [of(method), method.inFlight] as const),
    },
    {
      type: "histogram",
      name: "rpc_duration_seconds",
      help: "Time that unary calls took in their handlers, in seconds.",
      labels,
      read: () => durations(true),
    },
    {
      type: "histogram",
      name: "rpc_stream_duration_seconds",
      help: "Time that streaming calls were open, in seconds.",
      labels,
      read: () => durations(false),
    },
  ];
}

export function trafficFamilies(traffic: Traffic, executions: Executions): Family[] {
  return [
    labelled(
      "gauge",
      { name: "open_streams", help: "Executions, followed logs and event streams that are open.", label: "kind" },
      () => [["exec", executions.size], ...traffic.open],
    ),
    labelled(
      "counter",
      { name: "executions_total", help: "Executions that ended, by the reason of their exit event.", label: "reason" },
      () => executions.ended,
    ),
    labelled(
      "counter",
      {
        name: "exec_bytes_total",
        help: "Bytes of executions, taken from callers (stdin) and from the cluster.",
        label: "stream",
      },
      () => traffic.exec,
    ),
    counter("log_bytes_total", "Bytes of logs given to callers.", () => traffic.logBytes),
    counter("archive_bytes_total", "Bytes of archives unpacked.", () => traffic.archiveBytes),
  ];
}

export function cacheFamilies(watcher: PodWatcher): Family[] {
  const { stats } = watcher;
  const sinceEvent = () => (stats.lastEventAt === undefined ? undefined : performance.now() - stats.lastEventAt);
  return [
    gauge("cache_pods", "Pods in the cache.", () => watcher.size),
    gauge("cache_live", "1 while the cache may answer: it has synced and was proven within 45 s.", () =>
      watcher.live ? 1 : 0,
    ),
    gauge(
      "cache_unproven_seconds",
      "Time since the cache was last proven to be in step, by a list, event, bookmark or a watch's good end; +Inf before the first list.",
      () => watcher.unprovenMs / 1000,
    ),
    gauge(
      "cache_last_event_timestamp_seconds",
      "When a Pod last changed in the cache, in seconds since 1970; absent before the first change.",
      () => {
        const ms = sinceEvent();
        return ms === undefined ? undefined : (Date.now() - ms) / 1000;
      },
    ),
    counter("cache_lists_total", "Lists of all Pods that were begun.", () => watcher.requests.lists),
    counter(
      "cache_watches_total",
      "Watches that were opened, but for those that a list came with.",
      () => watcher.requests.watches,
    ),
    labelled(
      "counter",
      {
        name: "cache_watch_failures_total",
        help: "Lists and watches that failed or ended early, and were begun anew, by cause: gone, connection, short, restored, error or an HTTP status.",
        label: "cause",
      },
      () => causes(stats.failures),
    ),
    counter(
      "cache_live_reads_total",
      "Reads that went to the Kubernetes API past the cache.",
      () => watcher.requests.liveReads,
    ),
    labelled(
      "counter",
      {
        name: "cache_freshness_waits_total",
        help: "Reads that found the cache behind a write of ours: the watch told it in time (told), or not, so that the API was asked (late), or was known to be later than that (skipped), or the caller went (left).",
        label: "outcome",
      },
      () => stats.freshnessWaits,
    ),
  ];
}

const CAUSES = ["gone", "connection", "short", "restored", "error"];

/** Statuses of the API are as many as it likes: bounded here. */
function causes(failures: ReadonlyMap<string, number>): Map<string, number> {
  const counts = new Map(CAUSES.map((cause) => [cause, 0]));
  for (const [cause, count] of failures) {
    const name = counts.has(cause) ? cause : statusName(Number(cause));
    counts.set(name, (counts.get(name) ?? 0) + count);
  }
  return counts;
}

export function kubeFamilies(requests: KubeRequests): Family[] {
  return [
    {
      type: "counter",
      name: "kube_requests_total",
      help: "Requests to the Kubernetes API, each try for itself, by HTTP status; none: not answered.",
      labels: ["verb", "resource", "code"],
      *read() {
        for (const { verb, resource, codes } of requests)
          for (const [code, count] of codes) yield [{ verb, resource, code }, count];
      },
    },
    {
      type: "histogram",
      name: "kube_request_duration_seconds",
      help: "Time that they took, in seconds; of a watch, a log and an exec until it was open.",
      labels: ["verb", "resource"],
      *read() {
        for (const { verb, resource, durations } of requests) yield [{ verb, resource }, durations];
      },
    },
  ];
}

/** `reports` gives undefined while nothing is reported. */
export function reportFamilies(reports: () => StateReports | undefined): Family[] {
  return [
    gauge(
      "state_reports_pending",
      "Workloads with a state that the platform has not accepted yet.",
      () => reports()?.pending ?? 0,
    ),
    labelled(
      "counter",
      {
        name: "state_reports_total",
        help: "State reports sent to the platform, each try for itself, by what came of it.",
        label: "outcome",
      },
      () => reports()?.sent ?? new Tally(REPORT_OUTCOMES),
    ),
  ];
}

/** What callers use of what they may (limits.ts). */
export function usageFamilies(usage: Usage): Family[] {
  const named = (values: Readonly<Record<string, number>>) =>
    Object.entries(values).map(([name, value]) => [snakeCase(name), value] as const);
  return [
    labelled("gauge", { name: "callers_in_use", help: "What callers use now, by resource.", label: "resource" }, () =>
      named(usage.current()),
    ),
    labelled(
      "counter",
      {
        name: "limits_reached_total",
        help: "What was refused, ended or closed for a limit, by limit.",
        label: "limit",
      },
      () => named(usage.refused()),
    ),
  ];
}
