import { Code, ConnectError } from "@connectrpc/connect";
import type { UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";

/** Header fields by their names in lower case; fields of one name are one, as RFC 9110 section 5.3 has it. */
export type HeaderFields = Readonly<Record<string, string>>;

/** A whole answer. */
export interface Answer {
  readonly status: number;
  readonly headers: HeaderFields;
  readonly body: string | Uint8Array;
}

/** An HTTP request and the way to its answer, whatever the version of HTTP. */
export interface Exchange {
  readonly isHttp2: boolean;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly headers: HeaderFields;
  /** The same object for all requests of one connection. */
  readonly connection: object;
  /** Answers, unless something has been said already: then that is cut. What still comes of the request is thrown away. */
  answer(answer: Answer): void;
  /** As Connect's handlers take it; once. Throws when no URL can be made of it: without an authority, or with an odd one. */
  request(): UniversalServerRequest;
  /** As they answer. Rejects when the answer did not leave whole. */
  respond(response: UniversalServerResponse): Promise<void>;
  /** Ends it so that what has been said does not look like an answer. */
  cut(): void;
}

/** Why a call is over whose HTTP/2 stream was ended by its caller, or with its connection. */
export const callerGone = (code: number): ConnectError =>
  new ConnectError(`the caller has gone (HTTP/2 code ${code})`, Code.Canceled);
