import { afterAll, expect, test } from "bun:test";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { Code } from "@connectrpc/connect";
import manifest from "../../package.json";
import { fakeCompanion } from "../support/companion.ts";
import { exec } from "../support/exec.ts";
import { FakeGateway, refused, TOKEN } from "../support/gateway.ts";
import { freshId, script, sharedRunner } from "../support/runner.ts";
import { refusal, until, untilPhase } from "../support/wait.ts";
import { moved, scrape } from "./scrape.ts";

/* A runner that has joined a platform: its state reports, the process itself, and what holds for every metric. */
const gateway = await FakeGateway.start();
const runner = sharedRunner(() => ({
  env: {
    ZITI_ENABLED: "true",
    SERVICE_TOKEN: TOKEN,
    GATEWAY_ADDRESS: gateway.address,
    ZITI_COMPANION: fakeCompanion("serve").program,
  },
}));
afterAll(() => gateway.down());

test("state reports are counted by what came of them, and those that wait for the platform", async () => {
  const outcome = (outcome: string) => ["state_reports_total", { outcome }] as const;
  const asked = { applied: outcome("applied"), not: outcome("not_applied"), failed: outcome("failed") };
  const report = async () => {
    const { id } = await runner().run();
    await until("it is reported", () => gateway.of(id).length > 0 || undefined);
    await until("nothing is pending", async () =>
      (await scrape(runner())).sum("state_reports_pending") === 0 ? true : undefined,
    );
  };
  expect(await moved(runner(), asked, report)).toEqual({ applied: 1, not: 0, failed: 0 });
  gateway.script = { state: () => false };
  expect(await moved(runner(), asked, report)).toEqual({ applied: 0, not: 1, failed: 0 });
  gateway.script = {
    state: () => {
      throw refused("unknown workload", Code.NotFound);
    },
  };
  expect(await moved(runner(), asked, report)).toEqual({ applied: 0, not: 0, failed: 1 });
  const { promise: answer, resolve } = Promise.withResolvers<boolean>();
  gateway.script = { state: () => answer };
  await runner().run();
  await until("one is pending", async () =>
    (await scrape(runner())).sum("state_reports_pending") === 1 ? true : undefined,
  );
  gateway.script = {};
  resolve(true);
  await until("none is", async () => ((await scrape(runner())).sum("state_reports_pending") === 0 ? true : undefined));
});

test("the process tells its CPU time, memory, descriptors and start, and how late its event loop is", async () => {
  const before = await scrape(runner());
  expect(before.sum("process_start_time_seconds")).toBeWithin(
    Date.now() / 1000 - process.uptime() - 1,
    Date.now() / 1000,
  );
  const { user, system } = process.cpuUsage();
  expect(before.sum("process_cpu_seconds_total")).toBeLessThanOrEqual((user + system) / 1e6);
  expect(before.sum("process_cpu_seconds_total")).toBeGreaterThan((user + system) / 2e6);
  expect(before.sum("process_resident_memory_bytes")).toBeWithin(10e6, 4e9);
  expect(before.sum("heap_used_bytes")).toBeGreaterThan(0);
  expect(before.sum("process_max_fds")).toBeGreaterThan(before.sum("process_open_fds"));
  const child = spawn("sleep", ["60"], { stdio: "pipe" }); // three pipes
  const open = (await scrape(runner())).sum("process_open_fds");
  child.kill();
  await once(child, "close");
  expect(open).toBeGreaterThan(2);
  expect(before.of("build_info")).toEqual([
    { name: "k8s_runner_build_info", labels: { version: manifest.version, bun: Bun.version }, value: 1 },
  ]);
  // Held for longer than from one look at the loop to the next, it is late for one of them by the rest.
  const since = performance.now();
  while (performance.now() - since < 600);
  await until("a late loop is told", async () => {
    const page = await scrape(runner());
    const all = page.sum("event_loop_lag_seconds_count");
    return all > page.sum("event_loop_lag_seconds_bucket", { le: "0.05" }) || undefined;
  });
});

/** Everything that a label may say, whatever calls and answers come. */
const ALLOWED: Record<string, RegExp> = {
  rpc_service: /^(agynio\.api\.runner\.v1\.RunnerService|grpc\.health\.v1\.Health|unknown)$/,
  rpc_method: /^([A-Z][A-Za-z]+|unknown)$/,
  rpc_type: /^(unary|server_stream|bidi_stream)$/,
  code: /^([A-Z_]+|[1-5]xx|\d{3}|none)$/,
  kind: /^(exec|log_follow|event)$/,
  reason: /^(completed|timeout|idle_timeout|cancelled|runner_error)$/,
  stream: /^(stdin|stdout|stderr)$/,
  cause: /^(gone|connection|short|restored|error|\d{3}|[1-5]xx|none)$/,
  outcome: /^(told|late|skipped|left|applied|not_applied|failed)$/,
  verb: /^(GET|LIST|WATCH|POST|PATCH|DELETE|EXEC)$/,
  resource:
    /^(pods|pods\/log|pods\/exec|persistentvolumeclaims|secrets|events|version|connections|streams|executions|log_streams|event_streams)$/,
  limit: /^[a-z_]+$/,
  version: /^\d+\.\d+\.\d+$/,
  bun: /^\d+\.\d+\.\d+$/,
  le: /^(\+Inf|\d+(\.\d+)?)$/,
};

test("no label holds an id, a name or a text from outside, and their number does not grow with what is asked", async () => {
  const { client, run, start } = runner();
  const strange = ["/nope/", `/${freshId()}/Ready`, "/__proto__/constructor", "/metrics2"];
  const work = async () => {
    const { id, target } = await run({ workloadId: freshId(), additionalProperties: { label_team: "blue" } });
    await exec(client, { targetId: target, commandArgv: ["echo", id] });
    await refusal(client.inspectWorkload({ workloadId: freshId() }));
    await refusal(client.removeVolume({ volumeName: "../x" })).catch(() => undefined);
    await Promise.all(strange.map((path) => fetch(`${runner().baseUrl}${path}`, { method: "POST" })));
    const { id: ended } = await start({ main: script("true") });
    await untilPhase(client, ended, "succeeded");
    return id;
  };
  const ids = [await work()];
  const before = await scrape(runner());
  for (let round = 0; round < 3; round++) ids.push(await work());
  const after = await scrape(runner());
  for (const { name, labels } of after.samples) {
    expect(name).toMatch(/^(k8s_runner|process)_[a-z_]+$/);
    for (const [label, value] of Object.entries(labels)) expect(`${label}=${value}`).toMatch(allowed(label));
  }
  for (const id of ids) expect(after.text).not.toContain(id);
  expect(after.samples.length).toBe(before.samples.length);
});

function allowed(label: string): RegExp {
  const pattern = ALLOWED[label];
  if (pattern === undefined) throw new Error(`the label ${label} is not known to this test`);
  return new RegExp(`^${label}=(${pattern.source.replace(/^\^|\$$/g, "")})$`);
}
