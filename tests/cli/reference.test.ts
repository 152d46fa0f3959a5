import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { reference } from "./reference.ts";

const root = join(import.meta.dir, "..", "..");

test("docs/cli.md is what the table of commands makes of it now", () => {
  // As `bun run cli:reference` does: written, and formatted by the project's formatter.
  const directory = mkdtempSync(join(root, "tests", "cli", "reference-"));
  try {
    const path = join(directory, "cli.md");
    writeFileSync(path, reference());
    const { exitCode, stderr } = Bun.spawnSync([join(root, "node_modules/.bin/biome"), "check", "--write", path], {
      cwd: root,
      stderr: "pipe",
    });
    expect([exitCode, exitCode === 0 ? "" : stderr.toString()]).toEqual([0, ""]);
    expect(readFileSync(join(root, "docs/cli.md"), "utf8")).toBe(readFileSync(path, "utf8"));
  } finally {
    rmSync(directory, { recursive: true });
  }
});
