/**
 * The server under test of connectrpc's conformance suite: ConformanceService on the runner's own listener and adapter.
 * Speaks the suite's protocol on stdin and stdout: one ServerCompatRequest in, one ServerCompatResponse out, each after
 * its length in 4 bytes, then serves until SIGTERM. Started by run.sh, with the compiled .proto files of the suite
 * (a binary FileDescriptorSet) as its only argument: without generated code, so messages have their types from here.
 */
import { setTimeout as sleep } from "node:timers/promises";
import {
  create,
  createFileRegistry,
  type DescMessage,
  type DescMethod,
  type DescMethodBiDiStreaming,
  type DescMethodClientStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type Message,
  toBinary,
} from "@bufbuild/protobuf";
import { type Any, anyPack, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { type Code, ConnectError, type ConnectRouter, type HandlerContext } from "@connectrpc/connect";
import { createLog } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";

interface Header {
  name: string;
  value: string[];
}
interface Failure {
  code: Code;
  message?: string;
  details: Any[];
}
interface UnaryDefinition {
  responseHeaders: Header[];
  responseTrailers: Header[];
  responseDelayMs: number;
  response: { case: "responseData"; value: Uint8Array } | { case: "error"; value: Failure } | { case: undefined };
}
interface StreamDefinition {
  responseHeaders: Header[];
  responseTrailers: Header[];
  responseDelayMs: number;
  responseData: Uint8Array[];
  error?: Failure;
}
type UnaryRequest = Message & { responseDefinition?: UnaryDefinition };
type StreamRequest = Message & { responseDefinition?: StreamDefinition; fullDuplex?: boolean };
type CompatRequest = Message & { messageReceiveLimit: number };

/** A message limit above everything that the suite sends when it does not test the limit. */
const NO_LIMIT = 16 * 1024 * 1024;

const [, , descriptors = ""] = process.argv;
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, await Bun.file(descriptors).bytes()));

function messageOf(name: string): DescMessage {
  const schema = registry.getMessage(`connectrpc.conformance.v1.${name}`);
  if (schema === undefined) throw new Error(`${name} is not in ${descriptors}`);
  return schema;
}

/** What the server saw of a call, to be sent back. */
function requestInfo(requests: Message[], context: HandlerContext): Message {
  const timeoutMs = context.timeoutMs();
  return create(messageOf("ConformancePayload.RequestInfo"), {
    requestHeaders: [...context.requestHeader].map(([name, value]) => ({ name, value: [value] })),
    ...(timeoutMs === undefined ? {} : { timeoutMs: BigInt(Math.trunc(timeoutMs)) }),
    requests: requests.map((request) => anyPack(messageOf(request.$typeName.split(".").at(-1) ?? ""), request)),
  });
}

function setMetadata(context: HandlerContext, definition: UnaryDefinition | StreamDefinition | undefined): void {
  for (const { name, value } of definition?.responseHeaders ?? []) {
    for (const each of value) context.responseHeader.append(name, each);
  }
  for (const { name, value } of definition?.responseTrailers ?? []) {
    for (const each of value) context.responseTrailer.append(name, each);
  }
}

/** `info`: what an error tells that comes instead of every answer. */
function failure({ code, message, details }: Failure, info?: Message): ConnectError {
  const error = new ConnectError(message ?? "", code);
  error.details = details.map(({ typeUrl, value }) => ({ type: typeUrl.split("/").at(-1) ?? "", value }));
  if (info !== undefined) error.details.push({ desc: messageOf("ConformancePayload.RequestInfo"), value: info });
  return error;
}

async function answer(requests: UnaryRequest[], context: HandlerContext): Promise<Record<string, unknown>> {
  const definition = requests[0]?.responseDefinition;
  setMetadata(context, definition);
  const info = requestInfo(requests, context);
  await sleep(definition?.responseDelayMs ?? 0);
  if (definition?.response.case === "error") throw failure(definition.response.value, info);
  const data = definition?.response.case === "responseData" ? definition.response.value : new Uint8Array();
  return { payload: { data, requestInfo: info } };
}

async function* answers(requests: StreamRequest[], context: HandlerContext): AsyncGenerator<Record<string, unknown>> {
  const definition = requests[0]?.responseDefinition;
  setMetadata(context, definition);
  const info = requestInfo(requests, context);
  for (const [index, data] of (definition?.responseData ?? []).entries()) {
    await sleep(definition?.responseDelayMs ?? 0);
    yield { payload: { data, ...(index === 0 ? { requestInfo: info } : {}) } };
  }
  if (definition?.error === undefined) return;
  throw failure(definition.error, definition.responseData.length === 0 ? info : undefined);
}

async function* bidi(
  requests: AsyncIterable<Message>,
  context: HandlerContext,
): AsyncGenerator<Record<string, unknown>> {
  const seen: StreamRequest[] = [];
  let sent = 0;
  for await (const request of requests) {
    seen.push(request);
    if (!seen[0]?.fullDuplex) continue;
    const definition = seen[0].responseDefinition;
    if (seen.length === 1) setMetadata(context, definition);
    const data = definition?.responseData[sent];
    if (data === undefined) break;
    await sleep(definition?.responseDelayMs ?? 0);
    yield { payload: { data, requestInfo: requestInfo([request], context) } };
    sent += 1;
  }
  if (!seen[0]?.fullDuplex) {
    yield* answers(seen, context);
    return;
  }
  const definition = seen[0].responseDefinition;
  for (const data of definition?.responseData.slice(sent) ?? []) {
    await sleep(definition?.responseDelayMs ?? 0);
    yield { payload: { data } };
    sent += 1;
  }
  if (definition?.error !== undefined) {
    throw failure(definition.error, sent === 0 ? requestInfo(seen.slice(-1), context) : undefined);
  }
}

async function collect(requests: AsyncIterable<Message>): Promise<Message[]> {
  const all: Message[] = [];
  for await (const request of requests) all.push(request);
  return all;
}

const isUnary = (method: DescMethod): method is DescMethodUnary => method.methodKind === "unary";
const isClientStreaming = (method: DescMethod): method is DescMethodClientStreaming =>
  method.methodKind === "client_streaming";
const isServerStreaming = (method: DescMethod): method is DescMethodServerStreaming =>
  method.methodKind === "server_streaming";
const isBidi = (method: DescMethod): method is DescMethodBiDiStreaming => method.methodKind === "bidi_streaming";

/** Every method but Unimplemented. Their kinds tell them apart: two are unary, and those answer alike. */
function routes(router: ConnectRouter): void {
  const service = registry.getService("connectrpc.conformance.v1.ConformanceService");
  if (service === undefined) throw new Error(`no ConformanceService in ${descriptors}`);
  const options = { jsonOptions: { registry } }; // messages hold google.protobuf.Any
  for (const method of service.methods.filter(({ name }) => name !== "Unimplemented")) {
    if (isUnary(method)) router.rpc(method, (request, context) => answer([request], context), options);
    if (isClientStreaming(method)) {
      router.rpc(method, async (requests, context) => answer(await collect(requests), context), options);
    }
    if (isServerStreaming(method)) router.rpc(method, (request, context) => answers([request], context), options);
    if (isBidi(method)) router.rpc(method, bidi, options);
  }
}

/** One message from stdin, after its length. */
async function readRequest(): Promise<CompatRequest> {
  let seen = Buffer.alloc(0);
  for await (const chunk of process.stdin) {
    seen = Buffer.concat([seen, chunk]);
    const end = seen.length < 4 ? Number.POSITIVE_INFINITY : 4 + seen.readUInt32BE(0);
    if (seen.length >= end) return fromBinary(messageOf("ServerCompatRequest"), seen.subarray(4, end)) as CompatRequest;
  }
  throw new Error("stdin ended before the request");
}

const { messageReceiveLimit } = await readRequest();
const server = await startServer({
  address: "127.0.0.1:0",
  routes,
  log: createLog({ level: "info" }),
  maxMessageBytes: messageReceiveLimit === 0 ? NO_LIMIT : messageReceiveLimit,
});
process.once("SIGTERM", async () => {
  await server.close(0);
  process.exit(0);
});
const response = toBinary(messageOf("ServerCompatResponse"), create(messageOf("ServerCompatResponse"), server.address));
const length = Buffer.alloc(4);
length.writeUInt32BE(response.length);
process.stdout.write(Buffer.concat([length, response]));
