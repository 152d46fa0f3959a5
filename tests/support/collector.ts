import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** A span as OTLP's JSON has it, with its attributes as an object. */
export interface SeenSpan {
  readonly name: string;
  /** 2: server, 3: client. */
  readonly kind: number;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly status: { readonly code?: number; readonly message?: string };
  readonly attributes: Readonly<Record<string, string | number>>;
  readonly startMs: number;
  readonly endMs: number;
}

interface Attribute {
  readonly key: string;
  readonly value: { readonly stringValue?: string; readonly intValue?: number | string };
}
interface Body {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly Attribute[] };
    readonly scopeSpans: readonly { readonly spans: readonly (Omit<SeenSpan, "attributes"> & RawSpan)[] }[];
  }[];
}
interface RawSpan {
  readonly attributes: readonly Attribute[];
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
}

const plain = (attributes: readonly Attribute[]) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue)]));

/** An OpenTelemetry collector as far as a sender of spans meets it: OTLP/HTTP with JSON. */
export class Collector implements AsyncDisposable {
  readonly spans: SeenSpan[] = [];
  readonly resources: Readonly<Record<string, string | number>>[] = [];
  readonly requests: { readonly path: string; readonly headers: IncomingHttpHeaders }[] = [];
  /** Everything that came, as it came. */
  text = "";
  /** What it answers: a status, or nothing at all. */
  answer: number | "nothing" = 200;
  readonly #server: Server;

  private constructor() {
    this.#server = createServer(async (request, response) => {
      const body = Buffer.concat(await Array.fromAsync<Buffer>(request)).toString();
      this.requests.push({ path: request.url ?? "", headers: request.headers });
      if (this.answer === "nothing") return;
      if (this.answer === 200) this.#take(body);
      response.writeHead(this.answer, { "content-type": "application/json" }).end("{}");
    });
  }

  static async start(): Promise<Collector> {
    const collector = new Collector();
    await new Promise<void>((listening) => collector.#server.listen(0, "127.0.0.1", listening));
    return collector;
  }

  get url(): string {
    // The cast: a TCP server has such an address.
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  named(name: string): SeenSpan[] {
    return this.spans.filter((span) => span.name.endsWith(name));
  }

  #take(body: string): void {
    this.text += body;
    const { resourceSpans }: Body = JSON.parse(body);
    for (const { resource, scopeSpans } of resourceSpans) {
      this.resources.push(plain(resource.attributes));
      for (const { attributes, ...span } of scopeSpans.flatMap(({ spans }) => spans))
        this.spans.push({
          ...span,
          attributes: plain(attributes),
          startMs: Number(span.startTimeUnixNano) / 1e6,
          endMs: Number(span.endTimeUnixNano) / 1e6,
        });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }
}
