import { Code, type ConnectError } from "@connectrpc/connect";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import { endStreamFlag, endStreamToJson, errorToJson } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import type { Answer, Exchange } from "./exchange.ts";

/** HTTP status of a refused unary Connect call; that of an unknown procedure is 404, as the conformance suite has it. */
const httpStatus = new Map([
  [Code.Unimplemented, 404],
  [Code.Unavailable, 503],
  [Code.ResourceExhausted, 429],
]);

/** Content types of calls, without parameters: gRPC, gRPC-Web, Connect streams, unary Connect. */
const rpcContentType = /^application\/((grpc(-web(-text)?)?|connect)(\+[a-z]+)?|proto|json)(?=$|[; ])/i;

/**
 * Ends a request with an error before any handler sees it, in the protocol that its content type names: gRPC and
 * gRPC-Web by headers alone ("trailers-only"), a Connect stream by its end-of-stream message, a unary Connect call by
 * HTTP status and JSON. What is no call at all gets 404 in plain text.
 */
export const refuse = (error: ConnectError, exchange: Exchange): void => exchange.answer(answerTo(exchange, error));

function answerTo({ method, headers }: Exchange, error: ConnectError): Answer {
  const [type = ""] = rpcContentType.exec(method === "POST" ? (headers["content-type"] ?? "") : "") ?? [];
  if (/^application\/grpc/i.test(type)) {
    const status = Object.fromEntries(setTrailerStatus(new Headers(), error));
    return { status: 200, headers: { "content-type": type, ...status }, body: "" };
  }
  if (/^application\/connect/i.test(type)) {
    const end = JSON.stringify(endStreamToJson(new Headers(), error, undefined));
    const body = encodeEnvelope(endStreamFlag, new TextEncoder().encode(end));
    return { status: 200, headers: { "content-type": type }, body };
  }
  if (type !== "") {
    const body = JSON.stringify(errorToJson(error, undefined));
    return { status: httpStatus.get(error.code) ?? 500, headers: { "content-type": "application/json" }, body };
  }
  return { status: 404, headers: { "content-type": "text/plain; charset=utf-8" }, body: "not found\n" };
}
