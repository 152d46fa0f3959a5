import type { Socket } from "node:net";
import { boundedSignal, startTimer } from "../time.ts";
import type { Credentials } from "./access.ts";
import { utf8 } from "./answer.ts";
import { connect } from "./connections.ts";
import { fromAnswer, KubeError, noAnswer } from "./error.ts";
import { Incoming } from "./incoming.ts";
import {
  credentialsOf,
  MAX_ERROR_BODY_BYTES,
  type Query,
  type ResourcePath,
  type Transport,
  USER_AGENT,
  urlOf,
} from "./request.ts";

/*
 * Watches and logs. Not over fetch, whose promise resolves only with the first byte of the body (a quiet watch looks
 * unconnected), and which runs at most 256 requests at once in a process (seen on Bun 1.4.5): that many followed logs
 * would keep out every other request. And not over node:https, which has neither limit, but takes half as long again for a log as
 * a socket of node:tls whose memory is given back at once. Each stream that lasts gets a connection of its own.
 */

/** Until the answer's headers are there. */
const OPEN_MS = 30_000;
/** A watch event is one object; etcd keeps none over 1.5 MiB. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;

const NEWLINE = 10;

export interface StreamRequest {
  readonly path: ResourcePath;
  readonly query: Query;
  readonly verb: string;
  readonly signal?: AbortSignal | undefined;
  /** Whether it ends soon: it may then take a connection that another one has left, and leaves its own. */
  readonly short?: boolean | undefined;
  /**
   * A piece of less than 60 KiB comes not sooner than so long after the last one: many small ones cost much. Infinity: only the last is
   * one; without it they come as they arrive.
   */
  readonly gatherMs?: number | undefined;
  /** Until the answer's headers are there. */
  readonly openMs?: number | undefined;
  /** The connection is given up, and the stream fails, when no byte came for so long; without it: never. */
  readonly idleMs?: number | undefined;
  /** The same, when the body has not ended after so long; without it: never. */
  readonly totalMs?: number | undefined;
}

/**
 * The body of a GET in pieces of 64 KiB at most, each of which is gone when the next is asked for. Pulls, so that a slow reader slows
 * the sender down. Ends only when the server has ended the body; everything else throws KubeError (status 0: lost) after what has
 * come, or `signal.reason` when aborted.
 */
export async function* openStream(transport: Transport, request: StreamRequest): AsyncGenerator<Uint8Array> {
  const { signal, idleMs = Number.POSITIVE_INFINITY, totalMs = Number.POSITIVE_INFINITY } = request;
  const incoming = await openOnce(transport, request).catch((error) => {
    if (error instanceof KubeError && error.status === 401) return openOnce(transport, request, { renew: true });
    throw error;
  });
  let lost: KubeError | undefined;
  const give = (up: string) => {
    lost = noAnswer(up);
    transport.dropIdleConnections(); // they lead to where this one led
    incoming.close();
  };
  using _total = startTimer(totalMs, () => give(`not ended after ${totalMs} ms`));
  using _ends = incoming.endWith(signal);
  try {
    signal?.throwIfAborted();
    for (;;) {
      const timer = startTimer(idleMs, () => give(`no data for ${idleMs} ms`)); // only while we wait: a slow reader is no dead link
      const piece = await incoming.next().finally(() => timer[Symbol.dispose]());
      signal?.throwIfAborted(); // what had come before is there still
      if (piece === undefined) break;
      yield piece;
    }
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw lost ?? (error instanceof KubeError ? error : noAnswer("connection lost", error));
  } finally {
    incoming.close();
  }
}

/** The answer 200 to a request; throws for any other. */
async function openOnce(transport: Transport, request: StreamRequest, options?: { renew: boolean }): Promise<Incoming> {
  const startedAt = performance.now();
  const { access, connections } = transport;
  const credentials = await credentialsOf(access, options);
  const peer = { url: urlOf(access, request.path, request.query), tls: credentials.tls };
  const { short: isShort = false, gatherMs = 0, openMs = OPEN_MS } = request;
  using bound = boundedSignal(openMs, request.signal);
  const leave = (socket: Socket) => (isShort ? connections.leave(socket, peer) : socket.destroy());
  let status = 0;
  try {
    const text = headOf(peer.url, credentials);
    const ask = async (socket: Socket) => {
      const incoming = new Incoming(socket, gatherMs, leave);
      return { incoming, head: await incoming.ask(text, bound.signal) };
    };
    const left = isShort ? connections.take(peer) : undefined;
    // Most likely the server has closed it meanwhile, if it does not answer: then another one is made.
    const known = left && (await ask(left).catch(() => undefined));
    const { incoming, head } = known ?? (await ask(await connect(peer, bound.signal)));
    status = head.status;
    if (status === 200) return incoming;
    throw fromAnswer(status, await errorBody(incoming, bound.signal), head.fields["retry-after"]);
  } catch (error) {
    if (request.signal?.aborted) throw request.signal.reason;
    if (bound.timedOut) throw noAnswer(`no answer within ${openMs} ms`);
    throw error instanceof KubeError ? error : noAnswer("the Kubernetes API cannot be reached", error);
  } finally {
    const seconds = (performance.now() - startedAt) / 1000;
    transport.report({ verb: request.verb, resource: request.path.resource, status, seconds });
  }
}

/** The head of a GET (RFC 9112 section 3). */
function headOf(url: URL, { headers }: Credentials): string {
  const fields = { host: url.host, ...headers, accept: "application/json, */*", "user-agent": USER_AGENT };
  const lines = Object.entries(fields).map(([name, value]) => {
    if (!/^[\t -~]*$/.test(value)) throw new KubeError(0, "", `the header ${name} would hold what no header can`);
    return `${name}: ${value}\r\n`;
  });
  return `GET ${url.pathname}${url.search} HTTP/1.1\r\n${lines.join("")}\r\n`;
}

async function errorBody(incoming: Incoming, signal: AbortSignal): Promise<string> {
  using _ends = incoming.endWith(signal);
  incoming.hurry();
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for (let piece = await incoming.next(); piece !== undefined; piece = await incoming.next()) {
      chunks.push(Buffer.from(piece));
      size += piece.length;
      if (size >= MAX_ERROR_BODY_BYTES) break;
    }
  } catch (error) {
    if (!incoming.isEndless) throw error; // else it is the end of the body: a proxy's, or of HTTP/1.0
  } finally {
    incoming.close();
  }
  return Buffer.concat(chunks).toString("utf8", 0, MAX_ERROR_BODY_BYTES);
}

function lineOf(parts: readonly Uint8Array[]): string {
  try {
    return utf8(Buffer.concat(parts));
  } catch (error) {
    throw noAnswer("a line that is not UTF-8", error);
  }
}

/** Lines without their line feed. One that is not UTF-8, one over `limit` bytes, or one that has no end, throws KubeError. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>, limit = MAX_LINE_BYTES): AsyncGenerator<string> {
  let parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    let from = 0;
    for (;;) {
      const at = chunk.indexOf(NEWLINE, from);
      const part = chunk.subarray(from, at === -1 ? undefined : at);
      parts.push(at === -1 ? Buffer.from(part) : part); // the chunk goes when the next is asked for
      size += part.length;
      if (size > limit) throw noAnswer(`a line of more than ${limit} bytes`);
      if (at === -1) break;
      yield lineOf(parts);
      parts = [];
      size = 0;
      from = at + 1;
    }
  }
  if (size > 0) throw noAnswer("the stream ended in the middle of a line");
}
