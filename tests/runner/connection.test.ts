import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { ExecStartRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Output } from "../../src/kube/channel.ts";
import { Command } from "../../src/runner/command.ts";
import { Connection, Images } from "../../src/runner/connection.ts";
import { channelOf } from "../support/channel.ts";

// What a cluster can tell of an end, and what of it is believed. Whole executions are in the end-to-end files.
const ID = "execution";
const target = { pod: "pod", container: "main", place: "place" };
const exitWord = (stream: Output["stream"], code: number): Output => ({
  stream,
  data: Buffer.from(`\x1e${ID}:exit:${code}\n`),
});
const text = (data: string): Output => ({ stream: "stdout", data: Buffer.from(data) });

/** Runs a command whose channel says this; `code` undefined: the status never comes. */
async function ended(
  outputs: readonly Output[],
  code: number | undefined,
  tty = false,
): Promise<{ stdout: string; end: unknown }> {
  const command = new Command(create(ExecStartRequestSchema, { commandArgv: ["true"], options: { tty } }));
  const how = { command, executionId: ID, tty };
  using connection = new Connection({ exec: async () => channelOf(outputs, code) }, target, how, new Images());
  const run = connection.run();
  const read: Uint8Array[] = [];
  for (;;) {
    const step = await run.next().catch((error: unknown) => ({ done: true as const, value: String(error) }));
    if (step.done) return { stdout: Buffer.concat(read).toString(), end: step.value };
    read.push(step.value.data);
  }
}

test("a status behind the wrapper's word on both streams is the end", async () => {
  const outputs = [text("all"), exitWord("stdout", 3), exitWord("stderr", 3)];
  expect(await ended(outputs, 3)).toEqual({ stdout: "all", end: 3 });
});

test("a status without the wrapper's word is no success: output is missing", async () => {
  for (const outputs of [[text("par")], [text("par"), exitWord("stderr", 0)]])
    for (const code of [0, 1, 126])
      expect(await ended(outputs, code)).toEqual({
        stdout: "par",
        end: expect.stringContaining("not all output"),
      });
});

test("the wrapper's code is believed where the cluster tells another", async () => {
  expect(await ended([text("all"), exitWord("stdout", 4), exitWord("stderr", 4)], 0)).toEqual({
    stdout: "all",
    end: 4,
  });
});

test("a terminal's wrapper tells the end twice on its one stream, and what is missing is missed there, too", async () => {
  const word = exitWord("stdout", 3);
  expect(await ended([text("all"), word, word], 0, true)).toEqual({ stdout: "all", end: 3 });
  for (const outputs of [[text("par")], [text("par"), word]])
    expect(await ended(outputs, 0, true)).toEqual({ stdout: "par", end: expect.stringContaining("not all output") });
});

test("a wrapper that a signal ended could say nothing: the status is the end", async () => {
  expect(await ended([text("up")], 137)).toEqual({ stdout: "up", end: 137 });
});

test("the wrapper's word on both streams is the end when the cluster stays silent", async () => {
  expect(await ended([text("all"), exitWord("stdout", 4), exitWord("stderr", 4)], undefined)).toEqual({
    stdout: "all",
    end: 4,
  });
});
