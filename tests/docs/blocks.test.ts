import { expect, test } from "bun:test";
import { blocksIn } from "./blocks.ts";

test("sh blocks are found with their lines, others are not, and a mark is its block's reason not to run", () => {
  const text = "a\n\n```sh\none\ntwo\n```\n\n```yaml\nx: 1\n```\n\n<!-- not run: needs kind -->\n\n```sh\nkind\n```\n";
  expect(blocksIn(text)).toEqual([
    { line: 4, text: "one\ntwo\n", notRun: undefined },
    { line: 15, text: "kind\n", notRun: "needs kind" },
  ]);
});

test("a mark without a block, and a block without an end, are mistakes", () => {
  expect(() => blocksIn("<!-- not run: x -->\n\ntext\n")).toThrow("line 1: the mark is before no sh block");
  expect(() => blocksIn("<!-- not run: x -->\n```yaml\n```\n")).toThrow("line 1: the mark is before no sh block");
  expect(() => blocksIn("```sh\nx\n")).toThrow("line 1: the block has no end");
});
