import { once } from "node:events";
import { type ClientHttp2Session, connect as connectHttp2, type OutgoingHttpHeaders } from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { type Client, Code, ConnectError, type HandlerContext, type Transport } from "@connectrpc/connect";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { createGrpcWebTransport as createFetchGrpcWebTransport } from "@connectrpc/connect-web";
import { admission } from "../../src/admission.ts";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { DEFAULT_LIMITS, type Limits, Usage } from "../../src/limits.ts";
import { createLog } from "../../src/log.ts";
import { type RunningServer, startServer } from "../../src/server.ts";
import type { TlsMaterial } from "../../src/tls.ts";

export const SERVICE = RunnerService.typeName;
/** The message limit of every test server, in bytes. */
export const LIMIT = 256 * 1024;

/** A call that a handler holds until the test lets it go on. */
export interface Held {
  readonly signal: AbortSignal;
  release(): void;
}

export interface TestServer extends AsyncDisposable {
  readonly server: RunningServer;
  readonly port: number;
  readonly baseUrl: string;
  readonly usage: Usage;
  /** Lines of the log so far. */
  readonly log: string[];
  /** Names of the RPCs that came through, as an interceptor sees them. */
  readonly calls: string[];
  /** Resolves with the next call of GetWorkloadLabels or StreamWorkloadLogs, which wait to be released. */
  held(): Promise<Held>;
}

/**
 * The real server with handlers of our own: Ready answers, FindWorkloadsByLabels answers 200 KiB, PutArchive takes
 * anything, InspectWorkload fails, Exec echoes stdin until its end, GetWorkloadLabels waits to be released,
 * StreamWorkloadLogs sends one chunk, waits, and sends another, StreamEvents sends one.
 */
export async function startTestServer(
  options: { address?: string; tls?: TlsMaterial; limits?: Partial<Limits> } = {},
): Promise<TestServer> {
  const waiting: Held[] = [];
  const askers: ((held: Held) => void)[] = [];
  const hold = async ({ signal }: HandlerContext): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    const held = { signal, release: resolve };
    const asker = askers.shift();
    if (asker === undefined) waiting.push(held);
    else asker(held);
    await promise;
  };
  const log: string[] = [];
  const calls: string[] = [];
  const usage = new Usage({ ...DEFAULT_LIMITS, ...options.limits });
  const server = await startServer({
    address: options.address ?? "127.0.0.1:0",
    maxMessageBytes: LIMIT,
    tls: options.tls,
    log: createLog({ level: "debug", stream: { write: (line) => log.push(line) } }),
    interceptors: [
      (next) => (request) => {
        calls.push(request.method.name);
        return next(request);
      },
      admission(usage),
    ],
    usage,
    routes: (router) =>
      router.service(RunnerService, {
        ready: () => ({ status: "ok" }),
        putArchive: () => ({}),
        findWorkloadsByLabels: () => ({ targetIds: ["x".repeat(200 * 1024)] }),
        inspectWorkload: ({ workloadId }) => {
          throw new ConnectError(`resource not found: pods "${workloadId}" not found – ü`, Code.NotFound);
        },
        async getWorkloadLabels(_, context) {
          await hold(context);
          return { labels: { released: "yes" } };
        },
        async *streamWorkloadLogs(_, context) {
          yield { event: { case: "chunk", value: { data: Buffer.from("first") } } };
          await hold(context);
          yield { event: { case: "chunk", value: { data: Buffer.from("second") } } };
        },
        async *streamEvents(_, context) {
          yield {};
          await hold(context);
        },
        async *exec(requests) {
          for await (const { msg } of requests) {
            if (msg.case !== "stdin") continue;
            yield { event: { case: "stdout", value: { data: msg.value.data } } };
            if (msg.value.eof) return;
          }
        },
      }),
  });
  const { port } = server.address;
  return {
    server,
    port,
    baseUrl: `http${options.tls === undefined ? "" : "s"}://127.0.0.1:${port}`,
    usage,
    log,
    calls,
    held: () => {
      const held = waiting.shift();
      return held === undefined ? new Promise((resolve) => askers.push(resolve)) : Promise.resolve(held);
    },
    [Symbol.asyncDispose]: () => server.close(0),
  };
}

type TransportFor = (baseUrl: string) => Transport;

/** Every kind of client that a runner meets, by its protocol and the version of HTTP below it. */
export const transports: Record<string, TransportFor> = {
  "gRPC over HTTP/2": (baseUrl) => createGrpcTransport({ baseUrl }),
  "gRPC, JSON, over HTTP/2": (baseUrl) => createGrpcTransport({ baseUrl, useBinaryFormat: false }),
  "gRPC-Web over HTTP/1.1": (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "gRPC-Web over HTTP/2": (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "2" }),
  "gRPC-Web over fetch": (baseUrl) => createFetchGrpcWebTransport({ baseUrl }),
  "Connect over HTTP/1.1": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true }),
  "Connect over HTTP/2": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
  "Connect, JSON, over HTTP/1.1": (baseUrl) =>
    createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  "Connect, JSON, over HTTP/2": (baseUrl) =>
    createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false }),
};

/** Those of `transports` that can stream in both directions. */
export const bidiTransports = Object.entries(transports).filter(([name]) => name.endsWith("HTTP/2"));

/** `stdin` with this text, as Exec's echo takes it. */
export const stdin = (text: string, eof = false) => ({
  msg: { case: "stdin" as const, value: { data: Buffer.from(text), eof } },
});

/** What Exec's echo says to these pieces of stdin, the last of which ends it: text, or the kind of another event. */
export async function echoed(
  client: Client<typeof RunnerService>,
  ...pieces: string[]
): Promise<(string | undefined)[]> {
  const requests = async function* () {
    for (const [index, piece] of pieces.entries()) yield stdin(piece, index === pieces.length - 1);
  };
  return (await Array.fromAsync(client.exec(requests()))).map(({ event }) =>
    event.case === "stdout" ? Buffer.from(event.value.data).toString() : event.case,
  );
}

export interface RawResponse {
  readonly headers: Record<string, string>;
  /** True when the headers ended the stream, which gRPC calls trailers-only. */
  readonly headersOnly: boolean;
  readonly trailers: Record<string, string>;
  readonly body: Buffer;
}

const END_STREAM = 0x1;

/** One HTTP/2 request as it goes over the wire. A body of undefined leaves the request open. */
export async function rawHttp2(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: Uint8Array,
): Promise<RawResponse> {
  const stream = session.request({ ":method": "POST", ...headers });
  const result = { headers: {}, headersOnly: false, trailers: {}, body: Buffer.alloc(0) };
  stream.on("response", (received, flags) => {
    Object.assign(result, { headers: { ...received }, headersOnly: (flags & END_STREAM) !== 0 });
  });
  stream.on("trailers", (received) => Object.assign(result, { trailers: { ...received } }));
  stream.on("data", (chunk: Buffer) => {
    result.body = Buffer.concat([result.body, chunk]);
  });
  if (body !== undefined) stream.end(body);
  await once(stream, "end");
  return result;
}

/** gRPC's status of an answer, from its trailers or from the head that is all of it. */
export const statusOf = ({ headers, headersOnly, trailers }: RawResponse): Record<string, string> =>
  headersOnly ? headers : trailers;

/** An HTTP/2 connection with prior knowledge, closed at the end of its scope. */
export async function http2Session(baseUrl: string): Promise<ClientHttp2Session & Disposable> {
  const session = connectHttp2(baseUrl);
  await once(session, "connect");
  return Object.assign(session, { [Symbol.dispose]: () => session.destroy() });
}

/** A gRPC or Connect stream message: five bytes, then the message. */
export const envelope = (message: Uint8Array, flags = 0): Uint8Array => encodeEnvelope(flags, message);

/** A TCP connection that says only what it is told to. */
export async function tcp(port: number): Promise<Socket & Disposable> {
  const socket = connectTcp(port, "127.0.0.1");
  await once(socket, "connect");
  return Object.assign(socket, { [Symbol.dispose]: () => socket.destroy() });
}

/** All that comes until the peer closes, as text. */
export async function readAll(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(socket, "close");
  return Buffer.concat(chunks).toString("latin1");
}
