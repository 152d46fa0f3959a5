import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/*
 * The code blocks of documents that are marked `sh`, each as a file that a shell can source: `blocks.ts <directory> <file>...`
 * writes them and prints a line for each, `file:line`, its path, and why it is not run, separated by tabs. That reason stands
 * in the document: `<!-- not run: reason -->` on the line before the block.
 */

export interface Block {
  /** Of its first command. */
  readonly line: number;
  readonly text: string;
  /** Undefined: it is run. */
  readonly notRun: string | undefined;
}

const FENCE = /^```(\S*)\s*$/;
const MARK = /^<!-- not run: (.+) -->$/;

/** Throws for a fence that is never closed, and for a mark that stands before no such block. */
export function blocksIn(markdown: string): Block[] {
  const blocks: Block[] = [];
  let mark: { readonly reason: string; readonly line: number } | undefined;
  let open: { readonly language: string; readonly line: number; readonly lines: string[] } | undefined;
  for (const [index, line] of markdown.split("\n").entries()) {
    const fence = FENCE.exec(line);
    if (open !== undefined && fence?.[1] === "") {
      if (open.language === "sh")
        blocks.push({ line: open.line + 1, text: `${open.lines.join("\n")}\n`, notRun: mark?.reason });
      else if (mark !== undefined) throw new Error(`line ${mark.line}: the mark is before no sh block`);
      [open, mark] = [undefined, undefined];
    } else if (open !== undefined) open.lines.push(line);
    else if (fence !== null) open = { language: fence[1] ?? "", line: index + 1, lines: [] };
    else if (MARK.test(line)) mark = { reason: MARK.exec(line)?.[1] ?? "", line: index + 1 };
    else if (line.trim() !== "" && mark !== undefined)
      throw new Error(`line ${mark.line}: the mark is before no sh block`);
  }
  if (open !== undefined) throw new Error(`line ${open.line}: the block has no end`);
  return blocks;
}

if (import.meta.main) {
  const [directory = "", ...files] = process.argv.slice(2);
  mkdirSync(directory, { recursive: true });
  let count = 0;
  for (const file of files)
    for (const { line, text, notRun } of blocksIn(await Bun.file(file).text())) {
      const path = join(directory, `${String(count++).padStart(3, "0")}.sh`);
      writeFileSync(path, text);
      console.log([`${file}:${line}`, path, notRun ?? ""].join("\t"));
    }
}
