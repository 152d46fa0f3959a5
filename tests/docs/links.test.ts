import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { Glob } from "bun";

/** The documents hold together: what they link to and name is there. */

const ROOT = `${import.meta.dir}/../..`;
const documents = ["*.md", "docs/**/*.md", "charts/*/README.md", ".github/*.md"]
  .flatMap((pattern) => [...new Glob(pattern).scanSync({ cwd: ROOT, dot: true })])
  .sort();
const read = (path: string): Promise<string> => Bun.file(join(ROOT, path)).text();
/** Without blocks of code, in which brackets and paths are something else. */
const prose = (text: string): string => text.replace(/^```.*?^```/gms, "");

/** A heading's anchor as GitHub makes it. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
const anchorsIn = (text: string): string[] =>
  [...prose(text).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) => anchorOf(heading));

test("the documents are found", () => {
  for (const path of ["README.md", "docs/security.md", "docs/reference/rpc.md", ".github/CONTRIBUTING.md"])
    expect(documents).toContain(path);
});

test.each(documents)("%s: every link leads somewhere", async (path) => {
  const broken: string[] = [];
  for (const [, target = ""] of prose(await read(path)).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^https?:/.test(target)) continue;
    const [file = "", anchor] = target.split("#");
    const linked = file === "" ? path : normalize(join(dirname(path), file));
    if (!existsSync(join(ROOT, linked))) broken.push(target);
    else if (anchor !== undefined && !anchorsIn(await read(linked)).includes(anchor)) broken.push(target);
  }
  expect(broken).toEqual([]);
});

test.each(documents)("%s: every file of this repository that it names is there", async (path) => {
  const named = [
    ...(await read(path)).matchAll(/`((?:src|tests|bench|docs|charts|proto|ziti|\.github|\.ci)\/[\w./-]*\w)/g),
  ];
  expect(named.map(([, file = ""]) => file).filter((file) => !existsSync(join(ROOT, file)))).toEqual([]);
});

test("every page of docs/ can be reached from the README", async () => {
  const seen = new Set(["README.md"]);
  for (const path of seen)
    for (const [, target = ""] of prose(await read(path)).matchAll(/\]\(([^)\s#]+\.md)(?:#[^)]*)?\)/g)) {
      const linked = normalize(join(dirname(path), target));
      if (!/^https?:/.test(target) && existsSync(join(ROOT, linked))) seen.add(linked);
    }
  expect(documents.filter((path) => path.startsWith("docs/") && !seen.has(path))).toEqual([]);
});
