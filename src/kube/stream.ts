import http from "node:http";
import https from "node:https";
import { boundedSignal, startTimer } from "../time.ts";
import { utf8 } from "./answer.ts";
import { fromAnswer, KubeError, noAnswer } from "./error.ts";
import { credentialsOf, type Query, type ResourcePath, type Transport, USER_AGENT, urlOf } from "./request.ts";

/*
 * Watches and logs. Not over fetch, whose promise resolves only with the first byte of the body (a quiet watch looks
 * unconnected), and which runs at most 256 requests at once in a process (seen on Bun 1.4.5): that many followed logs
 * would keep out every other request. node:https has neither limit, and each stream that lasts gets a connection of its own.
 */

/** Until the answer's headers are there. */
const OPEN_MS = 30_000;
/** Pause before TCP asks whether the peer is still there; a peer that is gone fails the read some 10 s later. */
const KEEP_ALIVE_MS = 30_000;
const MAX_ERROR_BODY_BYTES = 64 * 1024;
/** A watch event is one object; etcd keeps none over 1.5 MiB. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;

/** Of a short read at a time: messages then cost little beside their bytes. */
const PIECE_BYTES = 64 * 1024;
/** Room for a piece, which ends with the chunk that makes it one. */
const PIECE_ROOM = PIECE_BYTES + 32 * 1024;

const NEWLINE = 10;

export interface StreamRequest {
  readonly path: ResourcePath;
  readonly query: Query;
  readonly verb: string;
  readonly signal?: AbortSignal | undefined;
  /** Whether it ends soon: it may then take a connection that another one has left, and leaves its own. */
  readonly short?: boolean | undefined;
  /** Until the answer's headers are there. */
  readonly openMs?: number | undefined;
  /** The connection is given up, and the stream fails, when no byte came for so long; without it: never. */
  readonly idleMs?: number | undefined;
  /** The same, when the body has not ended after so long; without it: never. */
  readonly totalMs?: number | undefined;
}

/**
 * The body of a GET as it arrives, that of a short one in pieces of 64 KiB, each of which is gone when the next is asked for;
 * pulls, so that a slow reader slows the sender down. Ends only when the server has ended the body; everything else throws KubeError (status 0: lost) after what has come,
 * or `signal.reason` when aborted.
 */
export async function* openStream(transport: Transport, request: StreamRequest): AsyncGenerator<Uint8Array> {
  const { signal, idleMs = Number.POSITIVE_INFINITY, totalMs = Number.POSITIVE_INFINITY } = request;
  const response = await openOnce(transport, request).catch((error) => {
    if (error instanceof KubeError && error.status === 401) return openOnce(transport, request, { renew: true });
    if (error instanceof LeftConnectionLost) return openOnce(transport, { ...request, short: false });
    throw error;
  });
  let lost: KubeError | undefined;
  const give = (up: string) => {
    lost = noAnswer(up);
    transport.dropIdleConnections(); // they lead to where this one led
    response.destroy();
  };
  using _total = startTimer(totalMs, () => give(`not ended after ${totalMs} ms`));
  const abort = () => response.destroy();
  signal?.addEventListener("abort", abort, { once: true });
  try {
    if (signal?.aborted) throw signal.reason;
    const body = new Body(response, request.short ? PIECE_BYTES : 1);
    for (;;) {
      const timer = startTimer(idleMs, () => give(`no data for ${idleMs} ms`)); // only while we wait: a slow reader is no dead link
      const piece = await body.next().finally(() => timer[Symbol.dispose]());
      if (piece === undefined) break;
      yield piece;
    }
    // Without a length or chunks the end of the connection is the end of the body, and a lost one looks the same.
    const framed = "transfer-encoding" in response.headers || "content-length" in response.headers;
    if (!response.complete || !framed) throw noAnswer("connection lost");
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw lost ?? (error instanceof KubeError ? error : noAnswer("connection lost", error));
  } finally {
    signal?.removeEventListener("abort", abort);
    response.destroy();
  }
}

/**
 * What has come of a body, put together. An API server writes a log line by line; to be given each by itself costs more than
 * all else that is done with it.
 */
class Body {
  readonly #response: http.IncomingMessage;
  readonly #leastBytes: number;
  #waiting: Buffer[] = [];
  #bytes = 0;
  /** Where pieces are put together, one after the other. */
  #room: Buffer | undefined;
  /** There is no more to come. */
  #over = false;
  #failure: { error: unknown } | undefined;
  #wake: (() => void) | undefined;

  /** Gives at least `leastBytes` at a time, but for the last. */
  constructor(response: http.IncomingMessage, leastBytes: number) {
    this.#response = response;
    this.#leastBytes = leastBytes;
    this.#over = response.destroyed; // it may have been lost since its headers came: then nothing is told any more
    response.on("data", (chunk: Buffer) => {
      this.#waiting.push(chunk);
      this.#bytes += chunk.length;
      if (this.#bytes < leastBytes) return;
      response.pause();
      this.#wake?.();
    });
    const end = () => {
      this.#over = true;
      this.#wake?.();
    };
    response.once("end", end);
    response.once("close", end);
    response.on("error", (error) => {
      this.#failure ??= { error };
      end();
    });
  }

  /** The next bytes, undefined at the end. After the last ones throws what the body failed with. */
  async next(): Promise<Uint8Array | undefined> {
    if (this.#bytes < this.#leastBytes && !this.#over) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.#response.resume();
      await promise;
    }
    if (this.#bytes === 0) {
      if (this.#failure !== undefined) throw this.#failure.error;
      return undefined;
    }
    const bytes = this.#joined();
    this.#waiting = [];
    this.#bytes = 0;
    return bytes;
  }

  #joined(): Buffer {
    const [first] = this.#waiting;
    if (first !== undefined && this.#waiting.length === 1) return first;
    if (this.#leastBytes < PIECE_BYTES || this.#bytes > PIECE_ROOM) return Buffer.concat(this.#waiting, this.#bytes);
    this.#room ??= Buffer.allocUnsafeSlow(PIECE_ROOM);
    let at = 0;
    for (const chunk of this.#waiting) at += chunk.copy(this.#room, at);
    return this.#room.subarray(0, at);
  }
}

/** A connection that an earlier request had left was lost before the answer: most likely the server had closed it meanwhile. */
class LeftConnectionLost extends Error {}

async function openOnce(
  transport: Transport,
  request: StreamRequest,
  options?: { renew: boolean },
): Promise<http.IncomingMessage> {
  const startedAt = performance.now();
  const { headers, tls } = await credentialsOf(transport.access, options);
  const url = urlOf(transport.access, request.path, request.query);
  const { openMs = OPEN_MS } = request;
  using bound = boundedSignal(openMs, request.signal);
  let status = 0;
  try {
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      if (bound.signal.aborted) return reject(bound.signal.reason);
      const { serverName, ...material } = tls;
      const outgoing = (url.protocol === "https:" ? https : http).request(url, {
        agent: request.short ? transport.kept.agent(url.protocol) : false,
        ...material,
        ...(serverName === undefined ? {} : { servername: serverName }),
        headers: { ...headers, accept: "application/json, */*", "user-agent": USER_AGENT },
      });
      const abort = () => outgoing.destroy();
      bound.signal.addEventListener("abort", abort, { once: true });
      outgoing.once("socket", (socket) => {
        socket.setKeepAlive(true, KEEP_ALIVE_MS);
        transport.kept.taken(socket);
      });
      outgoing.once("response", (incoming) => {
        bound.signal.removeEventListener("abort", abort);
        resolve(incoming);
      });
      // `on`: what comes after the answer is told by the answer's own end.
      outgoing.on("error", (error) => reject(outgoing.reusedSocket ? new LeftConnectionLost() : error));
      outgoing.once("close", () => reject(noAnswer("connection lost")));
      outgoing.end();
    });
    status = response.statusCode ?? 0;
    if (status === 200) return response;
    throw fromAnswer(status, await errorBody(response, bound.signal), response.headers["retry-after"]);
  } catch (error) {
    if (request.signal?.aborted) throw request.signal.reason;
    if (bound.timedOut) throw noAnswer(`no answer within ${openMs} ms`);
    if (error instanceof LeftConnectionLost) throw error;
    throw error instanceof KubeError ? error : noAnswer("the Kubernetes API cannot be reached", error);
  } finally {
    const seconds = (performance.now() - startedAt) / 1000;
    transport.report({ verb: request.verb, resource: request.path.resource, status, seconds });
  }
}

async function errorBody(response: http.IncomingMessage, signal: AbortSignal): Promise<string> {
  const abort = () => response.destroy();
  signal.addEventListener("abort", abort, { once: true });
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of response) {
      chunks.push(chunk);
      size += chunk.length;
      if (size >= MAX_ERROR_BODY_BYTES) break;
    }
  } finally {
    signal.removeEventListener("abort", abort);
    response.destroy();
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
      parts.push(part);
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
