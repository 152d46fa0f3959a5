import { expect, test } from "bun:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import type { Connection } from "../../src/cli/connection.ts";
import { Execution } from "../../src/cli/execution.ts";
import { Screen } from "../../src/cli/screen.ts";
import { type ExecResponseSchema, RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";

type Event = NonNullable<MessageInitShape<typeof ExecResponseSchema>["event"]>;

/** A runner that answers Exec with these events, whatever it is asked. */
function answering(events: readonly Event[]): Connection {
  const transport = createRouterTransport(({ service }) => {
    service(RunnerService, {
      async *exec() {
        for (const event of events) yield { event };
      },
    });
  });
  return {
    address: "",
    client: createClient(RunnerService, transport),
    limits: () => ({}),
    [Symbol.dispose]: () => {},
  };
}

async function told(events: readonly Event[]) {
  const execution = new Execution(answering(events), { targetId: "x", commandArgv: ["x"] });
  const heard: string[] = [];
  const hear = async (data: Uint8Array) => void heard.push(Buffer.from(data).toString());
  return await execution.result({ stdout: hear, stderr: hear }).then(
    ({ exitCode }) => ({ exitCode, heard: heard.join("") }),
    (error: unknown) => error,
  );
}

const started: Event = { case: "started", value: { executionId: "1" } };
const out = (seq: bigint, text: string): Event => ({ case: "stdout", value: { seq, data: Buffer.from(text) } });
const exit: Event = { case: "exit", value: { exitCode: 3 } };

test("all output and an exit are an end", async () => {
  expect(await told([started, out(1n, "a"), out(2n, "b"), exit])).toEqual({ exitCode: 3, heard: "ab" });
});

test.each([
  [
    "a stream that ends without an exit",
    [started, out(1n, "a")],
    "data_loss: the stream ended without an exit; the command may still run",
    126,
  ],
  ["one that ends without a word", [], "data_loss: the stream ended without an exit", 125],
  ["output with a gap", [started, out(1n, "a"), out(3n, "c"), exit], "data_loss: stdout has part 3 after 1", 126],
  ["output told twice", [started, out(1n, "a"), out(1n, "a"), exit], "data_loss: stdout has part 1 after 1", 126],
] satisfies [string, Event[], string, number][])("%s is no end", async (_, events, message, status) => {
  expect(await told(events)).toMatchObject({ name: "Failure", message, status });
});

test("what a program left switched on in the terminal is known, however its output was cut", () => {
  const output = Buffer.from(
    "\u001b[?1049h\u001b[?1;25l\u001b[?2004h\u001b[?1000;1006hx\u001b[?1000l\u001b[?1049l\u001b[?1047h",
  );
  const tidied = "\u001b[0m\u001b[?25h\u001b[?1006l\u001b[?2004l\u001b[?1047l";
  for (let size = 1; size <= output.length; size++) {
    const screen = new Screen();
    for (let at = 0; at < output.length; at += size) screen.see(output.subarray(at, at + size));
    expect(screen.tidy()).toBe(tidied);
  }
  expect(new Screen().tidy()).toBe("");
});
