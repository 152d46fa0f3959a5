import { expect, test } from "bun:test";
import { once } from "node:events";
import { Duplex } from "node:stream";
import { relay } from "../support/relay.ts";

test("what a server sent before it closed reaches a reader that is slow to take it", async () => {
  const taken: string[] = [];
  const waiting: (() => void)[] = [];
  const reader = new Duplex({
    highWaterMark: 1_000,
    read() {},
    write(data, _, done) {
      taken.push(String(data));
      waiting.push(done);
    },
  });
  const server = new Duplex({ allowHalfOpen: false, read() {}, write: (_data, _encoding, done) => done() });
  relay(reader, server);
  for (const piece of ["first", "next", "last"]) server.push(piece);
  server.push(null);
  await once(server, "close");
  const finished = once(reader, "finish");
  while (waiting.length > 0) waiting.shift()?.();
  await finished;
  expect(taken).toEqual(["first", "next", "last"]);
});

test("a reset is passed on as one", async () => {
  const [near, far] = [new Duplex({ read() {} }), new Duplex({ read() {} })];
  relay(near, far);
  near.destroy(new Error("reset"));
  await once(far, "close");
  expect(far.writableFinished).toBe(false);
});
