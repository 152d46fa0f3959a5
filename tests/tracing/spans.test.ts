import { expect, setDefaultTimeout, test } from "bun:test";
import { Collector } from "../support/collector.ts";
import { ExecSession } from "../support/exec.ts";
import { startMain } from "../support/main.ts";
import { freshId, startRunner } from "../support/runner.ts";
import { refusal, until } from "../support/wait.ts";

/* Spans of calls, as a collector gets them over OTLP/HTTP from the real application. */
setDefaultTimeout(30_000);

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN = "00f067aa0ba902b7";
const SERVICE = "agynio.api.runner.v1.RunnerService";

async function traced(env: Record<string, string> = {}) {
  const collector = await Collector.start();
  const runner = await startRunner({ env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...env } });
  return {
    collector,
    runner,
    [Symbol.asyncDispose]: async () => {
      await runner[Symbol.asyncDispose]();
      await collector[Symbol.asyncDispose]();
    },
  };
}

test("a call is a span of its caller's trace, with what it asked of the Kubernetes API as its children", async () => {
  await using both = await traced({ OTEL_SERVICE_NAME: "my-runner", OTEL_EXPORTER_OTLP_HEADERS: "x-key=canary-key" });
  const { collector, runner } = both;
  const { client } = runner;
  const headers = { traceparent: `00-${TRACE}-${SPAN}-01` };
  const before = Date.now();
  await refusal(client.inspectWorkload({ workloadId: freshId() }, { headers }));
  await client.ready({});
  const [call] = await until("the span is there", () => {
    const spans = collector.named("InspectWorkload");
    return spans.length > 0 && collector.named("Ready").length > 0 ? spans : undefined;
  });
  expect(call).toMatchObject({
    name: `${SERVICE}/InspectWorkload`,
    kind: 2,
    traceId: TRACE,
    parentSpanId: SPAN,
    attributes: {
      "rpc.system": "grpc",
      "rpc.service": SERVICE,
      "rpc.method": "InspectWorkload",
      "rpc.grpc.status_code": 5,
    },
  });
  expect(call?.status.code ?? 0).toBe(0); // a caller's mistake is no error of the server
  expect(call?.startMs).toBeWithin(before - 1, Date.now());
  expect(call?.endMs).toBeGreaterThanOrEqual(call?.startMs ?? Number.NaN);
  expect(collector.named("kubernetes GET pods")).toMatchObject([
    { kind: 3, traceId: TRACE, parentSpanId: call?.spanId, attributes: { "http.response.status_code": 404 } },
  ]);
  const [ready] = collector.named("Ready");
  expect(ready).toMatchObject({ attributes: { "rpc.grpc.status_code": 0 } });
  expect(ready?.parentSpanId ?? "").toBe("");
  expect(ready?.traceId).not.toBe(TRACE);
  expect(collector.resources[0]).toMatchObject({ "service.name": "my-runner" });
  expect(collector.requests[0]).toMatchObject({ path: "/v1/traces", headers: { "x-key": "canary-key" } });
  // The log line names the same span; nothing but the calls' own was recorded, and the key is told nowhere.
  const line = runner.logLines().find(({ msg, rpc }) => msg === "request" && rpc === "InspectWorkload");
  expect(line).toMatchObject({ trace_id: TRACE, span_id: call?.spanId });
  expect(collector.named("WATCH pods")).toEqual([]);
  expect(runner.logText()).not.toContain("canary-key");
});

test("a stream is a span from its start to its end, also when its caller goes", async () => {
  await using both = await traced();
  const { collector, runner } = both;
  const { target } = await runner.run();
  const session = new ExecSession(runner.client, { targetId: target, commandArgv: ["cat"] });
  await session.started();
  session.stdin("x");
  await session.untilOutput("x");
  expect(collector.named("/Exec")).toEqual([]);
  session.reset();
  const [call] = await until("the span is there", () =>
    collector.named("/Exec").length > 0 ? collector.named("/Exec") : undefined,
  );
  expect(call).toMatchObject({ attributes: { "rpc.grpc.status_code": 1 } });
  expect(collector.named("kubernetes EXEC pods/exec")).toMatchObject([
    { traceId: call?.traceId, parentSpanId: call?.spanId, attributes: { "http.response.status_code": 101 } },
  ]);
});

test("a caller that does not record its trace decides for the runner, and so does the sampler", async () => {
  const count = async (env: Record<string, string>, flags: string) => {
    await using collector = await Collector.start();
    {
      await using runner = await startRunner({ env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...env } });
      await runner.client.ready({}, { headers: { traceparent: `00-${TRACE}-${SPAN}-${flags}` } });
      await runner.client.listWorkloads({}, { headers: { traceparent: `00-${TRACE}-${SPAN}-01` } });
    } // sends what waits
    return collector.spans.map(({ attributes }) => attributes["rpc.method"]);
  };
  expect(await count({}, "00")).toEqual(["ListWorkloads"]);
  expect(await count({ OTEL_TRACES_SAMPLER: "always_on" }, "00")).toEqual(["Ready", "ListWorkloads"]);
  expect(await count({ OTEL_TRACES_SAMPLER: "always_off" }, "01")).toEqual([]);
});

test("a collector that is away, refuses or does not answer holds up no call, and its loss is told once", async () => {
  for (const answer of [400, "nothing"] as const) {
    await using both = await traced();
    const { collector, runner } = both;
    collector.answer = answer;
    for (let count = 0; count < 200; count++) await runner.client.ready({});
    if (answer === 400)
      await until("the loss is told", () =>
        runner.logLines().find(({ msg }) => String(msg).startsWith("spans are lost")),
      );
    for (let count = 0; count < 200; count++) await runner.client.ready({});
    const told = runner.logLines().filter(({ msg }) => String(msg).startsWith("spans are lost"));
    expect(told.length).toBeLessThanOrEqual(1);
  }
});

test("the process sends its last spans when it is told to end, and ends in time without a collector", async () => {
  await using collector = await Collector.start();
  for (const endpoint of [collector.url, "http://127.0.0.1:9"]) {
    await using main = startMain({
      KUBE_NAMESPACE: "workloads",
      KUBECONFIG: `${import.meta.dir}/../support/nowhere.yaml`,
      GRPC_ADDR: "127.0.0.1:0",
      OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
    });
    const { addr } = await main.line("gRPC server starting");
    const json = { "content-type": "application/json" };
    await fetch(`http://${addr}/${SERVICE}/Ready`, { method: "POST", headers: json, body: "{}" });
    main.child.kill("SIGTERM");
    expect(await main.end()).toEqual({ status: 0, said: "" });
  }
  expect(collector.named("Ready")).toHaveLength(1);
});
