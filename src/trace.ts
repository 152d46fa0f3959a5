import type { DescMethod } from "@bufbuild/protobuf";
import type { Code } from "@connectrpc/connect";

/** A span as W3C Trace Context names it. */
export interface TraceContext {
  /** 32 lower-case hex digits, not all 0. */
  readonly traceId: string;
  /** 16 lower-case hex digits, not all 0. */
  readonly spanId: string;
  /** Whether whoever began the trace records it. */
  readonly sampled: boolean;
}

/** One call while it runs. */
export interface CallSpan {
  readonly context: TraceContext;
  /** Does the work as a part of this span: requests to the Kubernetes API in it are told as its children. */
  run<T>(work: () => T): T;
  /** `code` is undefined for OK. */
  end(code: Code | undefined): void;
}

/** Where calls are recorded as spans. */
export interface CallTracer {
  start(method: DescMethod, parent: TraceContext | undefined): CallSpan;
}

const TRACEPARENT = /^([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(-.*)?$/;

/** What a `traceparent` header says; undefined for none, and for one that breaks the rules (W3C Trace Context, section 3.2). */
export function traceContextIn(header: string | null): TraceContext | undefined {
  const [, version, traceId = "", spanId = "", flags = "", more] = TRACEPARENT.exec(header?.trim() ?? "") ?? [];
  if (version === undefined || version === "ff" || (version === "00" && more !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 };
}
