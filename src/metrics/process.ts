import { readdirSync, readFileSync } from "node:fs";
import { cpuUsage, memoryUsage, uptime, versions } from "node:process";
import manifest from "../../package.json" with { type: "json" };
import { Durations } from "../figures.ts";
import { sleep } from "../time.ts";
import { counter, type Family, gauge } from "./family.ts";

/*
 * Written here because prom-client's own are not right on Bun (15.1.3 on 1.4.5): its CPU time begins when it is loaded, and
 * of its rest garbage collections, handles, requests and heap spaces are always 0.
 */

/** How often the event loop is asked how late it is. */
const LAG_EVERY_MS = 500;
const LAG_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

/** How much later than asked a timer fires: what every event of the process waits at such a moment. */
export class LoopLag {
  readonly durations = new Durations(LAG_BOUNDS);

  /** Until aborted; never throws. */
  async run(signal: AbortSignal): Promise<void> {
    for (;;) {
      const startedAt = performance.now();
      try {
        await sleep(LAG_EVERY_MS, signal);
      } catch {
        return; // aborted
      }
      this.durations.add(Math.max(0, performance.now() - startedAt - LAG_EVERY_MS) / 1000);
    }
  }
}

/** Under the names that every Prometheus client gives them, without a prefix. */
export function processFamilies(): Family[] {
  const startedAt = Date.now() / 1000 - uptime();
  const maxFds = Number(
    /^Max open files +(\d+)/m.exec(fromProc(() => readFileSync("/proc/self/limits", "utf8")) ?? "")?.[1],
  );
  return [
    counter("process_cpu_seconds_total", "User and system CPU time spent, in seconds.", () => {
      const { user, system } = cpuUsage();
      return (user + system) / 1e6;
    }),
    gauge("process_resident_memory_bytes", "Resident memory, in bytes.", () => memoryUsage.rss()),
    gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.", () => startedAt),
    gauge("process_open_fds", "Open file descriptors.", () => fromProc(() => readdirSync("/proc/self/fd").length)),
    gauge("process_max_fds", "Most file descriptors that may be open.", () =>
      Number.isNaN(maxFds) ? undefined : maxFds,
    ),
  ];
}

export function runtimeFamilies(lag: LoopLag): Family[] {
  return [
    {
      type: "gauge",
      name: "build_info",
      help: "1, with the version of the runner and of Bun.",
      labels: ["version", "bun"],
      read: () => [[{ version: manifest.version, bun: versions.bun ?? "" }, 1]],
    },
    gauge("heap_used_bytes", "Memory that JavaScript objects take, in bytes.", () => memoryUsage().heapUsed),
    {
      type: "histogram",
      name: "event_loop_lag_seconds",
      help: `How late the event loop is, asked every ${LAG_EVERY_MS / 1000} s.`,
      read: () => [[{}, lag.durations]],
    },
  ];
}

/** Undefined where there is no /proc. */
function fromProc<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
