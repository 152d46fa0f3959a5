import {
  createFileRegistry,
  type DescEnum,
  type DescField,
  type DescMessage,
  type DescMethod,
  fromBinary,
  ScalarType,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { code, table } from "./markdown.ts";

const ROOT = `${import.meta.dir}/../..`;
const FILE = "agynio/api/runner/v1/runner.proto";

/** The proto files as buf compiles them, comments included; the code that is generated from them has none. */
function compiled(): ReturnType<typeof fromBinary<typeof FileDescriptorSetSchema>> {
  // Run by Bun: its first line asks for Node.
  const buf = Bun.spawnSync([process.execPath, "node_modules/@bufbuild/buf/bin/buf", "build", "-o", "-"], {
    cwd: ROOT,
  });
  if (!buf.success) throw new Error(`buf build: ${buf.stderr}`);
  return fromBinary(FileDescriptorSetSchema, buf.stdout);
}

const set = compiled();
const file = createFileRegistry(set).getFile(FILE);
if (file === undefined) throw new Error(`no ${FILE}`);
const { messages, enums, services } = file;

/** By the path of what they stand above: field numbers of descriptor.proto and indices, joined by dots. */
const comments = new Map(
  (set.file.find(({ name }) => name === FILE)?.sourceCodeInfo?.location ?? []).map(({ path, leadingComments }) => [
    path.join("."),
    leadingComments,
  ]),
);

/** Where descriptor.proto keeps the parts of a file, and those of a message, enum or service. */
const IN_FILE = { message: 4, enum: 5, service: 6 };
const PART = 2;

/** The comment of what is there: paragraphs by an empty line, the lines of each joined. Throws when there is none. */
function comment(...path: number[]): string {
  const text = comments.get(path.join("."))?.trim();
  if (text === undefined || text === "") throw new Error(`${FILE}: no comment at ${path.join(".")}`);
  return text
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.trim().replace(/\s*\n\s*/g, " "))
    .join("\n\n");
}

/** Text of a comment as Markdown: `<id>` is no element, `*` no emphasis. */
const escaped = (text: string): string => text.replace(/[<>*]/g, (character) => `\\${character}`);

const firstSentence = (text: string): string => /^.*?\.(?=\s|$)/s.exec(text)?.[0] ?? text;

const indexOf = <T>(list: readonly T[], one: T): number => list.indexOf(one);
const link = (name: string): string => `[${name}](#${name.toLowerCase()})`;

function typeName(field: DescField): string {
  const named = ({ message, enum: values, scalar }: Pick<DescField, "message" | "enum" | "scalar">): string => {
    if (values !== undefined) return link(values.name);
    if (message !== undefined) return message.file === file ? link(message.name) : code(message.typeName);
    return ScalarType[scalar ?? 0]?.toLowerCase() ?? "?";
  };
  if (field.fieldKind === "list") return `repeated ${named(field)}`;
  if (field.fieldKind === "map") return `map of ${ScalarType[field.mapKey]?.toLowerCase()} to ${named(field)}`;
  return `${field.proto.proto3Optional ? "optional " : ""}${named(field)}`;
}

function fields(message: DescMessage): string {
  if (message.fields.length === 0) return "No fields.";
  const at = indexOf(messages, message);
  const rows = message.fields.map((field, index) => {
    const notes = [field.oneof && `one of ${code(field.oneof.name)}`, field.proto.options?.deprecated && "deprecated"];
    const said = [notes.filter(Boolean).join(", "), comment(IN_FILE.message, at, PART, index)].filter(Boolean);
    return [String(field.number), code(field.name), typeName(field), escaped(said.join(". "))];
  });
  return table(["No.", "Field", "Type", "Meaning"], rows);
}

const messageAt = (message: DescMessage): string => escaped(comment(IN_FILE.message, indexOf(messages, message)));

const KINDS: Record<DescMethod["methodKind"], string> = {
  unary: "Unary: one request, one response.",
  server_streaming: "Server stream: one request, a stream of responses.",
  client_streaming: "Client stream: a stream of requests, one response.",
  bidi_streaming:
    "Bidirectional stream: requests and responses at the same time. Needs HTTP/2, so gRPC or Connect over it.",
};

function rpc(method: DescMethod, at: number): string {
  const part = (name: string, message: DescMessage): string =>
    `**${name}**: ${code(message.name)}. ${messageAt(message)}\n\n${fields(message)}\n`;
  return [
    `### ${method.name}\n`,
    `${KINDS[method.methodKind]}\n`,
    `${escaped(comment(IN_FILE.service, 0, PART, at))}\n`,
    part("Request", method.input),
    part("Response", method.output),
  ].join("\n");
}

function values(described: DescEnum): string {
  const at = indexOf(enums, described);
  const rows = described.values.map((value, index) => [
    String(value.number),
    code(value.name),
    escaped(comment(IN_FILE.enum, at, PART, index)),
  ]);
  const about = escaped(comment(IN_FILE.enum, at));
  return `### ${described.name}\n\n${about}\n\n${table(["No.", "Value", "Meaning"], rows)}\n`;
}

/** docs/reference/rpc.md from the proto file: its comments, fields and kinds of streams. */
export function rpcReference(): string {
  const [service] = services;
  if (service === undefined || services.length !== 1) throw new Error(`${FILE} must hold one service`);
  const top = new Set(service.methods.flatMap(({ input, output }) => [input, output]));
  const rows = service.methods.map(({ name, methodKind }, at) => [
    link(name),
    KINDS[methodKind].split(":")[0] ?? "",
    escaped(firstSentence(comment(IN_FILE.service, 0, PART, at))),
  ]);
  return [
    `# ${service.name}\n`,
    `\`${service.typeName}\`, from [${FILE}](../../proto/${FILE}). Codes and messages of every failure: [errors.md](../errors.md).`,
    "By Connect, a unary call is an HTTP POST of JSON to",
    `\`/${service.typeName}/<RPC>\`, with the field names below in camel case, bytes in base64 and 64-bit numbers as strings.\n`,
    `${escaped(comment(IN_FILE.service, 0))}\n`,
    `${table(["RPC", "Kind", "In short"], rows)}\n`,
    "## RPCs\n",
    ...service.methods.map(rpc),
    "## Messages\n",
    ...messages
      .filter((message) => !top.has(message))
      .map((message) => `### ${message.name}\n\n${messageAt(message)}\n\n${fields(message)}\n`),
    "## Enums\n",
    enums.map(values).join("\n"),
  ].join("\n");
}
