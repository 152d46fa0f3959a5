import { expect, test } from "bun:test";
import { loadConfig } from "../../src/config.ts";
import { WorkloadStatus } from "../../src/gen/agynio/api/runners/v1/runners_pb.ts";
import { until } from "../support/wait.ts";
import { id, podIn } from "./pods.ts";
import { reporting } from "./reporting.ts";

/* Rows of process.md's table 5.1: how the runner meets what the platform checks, in its order. */

const W = id(1);
const warnings = (link: Awaited<ReturnType<typeof reporting>>) =>
  link.lines("report workload state").map(({ level, error }) => `${level} ${error}`);

test("table 5.1, service_token blank: such a runner does not start", () => {
  const env = { KUBE_NAMESPACE: "workloads", ZITI_ENABLED: "true", SERVICE_TOKEN: " " };
  expect(() => loadConfig(env)).toThrow("SERVICE_TOKEN is required when ZITI_ENABLED is true");
});

test("table 5.1, token unknown: an error like any other, tried again by replays", async () => {
  await using link = await reporting({ token: "another", timing: { replayMs: 1 } });
  link.pods.put(podIn("ready", W));
  await until("replays tried again", () => link.told(W).length > 6 || undefined);
  expect(warnings(link)[0]).toBe("warn [unauthenticated] unknown token");
});

test("table 5.1, runner_id: always empty, so it never disagrees", async () => {
  await using link = await reporting();
  link.pods.put(podIn("ready", W));
  await link.settled();
  expect(link.gateway.reports.map(({ request }) => request.runnerId)).toEqual([""]);
  expect(link.gateway.record.get(W)?.status).toBe("RUNNING");
});

test("table 5.1, workload_id not a UUID: refused once and not tried again", async () => {
  await using link = await reporting();
  link.pods.put(podIn("ready", "no-uuid"));
  await link.settled();
  expect([link.told("no-uuid"), warnings(link)]).toEqual([
    ["RUNNING"],
    ["warn [invalid_argument] workload_id is not a UUID"],
  ]);
});

test("table 5.1, workload unknown, and one of another runner: final for that Pod", async () => {
  await using link = await reporting();
  link.gateway.known = new Set([id(2)]);
  link.gateway.foreign = new Set([id(2)]);
  for (const state of ["ready", "failed"] as const) {
    link.pods.put(podIn(state, W));
    link.pods.put(podIn(state, id(2)));
    await link.settled();
  }
  expect([link.told(W), link.told(id(2))]).toEqual([["RUNNING"], ["RUNNING"]]);
  expect(warnings(link).sort()).toEqual([
    "warn [not_found] workload not found",
    "warn [permission_denied] workload does not belong to the reporting runner",
  ]);
});

test("table 5.1, status: only RUNNING and FAILED in the platform's own numbers", async () => {
  await using link = await reporting();
  for (const state of ["pending", "unready", "ready", "succeeded", "failed"] as const) {
    link.pods.put(podIn(state, W));
    await link.settled();
  }
  expect(link.gateway.reports.map(({ request }) => request.status)).toEqual([
    WorkloadStatus.RUNNING,
    WorkloadStatus.FAILED,
  ]);
});

test("table 5.1, workload already removed, or observed_at earlier than the record: applied false is no failure", async () => {
  await using link = await reporting({ now: () => 1_000 });
  link.gateway.removed.add(W);
  link.gateway.record.set(id(2), { status: "OTHER", observedMs: 5_000 });
  link.pods.put(podIn("ready", W));
  link.pods.put(podIn("ready", id(2)));
  await link.settled();
  expect([link.told(W), link.told(id(2)), warnings(link)]).toEqual([["RUNNING"], ["RUNNING"], []]);
  expect(link.gateway.record.get(id(2))?.status).toBe("OTHER");
});

test("table 5.1, otherwise: written, with every container in a role and a status that the store takes", async () => {
  await using link = await reporting();
  link.pods.put(podIn("failed", W, { status: { reason: "Evicted", message: "The node was low on memory." } }));
  await link.settled();
  expect(link.gateway.record.get(W)?.status).toBe("FAILED");
  expect(link.gateway.of(W)[0]?.request.containers.length).toBe(1);
});
