import {
  create,
  type DescEnum,
  type DescExtension,
  type DescFile,
  type DescMessage,
  type DescService,
  fromBinary,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { nestedTypes } from "@bufbuild/protobuf/reflect";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import {
  ServerReflection,
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from "./gen/grpc/reflection/v1/reflection_pb.ts";
import {
  ServerReflectionRequestSchema as RequestAlphaSchema,
  ServerReflectionResponseSchema as ResponseAlphaSchema,
  ServerReflection as ServerReflectionAlpha,
} from "./gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { unlessAborted } from "./time.ts";

type Answer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;

/**
 * grpc.reflection, v1 and v1alpha: tells clients such as grpcurl these services and itself, so that they need no proto
 * files. What is public is what can be called: types that no service here uses are not told. Streams end when `draining`
 * aborts, with its reason: their clients keep them open for as long as a session of a person lasts.
 */
export function reflectionRoutes(
  services: readonly DescService[],
  draining: AbortSignal,
): (router: ConnectRouter) => void {
  const schema = new Schema([...services, ServerReflection, ServerReflectionAlpha]);
  return (router) => {
    router.service(ServerReflection, {
      serverReflectionInfo: (requests) => answers(schema, requests, draining),
    });
    router.service(ServerReflectionAlpha, {
      async *serverReflectionInfo(requests) {
        // The same bytes under another name.
        const asV1 = (async function* () {
          for await (const request of requests)
            yield fromBinary(ServerReflectionRequestSchema, toBinary(RequestAlphaSchema, request));
        })();
        for await (const answer of answers(schema, asV1, draining))
          yield fromBinary(ResponseAlphaSchema, toBinary(ServerReflectionResponseSchema, answer));
      },
    });
  };
}

async function* answers(
  schema: Schema,
  requests: AsyncIterable<ServerReflectionRequest>,
  draining: AbortSignal,
): AsyncGenerator<ServerReflectionResponse> {
  const incoming = requests[Symbol.asyncIterator]();
  const sent = new Set<DescFile>();
  for (;;) {
    const step = await unlessAborted(incoming.next(), draining);
    if (step.done) return;
    const request = step.value;
    yield create(ServerReflectionResponseSchema, {
      validHost: request.host,
      originalRequest: request,
      messageResponse: schema.answer(request, sent),
    });
  }
}

/** Everything that is declared in the files of these services and in those that they import, by its full name. */
export class Schema {
  readonly #services: readonly string[];
  readonly #files = new Map<string, DescFile>();
  readonly #symbols = new Map<string, DescFile>();
  /** Extensions of each message, by number. */
  readonly #extensions = new Map<string, Map<number, DescFile>>();

  constructor(services: readonly DescService[]) {
    this.#services = services.map(({ typeName }) => typeName).toSorted();
    for (const { file } of services) this.#addFile(file);
  }

  /** Answers one request. Files in `sent` are not sent again but for the one asked for. Throws INVALID_ARGUMENT. */
  answer({ messageRequest: { case: kind, value } }: ServerReflectionRequest, sent: Set<DescFile>): Answer {
    switch (kind) {
      case "fileByFilename":
        return this.#fileAnswer(this.#files.get(value), sent, `unknown file ${value}`);
      case "fileContainingSymbol":
        return this.#fileAnswer(this.#symbols.get(value), sent, `unknown symbol ${value}`);
      case "fileContainingExtension": {
        const { containingType: type, extensionNumber: number } = value;
        const file = this.#extensions.get(type)?.get(number);
        return this.#fileAnswer(file, sent, `unknown extension ${number} of ${type}`);
      }
      case "allExtensionNumbersOfType": {
        const extensions = this.#extensions.get(value);
        if (extensions === undefined) return notFound(`unknown type ${value}`);
        const extensionNumber = [...extensions.keys()].toSorted((a, b) => a - b);
        return { case: "allExtensionNumbersResponse", value: { baseTypeName: value, extensionNumber } };
      }
      case "listServices":
        return { case: "listServicesResponse", value: { service: this.#services.map((name) => ({ name })) } };
      case undefined:
        throw new ConnectError("invalid message_request", Code.InvalidArgument);
    }
  }

  #fileAnswer(file: DescFile | undefined, sent: Set<DescFile>, unknown: string): Answer {
    if (file === undefined) return notFound(unknown);
    const files = withImports(file).filter((each) => each === file || !sent.has(each));
    for (const each of files) sent.add(each);
    const fileDescriptorProto = files.map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
    return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
  }

  #addFile(root: DescFile): void {
    for (const file of withImports(root)) {
      if (this.#files.has(file.proto.name)) continue;
      this.#files.set(file.proto.name, file);
      for (const type of nestedTypes(file)) {
        for (const name of namesIn(type)) this.#symbols.set(name, file);
        if (type.kind === "message") this.#extensionsOf(type);
        if (type.kind === "extension") this.#extensionsOf(type.extendee).set(type.number, file);
      }
    }
  }

  #extensionsOf({ typeName }: DescMessage): Map<number, DescFile> {
    const extensions = this.#extensions.get(typeName) ?? new Map<number, DescFile>();
    this.#extensions.set(typeName, extensions);
    return extensions;
  }
}

/** Full names of a type and of what is declared in it but types. Values of an enum are siblings of their enum. */
function namesIn(type: DescMessage | DescEnum | DescExtension | DescService): string[] {
  const { typeName } = type;
  const inside = (members: readonly { name: string }[]) => members.map(({ name }) => `${typeName}.${name}`);
  if (type.kind === "message") return [typeName, ...inside(type.fields), ...inside(type.oneofs)];
  if (type.kind === "service") return [typeName, ...inside(type.methods)];
  if (type.kind === "extension") return [typeName];
  const scope = typeName.slice(0, -type.name.length);
  return [typeName, ...type.values.map(({ name }) => scope + name)];
}

/** The file and all that it imports, directly or not, each once. */
function withImports(file: DescFile): DescFile[] {
  const files = new Set([file]);
  for (const each of files) for (const dependency of each.dependencies) files.add(dependency);
  return [...files];
}

const notFound = (errorMessage: string): Answer => ({
  case: "errorResponse",
  value: { errorCode: Code.NotFound, errorMessage },
});
