import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { ExecStartRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { ExecChannel, Output } from "../../src/kube/channel.ts";
import { KubeError } from "../../src/kube/error.ts";
import { release } from "../../src/memory.ts";
import { Command } from "../../src/runner/command.ts";
import { Connection } from "../../src/runner/connection.ts";
import { Images } from "../../src/runner/images.ts";
import { allOf, nextOf } from "../../src/source.ts";
import { channelOf } from "../support/channel.ts";

// What a cluster can tell of an end, and what of it is believed. Whole executions are in the end-to-end files.
const ID = "execution";
const target = { pod: "pod", container: "main", place: "place" };
const exitWord = (stream: Output["stream"], code: number): Output => ({
  stream,
  data: Buffer.from(`\x1e${ID}:exit:${code}\n`),
});
const text = (data: string): Output => ({ stream: "stdout", data: Buffer.from(data) });

/** With a terminal, there is something that is handed over through it. */
function connectionTo(channel: ExecChannel, tty = false): Connection {
  const options = { tty, env: tty ? [{ name: "A", value: "a" }] : [] };
  const command = new Command(create(ExecStartRequestSchema, { commandArgv: ["true"], options }));
  const how = { command, executionId: ID, tty };
  return new Connection({ exec: async () => channel }, target, how, new Images());
}

const connectionOf = (outputs: readonly Output[], code: number | undefined, tty = false): Connection =>
  connectionTo(channelOf(outputs, code), tty);

/** Runs a command whose channel says this; `code` undefined: the status never comes. */
async function ended(
  outputs: readonly Output[],
  code: number | undefined,
  tty = false,
): Promise<{ stdout: string; end: unknown }> {
  using connection = connectionOf(outputs, code, tty);
  const read: Uint8Array[] = [];
  let end: unknown;
  try {
    for await (const { data } of allOf(connection)) read.push(data);
    end = connection.exitCode;
  } catch (error) {
    end = String(error);
  }
  return { stdout: Buffer.concat(read).toString(), end };
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

test("a command has ended although what it left behind says more without end", async () => {
  const words = [exitWord("stdout", 4), exitWord("stderr", 4)];
  const channel: ExecChannel = { ...channelOf([], undefined), take: () => words.shift() ?? text("more") };
  using connection = connectionTo(channel);
  let said = 0;
  for await (const { data } of allOf(connection)) {
    said += data.length;
    await new Promise(setImmediate); // as its caller takes it
  }
  expect([said > 0, connection.exitCode]).toEqual([true, 4]);
});

test("an execution that is cut when the wrapper has told its end keeps its code", async () => {
  using connection = connectionOf([text("all"), exitWord("stdout", 4), exitWord("stderr", 4)], undefined);
  expect(String((await nextOf(connection))?.data)).toBe("all");
  const rest = nextOf(connection);
  await new Promise(setImmediate); // it has heard both words, and waits for the status
  connection.close();
  expect([await rest, connection.exitCode]).toEqual([undefined, 4]);
});

test("an execution that is cut before has no code", async () => {
  using connection = connectionOf([text("all"), exitWord("stdout", 4)], undefined);
  expect(String((await nextOf(connection))?.data)).toBe("all");
  const rest = nextOf(connection);
  await new Promise(setImmediate);
  connection.close();
  expect(String(await rest.catch((error: unknown) => error))).toContain("closed by us");
  expect(connection.exitCode).toBeUndefined();
});

test("who waits to write is told when nobody reads any more", async () => {
  let writing: Promise<unknown>;
  {
    using connection = connectionOf([text("a terminal that never says that it is ready")], undefined, true);
    writing = connection.write(Buffer.from("typed")).catch((error: unknown) => error);
    await nextOf(connection);
  }
  expect(String(await writing)).toContain("the execution has ended");
});

/** A container without a shell: a first try is refused once `refuse` is called, before it opens or then, a second one opens with `open`. */
function withoutShell(isRefusedAtOnce = false) {
  const [refused, opened] = [Promise.withResolvers<never>(), Promise.withResolvers<void>()];
  refused.promise.catch(() => undefined); // not every test asks for it
  let isRefused = false;
  const tries: { written: Buffer[]; ended: boolean }[] = [];
  const command = new Command(create(ExecStartRequestSchema, { commandArgv: ["cat"] }));
  const exec = async (): Promise<ExecChannel> => {
    const seen = { written: [] as Buffer[], ended: false };
    const isFirst = tries.push(seen) === 1;
    if (isFirst && isRefusedAtOnce) await refused.promise;
    if (!isFirst) await opened.promise;
    return {
      ...channelOf([], 0),
      get isOver() {
        return !isFirst || isRefused;
      },
      ...(isFirst ? { ready: () => refused.promise.catch(() => undefined), exitCode: refused.promise } : {}),
      write: async (data) => void seen.written.push(Buffer.from(data)),
      end: () => {
        seen.ended = true;
      },
    };
  };
  const connection = new Connection({ exec }, target, { command, executionId: ID, tty: false }, new Images());
  const refuse = () => {
    isRefused = true;
    refused.reject(new KubeError(500, "InternalError", 'exec: "/bin/sh": stat /bin/sh: no such file or directory'));
  };
  return { connection, tries, refuse, open: () => opened.resolve() };
}

/** As an execution does it: the memory of each message is given back once it was written. */
async function writeAll(connection: Connection, messages: readonly Buffer[]): Promise<void> {
  for (const message of messages) {
    const data = Buffer.from(new ArrayBuffer(message.length));
    data.set(message);
    await connection.write(data);
    release(data);
  }
}

const messagesOf = (...lengths: number[]) => lengths.map((length, index) => Buffer.alloc(length, 65 + index));

test.each([
  ["in small messages", messagesOf(10, 1, 300)],
  ["of 10 KiB in two", messagesOf(6 * 1024, 4 * 1024)],
  ["of 60 KiB in messages of all sizes", messagesOf(20 * 1024, 7, 32 * 1024, 1, 8 * 1024 - 8)],
  ["of all that is kept, in one", messagesOf(64 * 1024)],
])("input %s that went to a shell that is not there arrives whole in the second try", async (_, messages) => {
  const { connection, tries, refuse, open } = withoutShell();
  using _open = connection;
  await writeAll(connection, messages);
  await connection.end();
  const end = nextOf(connection);
  refuse();
  open();
  expect(await end).toBeUndefined();
  await new Promise(setImmediate);
  const [first, second] = tries;
  expect(Buffer.concat(first?.written ?? []).subarray(-Buffer.concat(messages).length)).toEqual(
    Buffer.concat(messages),
  );
  expect(second).toEqual({ written: [...messages], ended: true });
  expect(connection.exitCode).toBe(0);
});

test.each([
  ["opens", true],
  ["has opened", false],
])("input that comes when the second try %s arrives once, behind what came before", async (_, isOpening) => {
  const { connection, tries, refuse, open } = withoutShell();
  using _open = connection;
  const [before, ...later] = messagesOf(10 * 1024, 20 * 1024, 50 * 1024).map((message) => [message]);
  await writeAll(connection, before ?? []);
  const end = nextOf(connection);
  refuse();
  if (!isOpening) open();
  await new Promise(setImmediate);
  const writing = writeAll(connection, later.flat());
  open();
  await Promise.all([writing, end]);
  await connection.end();
  expect(tries[1]?.written.map(({ length }) => length)).toEqual([10 * 1024, 20 * 1024, 50 * 1024]);
  expect(tries[1]?.ended).toBe(true);
});

test("input that waits for a first try that does not open arrives once", async () => {
  const { connection, tries, refuse, open } = withoutShell(true);
  using _open = connection;
  const messages = messagesOf(10 * 1024, 20 * 1024, 50 * 1024);
  const writing = writeAll(connection, messages).then(() => connection.end());
  const end = nextOf(connection);
  await new Promise(setImmediate);
  refuse();
  open();
  await Promise.all([writing, end]);
  expect(tries).toEqual([
    { written: [], ended: false },
    { written: messages, ended: true },
  ]);
});
