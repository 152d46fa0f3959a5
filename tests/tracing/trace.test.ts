import { expect, test } from "bun:test";
import { loadConfig } from "../../src/config.ts";
import { traceContextIn } from "../../src/trace.ts";
import { freshId, sharedRunner } from "../support/runner.ts";
import { refusal, until } from "../support/wait.ts";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN = "00f067aa0ba902b7";

test.each([
  [`00-${TRACE}-${SPAN}-01`, true],
  [`00-${TRACE}-${SPAN}-00`, false],
  [` 00-${TRACE}-${SPAN}-03 `, true],
  [`cc-${TRACE}-${SPAN}-01`, true],
  [`cc-${TRACE}-${SPAN}-01-what-the-future-brings`, true],
])("a traceparent is read: %s", (header, sampled) => {
  expect(traceContextIn(header)).toEqual({ traceId: TRACE, spanId: SPAN, sampled });
});

test.each([
  null,
  "",
  "00",
  `00-${TRACE}-${SPAN}`,
  `00-${TRACE}-${SPAN}-1`,
  `00-${TRACE}-${SPAN}-01-more`,
  `00-${TRACE}-${SPAN}-01.`,
  `ff-${TRACE}-${SPAN}-01`,
  `00-${TRACE.toUpperCase()}-${SPAN}-01`,
  `00-${TRACE.slice(1)}-${SPAN}-01`,
  `00-${"0".repeat(32)}-${SPAN}-01`,
  `00-${TRACE}-${"0".repeat(16)}-01`,
  `00-${TRACE}-${SPAN}-0g`,
  `00-${TRACE}-${SPAN}-01, 00-${TRACE}-${SPAN}-01`,
])("one that breaks the rules is none: %p", (header) => {
  expect(traceContextIn(header)).toBeUndefined();
});

const runner = sharedRunner();

test("the log line of a call names its caller's trace, and no other is made up", async () => {
  const id = freshId();
  const call = (traceparent: string) =>
    refusal(runner().client.inspectWorkload({ workloadId: id }, { headers: { traceparent } }));
  const lines = () =>
    runner()
      .logLines()
      .filter(({ msg, workload_id }) => msg === "request" && workload_id === id);
  await call(`00-${TRACE}-${SPAN}-01`);
  await call("00-not-a-trace");
  await until("both lines are there", () => lines().length === 2 || undefined);
  const [traced, untraced] = lines();
  expect(traced).toMatchObject({ trace_id: TRACE, span_id: SPAN, rpc: "InspectWorkload", code: "NotFound" });
  expect(Object.keys(untraced ?? {})).not.toContain("trace_id");
});

const required = { KUBE_NAMESPACE: "workloads" };
const tracing = (env: Record<string, string>) => loadConfig({ ...required, ...env }).tracing;

test("tracing is off unless a collector is named, and by OTEL_SDK_DISABLED", () => {
  expect(tracing({})).toBeUndefined();
  expect(tracing({ OTEL_SERVICE_NAME: "x", OTEL_TRACES_SAMPLER: "nonsense" })).toBeUndefined();
  expect(tracing({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318", OTEL_SDK_DISABLED: "True" })).toBeUndefined();
});

test("the collector, its headers and the sampler are OpenTelemetry's own variables", () => {
  const common = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318/base/", OTEL_EXPORTER_OTLP_HEADERS: "a=1, B=x%20y%2C" };
  const { endpoint, headers, serviceName, sampler, ratio } = tracing(common) ?? {};
  expect([endpoint?.href, serviceName, sampler, ratio]).toEqual([
    "http://c:4318/base/v1/traces",
    "k8s-runner",
    "parentbased_always_on",
    1,
  ]);
  expect([...(headers ?? [])].map(([name, value]) => [name, value.reveal()])).toEqual([
    ["a", "1"],
    ["B", "x y,"],
  ]);
  expect(
    tracing({
      ...common,
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://t/own",
      OTEL_SERVICE_NAME: "mine",
      OTEL_TRACES_SAMPLER: "traceidratio",
      OTEL_TRACES_SAMPLER_ARG: "0.25",
    }),
  ).toMatchObject({ endpoint: new URL("https://t/own"), serviceName: "mine", sampler: "traceidratio", ratio: 0.25 });
});

test("what is wrong with them is told, without their values where these may be secret", () => {
  const on = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318" };
  const problem = (env: Record<string, string>) => () => tracing({ ...on, ...env });
  expect(problem({ OTEL_EXPORTER_OTLP_ENDPOINT: "u:canary@c" })).toThrow(
    /^OTEL_EXPORTER_OTLP_ENDPOINT: OTEL_EXPORTER_OTLP_ENDPOINT is not a URL, set one such as http:\/\/collector:4318$/,
  );
  expect(problem({ OTEL_EXPORTER_OTLP_HEADERS: "canary" })).toThrow(
    /^OTEL_EXPORTER_OTLP_HEADERS: OTEL_EXPORTER_OTLP_HEADERS is not a list of headers, (?!.*canary)/,
  );
  expect(problem({ OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" })).toThrow("OTEL_EXPORTER_OTLP_PROTOCOL grpc is not supported");
  expect(problem({ OTEL_TRACES_SAMPLER: "some" })).toThrow('invalid OTEL_TRACES_SAMPLER: "some"');
  expect(problem({ OTEL_TRACES_SAMPLER_ARG: "2" })).toThrow('invalid OTEL_TRACES_SAMPLER_ARG: "2"');
});
