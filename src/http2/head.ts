import type { HeaderFields } from "../exchange.ts";
import type { Field } from "./hpack.ts";

/** The head of a request. */
export interface Head {
  readonly method: string;
  readonly scheme: string;
  /** Or what `host` says; empty where neither is there. */
  readonly authority: string;
  /** With its query. */
  readonly path: string;
  /** Without HTTP/2's own, and without a prototype. */
  readonly headers: HeaderFields;
  /** Bytes of content that are announced. */
  readonly contentLength: number | undefined;
}

/** What HTTP/1.1 says of a connection, and HTTP/2 otherwise (RFC 9113 section 8.2.2). */
const OF_CONNECTIONS = new Set(["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]);

/** What a request's block says; undefined where no request may say so (RFC 9113 sections 8.2 and 8.3). */
export function headOf(fields: readonly Field[]): Head | undefined {
  let method: string | undefined;
  let scheme: string | undefined;
  let authority: string | undefined;
  let path: string | undefined;
  const headers: Record<string, string> = Object.create(null);
  let hasHeaders = false;
  for (const { name, value, isValid } of fields) {
    if (!isValid) return undefined;
    if (name.charCodeAt(0) === COLON) {
      if (hasHeaders) return undefined;
      if (name === ":method" && method === undefined) method = value;
      else if (name === ":scheme" && scheme === undefined) scheme = value;
      else if (name === ":authority" && authority === undefined) authority = value;
      else if (name === ":path" && path === undefined) path = value;
      else return undefined;
      continue;
    }
    hasHeaders = true;
    if (OF_CONNECTIONS.has(name) || (name === "te" && value !== "trailers")) return undefined;
    const known = headers[name];
    headers[name] = known === undefined ? value : `${known}${name === "cookie" ? "; " : ", "}${value}`;
  }
  // CONNECT has neither scheme nor path, and is of no use here.
  if (!method || !scheme || !path || !(path.startsWith("/") || path === "*")) return undefined;
  const contentLength = headers["content-length"];
  if (contentLength !== undefined && !/^\d{1,15}$/.test(contentLength)) return undefined;
  return {
    method,
    scheme,
    authority: authority ?? headers.host ?? "",
    path,
    headers,
    contentLength: contentLength === undefined ? undefined : Number(contentLength),
  };
}

const COLON = 0x3a;

/** Whether these may be what follows the content of a request. */
export const areTrailers = (fields: readonly Field[]): boolean =>
  fields.every(({ name, isValid }) => isValid && !name.startsWith(":"));
