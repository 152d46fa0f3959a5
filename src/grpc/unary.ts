import { create, type Message } from "@bufbuild/protobuf";
import type { Interceptor, MethodImplSpec, UnaryRequest, UnaryResponse } from "@connectrpc/connect";
import type { CallContext } from "./context.ts";

type Next = Parameters<Interceptor>[0];

/** The implementation of a method with one message each way. */
export type UnarySpec = Extract<MethodImplSpec, { kind: "unary" }>;

/** Answers one message of a call; `messageOf` gives the answer's own. */
export type Invoke = (context: CallContext, message: Message) => ReturnType<Next>;

/**
 * The handler's answer to one message, through the interceptors. What Connect's own invokeUnaryImplementation does (2.2.0),
 * which makes all that a context has for every call, and copies it: that costs more than the rest of a short call. So an
 * interceptor may change what is in a request or a response, but must hand on the one that it was given (else: TypeError).
 */
export function unaryInvoke({ method, impl }: UnarySpec, interceptors: readonly Interceptor[]): Invoke {
  const answer: Next = async (request) => {
    if (!(request instanceof Request)) throw new TypeError("an interceptor has replaced a unary request");
    const { context, message } = request;
    return new Response(context, create(method.output, await impl(message, context)));
  };
  const chain = interceptors.reduceRight((next, interceptor) => interceptor(next), answer);
  return (context, message) => chain(new Request(context, message));
}

/** The message of what an Invoke answered. */
export function messageOf(response: Awaited<ReturnType<Next>>): Message {
  if (!(response instanceof Response)) throw new TypeError("an interceptor has replaced a unary response");
  return response.message;
}

class Request implements UnaryRequest {
  readonly stream = false;
  readonly context: CallContext;
  readonly message: Message;

  constructor(context: CallContext, message: Message) {
    this.context = context;
    this.message = message;
  }

  get method(): UnaryRequest["method"] {
    return this.context.method as UnaryRequest["method"]; // of a unary spec
  }

  get service(): UnaryRequest["service"] {
    return this.context.service;
  }

  get requestMethod(): string {
    return this.context.requestMethod;
  }

  get url(): string {
    return this.context.url;
  }

  get signal(): AbortSignal {
    return this.context.signal;
  }

  get header(): Headers {
    return this.context.requestHeader;
  }

  get contextValues(): UnaryRequest["contextValues"] {
    return this.context.values;
  }
}

class Response implements UnaryResponse {
  readonly stream = false;
  readonly #context: CallContext;
  readonly message: Message;

  constructor(context: CallContext, message: Message) {
    this.#context = context;
    this.message = message;
  }

  get method(): UnaryResponse["method"] {
    return this.#context.method as UnaryResponse["method"]; // of a unary spec
  }

  get service(): UnaryResponse["service"] {
    return this.#context.service;
  }

  get header(): Headers {
    return this.#context.responseHeader;
  }

  get trailer(): Headers {
    return this.#context.responseTrailer;
  }
}
