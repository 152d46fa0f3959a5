import { parse } from "yaml";

/**
 * Writes the table of values in the chart's README.md from the comments in values.yaml: `bun run chart:readme`.
 * `## text` begins a section; `# -- text`, with the comment lines that follow, is about the key below it.
 */

const CHART = `${import.meta.dir}/../../charts/k8s-runner`;
const BEGIN = "<!-- values: generated from values.yaml by `bun run chart:readme` -->";
const END = "<!-- end of values -->";

export interface DocumentedValue {
  readonly section: string;
  /** Keys from the top, `["image", "tag"]`. */
  readonly path: readonly string[];
  readonly text: string;
}

/** Every value with a comment, in the file's order. */
export function documentedValues(source: string): DocumentedValue[] {
  const values: DocumentedValue[] = [];
  const open: { indent: number; key: string }[] = [];
  let section = "";
  let comment: string[] = [];
  for (const line of source.split("\n")) {
    const key = /^( *)([A-Za-z][\w.-]*):/.exec(line);
    if (line.startsWith("## ")) section = line.slice(3);
    else if (/^ *# -- /.test(line)) comment = [line.replace(/^ *# -- /, "")];
    else if (/^ *# /.test(line) && comment.length > 0) comment.push(line.replace(/^ *# /, ""));
    else if (key?.[1] !== undefined && key[2] !== undefined) {
      const indent = key[1].length;
      while ((open.at(-1)?.indent ?? -1) >= indent) open.pop();
      open.push({ indent, key: key[2] });
      if (comment.length > 0) values.push({ section, path: open.map((each) => each.key), text: comment.join(" ") });
      comment = [];
    }
  }
  return values;
}

/** What stands at a path of parsed YAML. */
export function valueAt(tree: unknown, path: readonly string[]): unknown {
  let at = tree;
  for (const key of path) at = typeof at === "object" && at !== null ? Reflect.get(at, key) : undefined;
  return at;
}

const cell = (text: string): string => text.replaceAll("|", "\\|");

function table(source: string): string {
  const defaults: unknown = parse(source);
  const values = documentedValues(source);
  const sections = [...new Set(values.map(({ section }) => section))];
  const rows = ({ path, text }: DocumentedValue): string => {
    const value = JSON.stringify(valueAt(defaults, path));
    const shown = value.length > 120 ? "see values.yaml" : `\`${cell(value)}\``;
    return `| \`${path.join(".")}\` | ${shown} | ${cell(text)} |`;
  };
  return sections
    .map((section) => {
      const lines = values.filter((value) => value.section === section).map(rows);
      return `### ${section}\n\n| Value | Default | Meaning |\n| --- | --- | --- |\n${lines.join("\n")}\n`;
    })
    .join("\n");
}

/** The README with its table made anew. Throws when the marks that hold the table are missing. */
export async function readme(): Promise<{ path: string; now: string; right: string }> {
  const path = `${CHART}/README.md`;
  const now = await Bun.file(path).text();
  const begin = now.indexOf(BEGIN);
  const end = now.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`${path} must hold the lines ${BEGIN} and ${END}`);
  const made = table(await Bun.file(`${CHART}/values.yaml`).text());
  return { path, now, right: `${now.slice(0, begin)}${BEGIN}\n\n${made}\n${now.slice(end)}` };
}

if (import.meta.main) {
  const { path, right } = await readme();
  await Bun.write(path, right);
}
