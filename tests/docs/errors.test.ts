import { expect, test } from "bun:test";
import { Glob } from "bun";
import { execErrors, sections } from "./errors.ts";

/** The table of errors against the sources: nothing that a caller can get is missing in it, nothing in it is made up. */

const ROOT = `${import.meta.dir}/../..`;
/** Errors that no caller sees: of calls to the platform, of Kubernetes' wire, which errors.ts translates, and of our own clients. */
const hidden = /^src\/(gen|gateway|kube|cli|doctor)\//;

async function read(pattern: string, except?: RegExp): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for await (const path of new Glob(pattern).scan(ROOT))
    if (except?.test(path) !== true) files.set(path, await Bun.file(`${ROOT}/${path}`).text());
  return files;
}
const sources = await read("src/**/*.ts", hidden);
const tests = [...(await read("tests/**/*.{test,e2e}.ts", /^tests\/docs\//)).values()].join("\n");

interface Shape {
  readonly code: string;
  /** As in the source, … where it differs. */
  readonly text: string;
}

const LITERAL = /"((?:[^"\\]|\\.)*)"|`((?:[^`\\]|\\.)*)`/.source;
const textOf = (double: string | undefined, template: string | undefined): string =>
  (double ?? template ?? "").replaceAll('\\"', '"').replace(/\$\{[^}]*\}+/g, "…");
/** `NotFound` as gRPC spells it. */
const grpcCode = (name: string): string => name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();

/** What makes an error, with its code where its name tells it, and what follows its text. */
const makers: readonly [call: string, code: string, suffix: string][] = [
  ["\\binvalid\\(", "INVALID_ARGUMENT", ""],
  ["\\binvalidText\\(", "INVALID_ARGUMENT", ": …"],
  ["\\bnotFound\\(", "NOT_FOUND", ""],
  ["\\bfailedPrecondition\\(", "FAILED_PRECONDITION", ""],
  ["\\brequireText\\([\\w.]+, ", "INVALID_ARGUMENT", ""],
  ["\\brequireNone\\([^;{]*?, ", "INVALID_ARGUMENT", ": …"],
];

function shapesIn(source: string): Shape[] {
  const shapes: Shape[] = [];
  for (const [call, code, suffix] of makers)
    for (const [, double, template] of source.matchAll(new RegExp(`${call}(?:${LITERAL})`, "g")))
      shapes.push({ code, text: textOf(double, template) + suffix });
  for (const [, double, template, code = ""] of source.matchAll(
    new RegExp(`new ConnectError\\(\\s*(?:${LITERAL}),\\s*Code\\.(\\w+)`, "g"),
  ))
    shapes.push({ code: grpcCode(code), text: textOf(double, template) });
  // A text of its own line, a few lines above.
  for (const [, double, template, code = ""] of source.matchAll(
    new RegExp(
      `const text =\\s*(?:.*? \\? )?(?:${LITERAL})[^;]*;\\s*return new ConnectError\\(text, Code\\.(\\w+)`,
      "g",
    ),
  ))
    shapes.push({ code: grpcCode(code), text: textOf(double, template) });
  // The mapping of Kubernetes' reasons.
  for (const [, code = "", prefix = ""] of source.matchAll(/code: Code\.(\w+), prefix: "([^"]+)"/g))
    shapes.push({ code: grpcCode(code), text: `${prefix}: …` });
  return shapes;
}

const shapes = [...sources.values()].flatMap(shapesIn);
const rows = Object.values(sections).flat();
const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** Whether a message of the table is one that this text of a source can become. */
function becomes({ code, text }: Shape, row: { code: string; message: string }): boolean {
  const pattern = text.split("…").map(escaped).join(".+");
  return code === row.code && new RegExp(`^${pattern}$`).test(row.message);
}

test("every error that a source makes is in the table, with its code", () => {
  expect(shapes.length).toBeGreaterThan(60);
  // CANCELED: why a call is over whose caller has gone; in the log alone.
  const missing = shapes.filter((shape) => shape.code !== "CANCELED" && !rows.some((row) => becomes(shape, row)));
  expect(missing).toEqual([]);
});

/** What the table says that no call above makes in one piece: where it is made instead. */
const madeOfParts: Readonly<Record<string, string>> = {
  "invalid_volume_label: <cause>": '"invalid_volume_label"',
  "put archive failed: <what tar said>": '"put archive failed"',
  "create exec: <detail>": '"create exec"',
  "parse JSON: <cause>": '"parse JSON", Code.InvalidArgument',
  "parse binary: <cause>": '"parse binary", Code.Internal',
  "unknown service <name>": "`unknown service $",
  "unknown file <name>": "`unknown file $",
  "unknown symbol <name>": "`unknown symbol $",
  "unknown extension <number> of <type>": "`unknown extension $",
};

test.each(rows)("$code $message: a source makes it", (row) => {
  const part = madeOfParts[row.message];
  if (part === undefined) {
    // "…: …" could become anything.
    const made = shapes.filter(({ text }) => /\w{4}/.test(text));
    expect(made.some((shape) => becomes(shape, row))).toBe(true);
  } else expect([...sources.values()].some((source) => source.includes(part))).toBe(true);
});

test("every event of a refused execution is in the table, and is made", () => {
  const known = execErrors.map(({ code, message }) => ({ code, message }));
  const refusals: Shape[] = [];
  for (const [path, source] of sources) {
    for (const [, code = "", double, template] of source.matchAll(
      new RegExp(`new Refusal\\("(\\w+)", (?:[\\w.]+ \\? )?(?:${LITERAL})`, "g"),
    ))
      refusals.push({ code, text: textOf(double, template) });
    if (path === "src/runner/command.ts")
      for (const [, double, template] of source.matchAll(new RegExp(`new InvalidCommand\\((?:${LITERAL})`, "g")))
        refusals.push({ code: "invalid_command", text: textOf(double, template) });
  }
  expect(refusals.filter((shape) => !known.some((row) => becomes(shape, row)))).toEqual([]);
  expect(known.filter((row) => !refusals.some((shape) => becomes(shape, row)))).toEqual([]);
});

/** No test can have them: configuration is checked at the start, and Kubernetes makes no Pod without containers. */
const unseen = ["unknown_docker_implementation: <name>", "rpc error: code = Internal desc = pod_missing_containers"];

test.each([...rows, ...execErrors])("$message: a test expects it", ({ message }) => {
  const parts = message.split(/<[^>]*>/).map((part) => part.replace(/^[": ]+|[": ]+$/g, ""));
  const longest = parts.reduce((best, part) => (part.length > best.length ? part : best));
  expect(longest).not.toBe("");
  if (!unseen.includes(message)) expect(tests.includes(longest)).toBe(true);
});
