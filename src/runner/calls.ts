import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { Durations } from "../figures.ts";
import { snakeCase } from "../naming.ts";

/** In seconds: from what the cache answers to what a Pod's start or an upload takes. */
const UNARY_BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** From a short command to a terminal that stays open for a day. */
const STREAM_BOUNDS = [0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 1800, 3600, 14_400, 86_400];

/** gRPC's number of OK, which Connect's `Code` leaves out. */
const OK = 0;
/** Told of every method even while they are 0: what errors are looked for by. */
const ALWAYS: readonly number[] = [OK, Code.Internal, Code.Unavailable];

export type CallType = "unary" | "client_stream" | "server_stream" | "bidi_stream";

/** The calls of one method so far. */
export class MethodFigures {
  readonly service: string;
  readonly method: string;
  readonly type: CallType;
  started = 0;
  /** Of those that a handler was asked for. */
  readonly durations: Durations;
  /** By gRPC status code. */
  readonly #handled = new Array<number>(17).fill(0);

  constructor({ service, method, type }: { service: string; method: string; type: CallType }) {
    this.service = service;
    this.method = method;
    this.type = type;
    this.durations = new Durations(type === "unary" ? UNARY_BOUNDS : STREAM_BOUNDS);
  }

  ended(code: number): void {
    this.#handled[code] = (this.#handled[code] ?? 0) + 1;
  }

  /** How many ended with each code, by its canonical name; codes that never came are left out. */
  *handled(): Generator<[code: string, count: number]> {
    for (const [code, count] of this.#handled.entries())
      if (count > 0 || ALWAYS.includes(code)) yield [codeName(code), count];
  }

  get inFlight(): number {
    return this.started - this.#handled.reduce((sum, count) => sum + count, 0);
  }
}

/** Every call that came, by method. Those of methods that are not there are counted as one. */
export class Calls implements Iterable<MethodFigures> {
  readonly #methods = new Map<DescMethod, MethodFigures>();
  readonly #unknown = new MethodFigures({ service: "unknown", method: "unknown", type: "unary" });

  /** `services`: those whose methods are told of before they are called. */
  constructor(services: readonly DescService[] = []) {
    for (const { methods } of services) for (const method of methods) this.#of(method);
  }

  /** A call that goes to its handler. It must be told of once more: `ended`. */
  started(method: DescMethod): MethodFigures {
    const figures = this.#of(method);
    figures.started++;
    return figures;
  }

  ended(figures: MethodFigures, code: Code | undefined, ms: number): void {
    figures.ended(code ?? OK);
    figures.durations.add(ms / 1000);
  }

  /** A call that no handler was asked for; undefined: of a method that is not there. */
  refused(method: DescMethod | undefined, code: Code): void {
    const figures = method === undefined ? this.#unknown : this.#of(method);
    figures.started++;
    figures.ended(code);
  }

  *[Symbol.iterator](): Generator<MethodFigures> {
    yield* this.#methods.values();
    yield this.#unknown;
  }

  #of(method: DescMethod): MethodFigures {
    const known = this.#methods.get(method);
    if (known !== undefined) return known;
    const type = method.methodKind === "unary" ? "unary" : STREAM_TYPES[method.methodKind];
    const figures = new MethodFigures({ service: method.parent.typeName, method: method.name, type });
    this.#methods.set(method, figures);
    return figures;
  }
}

const STREAM_TYPES = {
  client_streaming: "client_stream",
  server_streaming: "server_stream",
  bidi_streaming: "bidi_stream",
} as const;

/** As gRPC writes it: `NOT_FOUND`. */
export const codeName = (code: number): string =>
  code === OK ? "OK" : code === Code.Canceled ? "CANCELLED" : snakeCase(Code[code] ?? "Unknown").toUpperCase();
