import { describe, expect, test } from "bun:test";
import { fromBinary } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorProto,
  FileDescriptorSetSchema,
  type ServiceDescriptorProto,
} from "@bufbuild/protobuf/wkt";

/**
 * The contract's elements, one a row, and those of proto/ written in the same way, both ways the same.
 * Rows hold all columns of the table; of its notes what describes the .proto files and not the platform's other ones.
 */
type Row = { kind: string; package: string; text: string };

const root = new URL("../../", import.meta.url).pathname;
const columns = ["number", "type", "label", "oneof", "streaming", "request", "response", "deprecated", "note"] as const;
type Columns = Partial<Record<(typeof columns)[number], string>>;

function row(kind: string, name: string, packageName: string, values: Columns): Row {
  const shown = columns
    .filter((column) => (values[column] ?? "-") !== "-")
    .map((column) => `${column}: ${values[column]}`);
  return { kind, package: packageName, text: [`${kind} ${name}`, ...shown].join(" | ") };
}

/** Notes that count elsewhere: how much of the platform's whole file the table shows. */
const beyond = /; (complete|only what a runner calls and reaches)|^\d+( of \d+)? rpcs( listed)?$/g;

async function rowsOfTable(): Promise<Row[]> {
  const [head, ...lines] = (await Bun.file(new URL("fields.tsv", import.meta.url)).text()).trimEnd().split("\n");
  expect(head).toBe(["kind", "full_name", ...columns].join("\t"));
  return lines.map((line) => {
    const [kind = "", name = "", ...rest] = line.split("\t");
    const values: Columns = Object.fromEntries(columns.map((column, index) => [column, rest[index]]));
    const note = (values.note ?? "-").replaceAll(beyond, "") || "-";
    return row(kind, name, packageOf(kind, name, note), { ...values, note });
  });
}

/** Groups the rows of the table by file; its own column for that does not exist. */
function packageOf(kind: string, name: string, note: string): string {
  const path =
    kind === "file" ? name : kind === "import" ? note.replace("imported by ", "") : name.replaceAll(".", "/");
  return /^(agynio\/api\/\w+\/v\d+|google\/protobuf)/.exec(path)?.[0].replaceAll("/", ".") ?? "none";
}

/**
 * Compiles proto/ as it lies there, so that nothing depends on generated code. Offline: there are no dependencies. Without
 * what Google and gRPC publish.
 */
async function compile(): Promise<FileDescriptorProto[]> {
  // The script behind `buf` asks for Node in its first line; Bun runs it as well.
  const build = Bun.spawn(
    [process.execPath, "node_modules/@bufbuild/buf/bin/buf", "build", "--as-file-descriptor-set", "-o", "-"],
    {
      cwd: root,
      stdout: "pipe",
      stderr: "inherit",
    },
  );
  const image = await new Response(build.stdout).bytes();
  expect(await build.exited).toBe(0);
  return fromBinary(FileDescriptorSetSchema, image).file.filter(({ name }) => !/^(google|grpc)\//.test(name));
}

const yes = (flag: boolean | undefined): string => (flag ? "yes" : "-");
const typeName = (name: string): string => name.replace(/^\./, "");

function rowsOfFile(file: FileDescriptorProto): Row[] {
  const name = file.package;
  // Of all file options only go_package is expected; any other shows up by its name.
  const options = Object.entries(file.options ?? {}).filter(([key, value]) => {
    return !key.startsWith("$") && value !== "" && value !== false && !(Array.isArray(value) && value.length === 0);
  });
  const goPackage = options
    .map(([key]) => (key === "goPackage" ? "go_package" : key))
    .filter((key) => !(key === "optimizeFor" || key === "features"));
  const note = [`syntax ${file.syntax}`, `package ${name}`, ...goPackage.map((key) => `option ${key} set`)].join("; ");
  return [
    row("file", file.name, name, { note }),
    row("package", name, name, {}),
    ...file.dependency.map((path) => row("import", path, name, { note: `imported by ${file.name}` })),
    ...file.service.flatMap((service) => rowsOfService(service, name)),
    ...file.messageType.flatMap((message) => rowsOfMessage(message, name, name)),
    ...file.enumType.flatMap((type) => rowsOfEnum(type, name, name)),
    ...file.extension.map((field) => row("extension", `${name}.${field.name}`, name, {})),
  ];
}

function rowsOfService(service: ServiceDescriptorProto, packageName: string): Row[] {
  const fullName = `${packageName}.${service.name}`;
  const rpcs = service.method.map((method) => {
    const { clientStreaming, serverStreaming } = method;
    const streaming = clientStreaming ? (serverStreaming ? "bidi" : "client") : serverStreaming ? "server" : "unary";
    return row("rpc", `${fullName}.${method.name}`, packageName, {
      streaming,
      request: typeName(method.inputType),
      response: typeName(method.outputType),
      deprecated: yes(method.options?.deprecated),
      note: `path /${fullName}/${method.name}`,
    });
  });
  return [row("service", fullName, packageName, { deprecated: yes(service.options?.deprecated) }), ...rpcs];
}

function rowsOfMessage(message: DescriptorProto, scope: string, packageName: string): Row[] {
  const fullName = `${scope}.${message.name}`;
  const isEntry = (nested: DescriptorProto) => nested.options?.mapEntry === true;
  const empty = message.field.length === 0 ? "empty message" : "-";
  return [
    row("message", fullName, packageName, { note: empty, deprecated: yes(message.options?.deprecated) }),
    ...message.field.map((field) => rowOfField(field, message, fullName, packageName)),
    ...rowsOfOneofs(message, fullName, packageName),
    ...reserved(fullName, packageName, message.reservedName, message.reservedRange, 1),
    ...message.nestedType
      .filter((nested) => !isEntry(nested))
      .flatMap((nested) => rowsOfMessage(nested, fullName, packageName)),
    ...message.enumType.flatMap((type) => rowsOfEnum(type, fullName, packageName)),
    ...message.extension.map((field) => row("extension", `${fullName}.${field.name}`, packageName, {})),
  ];
}

function rowsOfOneofs(message: DescriptorProto, fullName: string, packageName: string): Row[] {
  return message.oneofDecl.flatMap(({ name }, index) => {
    // An optional field stands in a oneof of its own that the source does not have.
    const members = message.field.filter((field) => field.oneofIndex === index && isInOneof(field));
    if (members.length === 0) return [];
    const note = `members: ${members.map((field) => `${field.name}=${field.number}`).join(", ")}`;
    return row("oneof", `${fullName}.${name}`, packageName, { note });
  });
}

/** `ends`: how far the end of a range lies behind its last number (1 in messages, 0 in enums). */
function reserved(
  scope: string,
  packageName: string,
  names: string[],
  ranges: { start: number; end: number }[],
  ends: number,
): Row[] {
  const numbers = ranges.flatMap(({ start, end }) =>
    Array.from({ length: end - start + 1 - ends }, (_, index) => start + index),
  );
  return [
    ...numbers.map((number) =>
      row("reserved", scope, packageName, { number: String(number), note: "reserved number" }),
    ),
    ...names.map((name) => row("reserved", `${scope}.${name}`, packageName, { note: "reserved name" })),
  ];
}

const isInOneof = (field: FieldDescriptorProto): boolean => Object.hasOwn(field, "oneofIndex") && !field.proto3Optional;

function rowOfField(field: FieldDescriptorProto, message: DescriptorProto, fullName: string, packageName: string): Row {
  const entry = message.nestedType.find(
    (nested) => nested.options?.mapEntry === true && field.typeName === `.${fullName}.${nested.name}`,
  );
  const type = entry === undefined ? typeOf(field) : `map<${entry.field.map(typeOf).join(",")}>`;
  const repeated = field.label === FieldDescriptorProto_Label.REPEATED ? "repeated" : "singular";
  return row("field", `${fullName}.${field.name}`, packageName, {
    number: String(field.number),
    type,
    label: entry !== undefined ? "map" : field.proto3Optional ? "optional" : repeated,
    oneof: isInOneof(field) ? (message.oneofDecl[field.oneofIndex]?.name ?? "?") : "-",
    deprecated: yes(field.options?.deprecated),
    note: field.jsonName === field.name ? "-" : `json ${field.jsonName}`,
  });
}

const typeOf = (field: FieldDescriptorProto): string =>
  field.typeName === "" ? (FieldDescriptorProto_Type[field.type] ?? "?").toLowerCase() : typeName(field.typeName);

function rowsOfEnum(type: EnumDescriptorProto, scope: string, packageName: string): Row[] {
  const fullName = `${scope}.${type.name}`;
  const values = type.value.map(({ name, number, options }) =>
    row("enumvalue", `${fullName}.${name}`, packageName, {
      number: String(number),
      deprecated: yes(options?.deprecated),
    }),
  );
  const ranges = reserved(fullName, packageName, type.reservedName, type.reservedRange, 0);
  return [row("enum", fullName, packageName, { deprecated: yes(type.options?.deprecated) }), ...values, ...ranges];
}

const files = await compile();
const ours = files.flatMap(rowsOfFile);
const table = await rowsOfTable();
const grouped = [...new Set([...table, ...ours].map((each) => `${each.package} ${each.kind}`))].sort();
const textsOf = (rows: Row[], group: string): string[] =>
  rows
    .filter((each) => `${each.package} ${each.kind}` === group)
    .map(({ text }) => text)
    .sort();

describe("proto/ has exactly the elements of the contract:", () => {
  for (const group of grouped.filter((name) => !name.endsWith(" wellknown"))) {
    test(group, () => expect(textsOf(ours, group)).toEqual(textsOf(table, group)));
  }

  test("types of others, which are imported and not redefined", () => {
    const others = new Set<string>();
    for (const { type } of files.flatMap((file) => file.messageType).flatMap(fieldTypes)) {
      if (!type.startsWith("agynio.")) others.add(type);
    }
    const known = table.filter(({ kind }) => kind === "wellknown").map(({ text }) => text.split(/[ |]+/)[1] ?? "");
    expect([...others].sort()).toEqual(known.sort());
  });
});

function fieldTypes(message: DescriptorProto): { type: string }[] {
  return message.field.filter((field) => field.typeName !== "").map((field) => ({ type: typeName(field.typeName) }));
}
