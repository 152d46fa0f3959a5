import type { ContextKey, ContextValues, HandlerContext, MethodImplSpec } from "@connectrpc/connect";
import type { Head } from "../http2/head.ts";

/**
 * What a handler learns of its call. A short call needs next to nothing of it, and a signal and three sets of headers cost
 * more than all the rest: so each is made when it is first asked for.
 */
export class CallContext implements HandlerContext {
  readonly method: HandlerContext["method"];
  readonly requestMethod = "POST";
  readonly protocolName = "grpc";
  readonly #origin: string;
  readonly #head: Head;
  readonly #endsAt: number | undefined;
  #abort: AbortController | undefined;
  #aborted: { reason: unknown } | undefined;
  #values: ContextValues | undefined;
  #requestHeader: Headers | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;

  /** `origin`: scheme and authority of the request. `timeoutMs`: the caller's; undefined: none. */
  constructor(method: MethodImplSpec["method"], origin: string, head: Head, timeoutMs: number | undefined) {
    this.method = method;
    this.#origin = origin;
    this.#head = head;
    this.#endsAt = timeoutMs === undefined ? undefined : Date.now() + timeoutMs;
  }

  get service(): HandlerContext["service"] {
    return this.method.parent;
  }

  get url(): string {
    return `${this.#origin}${this.#head.path}`;
  }

  get timeoutMs(): () => number | undefined {
    return () => (this.#endsAt === undefined ? undefined : this.#endsAt - Date.now());
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#aborted !== undefined) this.#abort.abort(this.#aborted.reason);
    }
    return this.#abort.signal;
  }

  get isAborted(): boolean {
    return this.#aborted !== undefined;
  }

  /** The first reason counts. */
  abort(reason: unknown): void {
    if (this.#aborted !== undefined) return;
    this.#aborted = { reason };
    this.#abort?.abort(reason);
  }

  get values(): ContextValues {
    this.#values ??= new Values();
    return this.#values;
  }

  get requestHeader(): Headers {
    this.#requestHeader ??= new Headers(Object.entries(this.#head.headers));
    return this.#requestHeader;
  }

  get responseHeader(): Headers {
    this.#responseHeader ??= new Headers();
    return this.#responseHeader;
  }

  get responseTrailer(): Headers {
    this.#responseTrailer ??= new Headers();
    return this.#responseTrailer;
  }

  /** What the handler has added to the head of the answer and to its end, if anything. */
  get metadata(): { readonly header: Headers | undefined; readonly trailer: Headers | undefined } {
    return { header: this.#responseHeader, trailer: this.#responseTrailer };
  }

  /** With everything made, for who copies it. */
  whole(): HandlerContext {
    const { service, method, url, requestMethod, protocolName, timeoutMs, values, signal } = this;
    const { requestHeader, responseHeader, responseTrailer } = this;
    return {
      ...{ service, method, url, requestMethod, protocolName, timeoutMs, values, signal },
      ...{ requestHeader, responseHeader, responseTrailer },
    };
  }
}

/** As Connect's createContextValues makes them, which makes its methods anew for every call. */
class Values implements ContextValues {
  readonly #set: Record<symbol, unknown> = {};

  get<T>(key: ContextKey<T>): T {
    return key.id in this.#set ? (this.#set[key.id] as T) : key.defaultValue; // only `set` has put it there
  }

  set<T>(key: ContextKey<T>, value: T): this {
    this.#set[key.id] = value;
    return this;
  }

  delete(key: ContextKey<unknown>): this {
    delete this.#set[key.id];
    return this;
  }
}
