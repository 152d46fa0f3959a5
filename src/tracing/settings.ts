import { Secret } from "../secret.ts";
import type { Variables } from "../variables.ts";

const SAMPLERS = [
  "always_on",
  "always_off",
  "traceidratio",
  "parentbased_always_on",
  "parentbased_always_off",
  "parentbased_traceidratio",
] as const;

/** Where spans go, by OpenTelemetry's own variables (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables). */
export interface TracingSettings {
  /** OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or OTEL_EXPORTER_OTLP_ENDPOINT with `/v1/traces` added. */
  readonly endpoint: URL;
  /** OTEL_EXPORTER_OTLP_TRACES_HEADERS or OTEL_EXPORTER_OTLP_HEADERS; a key may be in them. */
  readonly headers: ReadonlyMap<string, Secret>;
  /** OTEL_SERVICE_NAME. */
  readonly serviceName: string;
  /** OTEL_TRACES_SAMPLER. */
  readonly sampler: (typeof SAMPLERS)[number];
  /** OTEL_TRACES_SAMPLER_ARG: the share of traces that is recorded by the samplers of that kind, 0 to 1. */
  readonly ratio: number;
}

/** Undefined when no endpoint is named, or with OTEL_SDK_DISABLED: then no other variable of these is even looked at. */
export function tracingFrom(variables: Variables): TracingSettings | undefined {
  const disabled = variables.nonBlank("OTEL_SDK_DISABLED")?.toLowerCase() === "true";
  const endpoint = disabled ? undefined : endpointFrom(variables);
  if (endpoint === undefined) return undefined;
  for (const key of ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] as const) {
    const protocol = variables.nonBlank(key);
    if (protocol !== undefined && protocol !== "http/json")
      variables.wrong(
        key,
        `${key} ${protocol} is not supported`,
        "set http/json, which collectors take at the same port",
      );
  }
  return {
    endpoint,
    headers: headersFrom(variables),
    serviceName: variables.nonBlank("OTEL_SERVICE_NAME"),
    sampler: samplerFrom(variables),
    ratio: ratioFrom(variables),
  };
}

function endpointFrom(variables: Variables): URL | undefined {
  for (const [key, path] of [
    ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""],
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "v1/traces"],
  ] as const) {
    const text = variables.nonBlank(key);
    if (text === undefined) continue;
    const url = URL.parse(path === "" ? text : `${text.replace(/\/$/, "")}/${path}`);
    if (url !== null && /^https?:$/.test(url.protocol)) return url;
    // Not quoted: a password may be in it.
    variables.wrong(key, `${key} is not a URL`, "set one such as http://collector:4318");
    return undefined;
  }
  return undefined;
}

function headersFrom(variables: Variables): Map<string, Secret> {
  const headers = new Map<string, Secret>();
  const traces = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
  const key = variables.nonBlank(traces) === undefined ? "OTEL_EXPORTER_OTLP_HEADERS" : traces;
  for (const pair of (variables.nonBlank(key) ?? "").split(",")) {
    if (pair.trim() === "") continue;
    const [, name, value] = /^\s*([!#$%&'*+.^_`|~\w-]+)\s*=\s*(.*?)\s*$/.exec(pair) ?? [];
    try {
      if (name === undefined || value === undefined) throw new Error("no header");
      headers.set(name, new Secret(decodeURIComponent(value)));
    } catch {
      variables.wrong(key, `${key} is not a list of headers`, "set name=value,name=value with values as in URLs");
    }
  }
  return headers;
}

function samplerFrom(variables: Variables): (typeof SAMPLERS)[number] {
  const key = "OTEL_TRACES_SAMPLER";
  const name = variables.nonBlank(key);
  const sampler = SAMPLERS.find((each) => each === name);
  if (sampler === undefined) variables.wrong(key, `invalid ${key}: "${name}"`, `set one of ${SAMPLERS.join(", ")}`);
  return sampler ?? "parentbased_always_on";
}

function ratioFrom(variables: Variables): number {
  const key = "OTEL_TRACES_SAMPLER_ARG";
  const text = variables.nonBlank(key);
  const ratio = Number(text);
  if (!(ratio >= 0 && ratio <= 1)) variables.wrong(key, `invalid ${key}: "${text}"`, "set a number from 0 to 1");
  return ratio;
}
