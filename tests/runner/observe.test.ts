import { expect, test } from "bun:test";
import { create, type Message } from "@bufbuild/protobuf";
import { createHandlerContext, createMethodImplSpec } from "@connectrpc/connect";
import { transformInvokeImplementation } from "@connectrpc/connect/protocol";
import { RunnerService, StreamEventsRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { createLog } from "../../src/log.ts";
import { Calls } from "../../src/runner/calls.ts";
import { observe } from "../../src/runner/observe.ts";

/** A stream under observation, of which one message was taken, as Connect's own handlers take it. */
async function observed() {
  const method = RunnerService.method.streamEvents;
  let isClosed = false;
  const spec = createMethodImplSpec(method, async function* () {
    try {
      for (;;) yield {};
    } finally {
      isClosed = true;
    }
  });
  const context = createHandlerContext({
    service: RunnerService,
    method,
    protocolName: "connect",
    requestMethod: "POST",
    url: "http://runner/",
  });
  const calls = new Calls();
  const asked = async function* (): AsyncGenerator<Message> {
    yield create(StreamEventsRequestSchema);
  };
  const interceptors = [observe(createLog({ level: "silent" }), { calls })];
  const messages = transformInvokeImplementation(spec, context, interceptors)(asked())[Symbol.asyncIterator]();
  expect((await messages.next()).done).toBe(false);
  return { messages, isClosed: () => isClosed };
}

test.each(["return", "throw"] as const)("a stream that is left by %s closes its handler", async (how) => {
  const { messages, isClosed } = await observed();
  const left = how === "return" ? messages.return?.() : messages.throw?.(new Error("the caller does not listen"));
  await left?.catch(() => undefined);
  expect(isClosed()).toBe(true);
});
