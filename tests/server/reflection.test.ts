import { afterAll, describe, expect, test } from "bun:test";
import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { Health } from "../../src/gen/grpc/health/v1/health_pb.ts";
import {
  ServerReflection,
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
} from "../../src/gen/grpc/reflection/v1/reflection_pb.ts";
import {
  ServerReflection as ServerReflectionAlpha,
  type ServerReflectionResponse as ServerReflectionResponseAlpha,
} from "../../src/gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { createLog } from "../../src/log.ts";
import { reflectionRoutes, Schema } from "../../src/reflection.ts";
import { startServer } from "../../src/server.ts";
import { bidiTransports } from "./harness.ts";

/** As plain objects, which both versions take. */
type Request =
  | { case: "fileByFilename" | "fileContainingSymbol" | "allExtensionNumbersOfType" | "listServices"; value: string }
  | { case: "fileContainingExtension"; value: { containingType: string; extensionNumber: number } }
  | { case: undefined };
type Response = ServerReflectionResponse | ServerReflectionResponseAlpha;

const draining = new AbortController();
const routes = reflectionRoutes([RunnerService, Health], draining.signal);
const log = createLog({ level: "silent" });
const server = await startServer({ address: "127.0.0.1:0", maxMessageBytes: 100_000, log, routes });
const baseUrl = `http://127.0.0.1:${server.address.port}`;
afterAll(() => server.close(0));

/** A stream of reflection, one question and answer at a time. */
function conversation(service: typeof ServerReflection | typeof ServerReflectionAlpha, transport: Transport) {
  const questions: Request[] = [];
  const { promise: ended, resolve: end } = Promise.withResolvers<undefined>();
  let asked = Promise.withResolvers<undefined>();
  async function* requests() {
    for (;;) {
      const question = questions.shift();
      if (question !== undefined) yield { host: "h", messageRequest: question };
      else if ((await Promise.race([asked.promise.then(() => true), ended])) !== true) return;
      asked = Promise.withResolvers();
    }
  }
  const answers: AsyncIterable<Response> =
    service === ServerReflection
      ? createClient(ServerReflection, transport).serverReflectionInfo(requests())
      : createClient(ServerReflectionAlpha, transport).serverReflectionInfo(requests());
  const iterator = answers[Symbol.asyncIterator]();
  return {
    end: () => end(undefined),
    next: () => iterator.next(),
    async ask(question: Request): Promise<Response> {
      questions.push(question);
      asked.resolve(undefined);
      const step = await iterator.next();
      return step.done ? expect.unreachable() : step.value;
    },
  };
}

/** The files of an answer, in its order. */
function filesIn({ messageResponse }: Response): FileDescriptorProto[] {
  if (messageResponse.case !== "fileDescriptorResponse") return expect.unreachable();
  return messageResponse.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
}
const namesOf = (answer: Response) => filesIn(answer).map(({ name }) => name);

const file = (value: string): Request => ({ case: "fileByFilename", value });
const symbol = (value: string): Request => ({ case: "fileContainingSymbol", value });
const extension = (containingType: string, extensionNumber: number): Request => ({
  case: "fileContainingExtension",
  value: { containingType, extensionNumber },
});
const RUNNER = "agynio/api/runner/v1/runner.proto";
const TIMESTAMP = "google/protobuf/timestamp.proto";

const versions = [ServerReflection, ServerReflectionAlpha] as const;
const cases = versions.flatMap((service) =>
  bidiTransports.map(([name, transportFor]) => [service.typeName, name, service, transportFor] as const),
);

describe.each(cases)("%s by %s", (_service, _name, service, transportFor) => {
  test("lists what can be called, and tells the files of each of them, whole", async () => {
    const stream = conversation(service, transportFor(baseUrl));
    const list = await stream.ask({ case: "listServices", value: "*" });
    if (list.messageResponse.case !== "listServicesResponse") return expect.unreachable();
    const names = list.messageResponse.value.service.map(({ name }) => name);
    expect(names).toEqual([
      RunnerService.typeName,
      "grpc.health.v1.Health",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
    ]);
    const files: FileDescriptorProto[] = [];
    for (const name of names) files.push(...filesIn(await stream.ask(symbol(name))));
    // Whatever a client needs is there: this throws where one imports what is not. It wants the imports first.
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: files.toReversed() }));
    expect(names.map((name) => registry.getService(name)?.typeName)).toEqual(names);
    const exec = registry.getService(RunnerService.typeName)?.method.exec;
    expect([exec?.methodKind, exec?.input.field.start?.jsonName]).toEqual(["bidi_streaming", "start"]);
    expect(registry.getService(RunnerService.typeName)?.methods.length).toBe(17);
    stream.end();
    expect((await stream.next()).done).toBe(true);
  });

  test("finds files by name and by each kind of symbol, with imports that it has not sent", async () => {
    const stream = conversation(service, transportFor(baseUrl));
    const first = await stream.ask(file(RUNNER));
    expect([first.validHost, first.originalRequest?.host]).toEqual(["h", "h"]);
    expect(first.originalRequest?.messageRequest).toEqual({ case: "fileByFilename", value: RUNNER });
    expect(namesOf(first)).toEqual([RUNNER, TIMESTAMP]);
    for (const name of [
      "agynio.api.runner.v1.RunnerService",
      "agynio.api.runner.v1.RunnerService.Exec",
      "agynio.api.runner.v1.ExecRequest",
      "agynio.api.runner.v1.ExecRequest.start",
      "agynio.api.runner.v1.ExecRequest.msg",
      "agynio.api.runner.v1.WorkloadStatus",
      "agynio.api.runner.v1.WORKLOAD_STATUS_STARTING",
    ])
      expect(namesOf(await stream.ask(symbol(name)))).toEqual([RUNNER]);
    expect(namesOf(await stream.ask(symbol("google.protobuf.Timestamp")))).toEqual([TIMESTAMP]);
    expect(namesOf(await stream.ask(file(TIMESTAMP)))).toEqual([TIMESTAMP]);
    stream.end();
  });

  test("says what it does not know, and goes on", async () => {
    const stream = conversation(service, transportFor(baseUrl));
    const unknown: [Request, string][] = [
      [file("no.proto"), "unknown file no.proto"],
      [file(""), "unknown file "],
      [symbol("agynio.api.runner.v1"), "unknown symbol agynio.api.runner.v1"],
      [symbol("constructor"), "unknown symbol constructor"],
      // In the repository, and not served.
      [symbol("agynio.api.runners.v1.RunnersService"), "unknown symbol agynio.api.runners.v1.RunnersService"],
      [extension("agynio.api.runner.v1.ExecRequest", 5), "unknown extension 5 of agynio.api.runner.v1.ExecRequest"],
      [{ case: "allExtensionNumbersOfType", value: "no.Type" }, "unknown type no.Type"],
    ];
    for (const [question, errorMessage] of unknown) {
      const { messageResponse, originalRequest } = await stream.ask(question);
      expect(messageResponse).toMatchObject({
        case: "errorResponse",
        value: { errorCode: Code.NotFound, errorMessage },
      });
      expect(originalRequest?.messageRequest.case).toBe(question.case);
    }
    const known = await stream.ask({ case: "allExtensionNumbersOfType", value: "agynio.api.runner.v1.ExecRequest" });
    expect(known.messageResponse).toMatchObject({
      case: "allExtensionNumbersResponse",
      value: { baseTypeName: "agynio.api.runner.v1.ExecRequest", extensionNumber: [] },
    });
    expect(namesOf(await stream.ask(file(TIMESTAMP)))).toEqual([TIMESTAMP]);
    const nothing = await stream.ask({ case: undefined }).catch(ConnectError.from);
    expect(nothing).toMatchObject({ code: Code.InvalidArgument, rawMessage: "invalid message_request" });
  });
});

test("extensions are found by the type that they extend and by number", () => {
  const proto = create(FileDescriptorProtoSchema, {
    name: "x.proto",
    package: "x",
    syntax: "proto2",
    messageType: [
      { name: "Base", extensionRange: [{ start: 100, end: 200 }] },
      {
        name: "Holder",
        extension: [{ name: "inner", number: 150, label: Label.OPTIONAL, type: Type.INT32, extendee: ".x.Base" }],
      },
    ],
    extension: [{ name: "outer", number: 120, label: Label.OPTIONAL, type: Type.INT32, extendee: ".x.Base" }],
    service: [{ name: "S" }],
  });
  const service = createFileRegistry(proto, () => undefined).getService("x.S") ?? expect.unreachable();
  const schema = new Schema([service]);
  const answer = (messageRequest: Request) =>
    schema.answer(create(ServerReflectionRequestSchema, { messageRequest }), new Set());
  expect(answer({ case: "allExtensionNumbersOfType", value: "x.Base" })).toEqual({
    case: "allExtensionNumbersResponse",
    value: { baseTypeName: "x.Base", extensionNumber: [120, 150] },
  });
  for (const question of [
    extension("x.Base", 120),
    extension("x.Base", 150),
    symbol("x.outer"),
    symbol("x.Holder.inner"),
  ])
    expect(answer(question).case).toBe("fileDescriptorResponse");
  for (const question of [extension("x.Base", 121), extension("x.Holder", 150)])
    expect(answer(question).case).toBe("errorResponse");
});

// Last: it ends the server.
test("open streams end when the process begins to end, whatever their clients wait for", async () => {
  const streams = cases.map(([, , service, transportFor]) => conversation(service, transportFor(baseUrl)));
  for (const stream of streams) await stream.ask(file(TIMESTAMP));
  draining.abort(new ConnectError("the runner is shutting down", Code.Unavailable));
  const closed = server.close(3_600_000);
  for (const stream of streams) {
    const error = await stream.next().catch(ConnectError.from);
    expect(error).toMatchObject({ code: Code.Unavailable, rawMessage: "the runner is shutting down" });
  }
  for (const { end } of streams) end();
  await closed;
});
