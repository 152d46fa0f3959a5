import type { IncomingMessage, ServerResponse } from "node:http";
import { createContextValues } from "@connectrpc/connect";
import type { UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import type { Answer, Exchange, HeaderFields } from "./exchange.ts";
import { connectionKey } from "./limits.ts";

/** A request over HTTP/1.1. */
export class Http1Exchange implements Exchange {
  readonly isHttp2 = false;
  readonly method: string;
  readonly path: string;
  readonly headers: HeaderFields;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.#request = request;
    this.#response = response;
    this.method = request.method ?? "";
    this.path = request.url?.split("?", 1)[0] ?? "";
    this.headers = fieldsOf(request);
  }

  get connection(): object {
    return this.#request.socket;
  }

  answer({ status, headers, body }: Answer): void {
    const response = this.#response;
    if (response.headersSent) {
      this.cut();
      return;
    }
    response.statusCode = status;
    // A request of unknown length may have no end, and its client wait for ours until the connection closes.
    if (this.headers["transfer-encoding"] !== undefined) response.setHeader("connection", "close");
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    response.end(body);
    this.#request.resume(); // what still comes has to make way for the next request
  }

  request(): UniversalServerRequest {
    const values = createContextValues().set(connectionKey, this.connection);
    return universalRequestFromNodeRequest(this.#request, this.#response, undefined, values);
  }

  respond(response: UniversalServerResponse): Promise<void> {
    return universalResponseToNodeResponse(response, this.#response);
  }

  cut(): void {
    this.#response.destroy();
  }
}

function fieldsOf({ headers }: IncomingMessage): HeaderFields {
  const fields: Record<string, string> = Object.create(null);
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined) fields[name] = typeof value === "string" ? value : value.join(", ");
  return fields;
}
