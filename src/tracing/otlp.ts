import { AsyncLocalStorage } from "node:async_hooks";
import type { DescMethod } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Context, ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, TraceFlags, trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import manifest from "../../package.json" with { type: "json" };
import type { RequestInfo } from "../kube/request.ts";
import type { Log } from "../log.ts";
import type { CallSpan, CallTracer, TraceContext } from "../trace.ts";
import type { TracingSettings } from "./settings.ts";

/*
 * Spans by OpenTelemetry's SDK, over OTLP/HTTP. The one place that knows it, loaded only when a collector is named.
 */

/** Spans that wait to be sent; more are dropped. About 2 MB. */
const QUEUE = 2048;
/** A batch that is not taken by then is dropped, in ms. */
const EXPORT_MS = 10_000;
/** From the end of a span to its sending, at most, in ms. */
const DELAY_MS = 2_000;

/** gRPC codes that a server's span tells as its error (OpenTelemetry's conventions for gRPC). */
const SERVER_ERRORS: ReadonlySet<Code> = new Set([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

/** Records each call as a span, and requests to the Kubernetes API as its children. A collector that is away costs nothing. */
export class OtlpTracing implements CallTracer {
  readonly #provider: TracerProvider;
  readonly #tracer;
  readonly #current = new AsyncLocalStorage<Context>();

  constructor(settings: TracingSettings, log: Log) {
    const exporter = new OTLPTraceExporter({
      url: settings.endpoint.href,
      headers: Object.fromEntries(settings.headers.entries().map(([name, value]) => [name, value.reveal()])),
      timeoutMillis: EXPORT_MS,
    });
    this.#provider = new TracerProvider({
      resource: resourceFromAttributes({
        "service.name": settings.serviceName,
        "service.version": manifest.version,
      }),
      sampler: samplerOf(settings),
      spanProcessors: [
        new BatchSpanProcessor({
          exporter: told(exporter, log),
          maxQueueSize: QUEUE,
          exportTimeoutMillis: EXPORT_MS,
          scheduledDelayMillis: DELAY_MS,
        }),
      ],
    });
    this.#tracer = this.#provider.getTracer("k8s-runner", manifest.version);
    log.info({ collector: settings.endpoint.origin, sampler: settings.sampler }, "tracing");
  }

  start(method: DescMethod, parent: TraceContext | undefined): CallSpan {
    const attributes = {
      "rpc.system": "grpc",
      "rpc.service": method.parent.typeName,
      "rpc.method": method.name,
    };
    const span = this.#tracer.startSpan(
      `${method.parent.typeName}/${method.name}`,
      { kind: SpanKind.SERVER, attributes },
      parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, remote(parent)),
    );
    const { traceId, spanId, traceFlags } = span.spanContext();
    const context = trace.setSpan(ROOT_CONTEXT, span);
    return {
      context: { traceId, spanId, sampled: (traceFlags & TraceFlags.SAMPLED) !== 0 },
      run: (work) => this.#current.run(context, work),
      end: (code) => end(span, code),
    };
  }

  /** A request to the Kubernetes API that has just ended, as a part of the call that it was made for. */
  request({ verb, resource, status, seconds }: RequestInfo): void {
    const context = this.#current.getStore();
    if (context === undefined) return; // the watcher's, or a sweep's
    const endTime = Date.now();
    const span = this.#tracer.startSpan(
      `kubernetes ${verb} ${resource}`,
      {
        kind: SpanKind.CLIENT,
        startTime: endTime - seconds * 1000,
        attributes: { "k8s.verb": verb, "k8s.resource": resource, "http.response.status_code": status },
      },
      context,
    );
    if (status === 0 || status >= 400) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end(endTime);
  }

  /** Sends what waits, for up to `ms`, then ends. Never rejects. */
  async close(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    const ended = this.#provider.shutdown().catch(() => undefined); // told by the exporter's log line
    await Promise.race([ended, promise]);
    clearTimeout(timer);
  }
}

const remote = ({ traceId, spanId, sampled }: TraceContext) => ({
  traceId,
  spanId,
  traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
  isRemote: true,
});

function end(span: Span, code: Code | undefined): void {
  span.setAttribute("rpc.grpc.status_code", code ?? 0);
  // Without a message: an error's text may quote what was asked, and the log has it.
  if (code !== undefined && SERVER_ERRORS.has(code)) span.setStatus({ code: SpanStatusCode.ERROR });
  span.end();
}

/** The same exporter, which tells the log when spans begin to be lost, and when they arrive again. */
function told(exporter: SpanExporter, log: Log): SpanExporter {
  let lost = 0;
  return {
    export: (spans, done) =>
      exporter.export(spans, (result) => {
        if (result.code !== 0) {
          if (lost === 0)
            log.warn({ error: result.error?.message }, "spans are lost: the collector does not take them");
          lost += spans.length;
        } else if (lost > 0) {
          log.info({ lost }, "the collector takes spans again");
          lost = 0;
        }
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
    forceFlush: async () => exporter.forceFlush?.(),
  };
}

function samplerOf({ sampler, ratio }: TracingSettings): Sampler {
  const name = sampler.replace("parentbased_", "");
  const root =
    name === "always_on"
      ? new AlwaysOnSampler()
      : name === "always_off"
        ? new AlwaysOffSampler()
        : new TraceIdRatioBasedSampler(ratio);
  return name === sampler ? root : new ParentBasedSampler({ root });
}
