import { expect, test } from "bun:test";
import { allOf } from "../../src/source.ts";
import { grown } from "../support/grown.ts";
import { execServer, type ServerEnd } from "./exec-server.ts";
import { failureOf } from "./server.ts";

/* An API server that breaks the rules of WebSockets (RFC 6455) or of exec, as the attacker (promises, threat 27). */

const MEBIBYTE = 1024 * 1024;
const CONTINUATION = 0x0;
const BINARY = 0x2;
const FIN = 0x80;
const COMPRESSED = 0x40;
const MASKED = 0x80;

/** The header of a frame that says it holds `bytes`. */
function header(first: number, bytes: number): Buffer {
  const head = Buffer.alloc(10);
  head[0] = first;
  head[1] = 127;
  head.writeBigUInt64BE(BigInt(bytes), 2);
  return head;
}

const small = (first: number, payload: string) => Buffer.from([first, payload.length, ...Buffer.from(payload)]);

/** What an exec ends with when the server does this. */
async function outcome(serve: (end: ServerEnd) => unknown, protocol?: string): Promise<unknown> {
  await using server = await execServer(serve, undefined, protocol);
  const signal = new AbortController().signal;
  return await failureOf(
    (async () => {
      using channel = await server.kube().exec("p", { container: "c", command: ["true"], signal });
      for await (const _ of allOf(channel));
      return await channel.exitCode;
    })(),
  );
}

const lost = { name: "KubeError", status: 0, unreachable: true };

/** Sends these bytes for as long as the client is there, at its pace. */
async function without(end: ServerEnd, chunk: Uint8Array): Promise<void> {
  while (!end.socket.destroyed) await Promise.race([end.write(chunk), end.closed]);
}

test.each([
  [
    "one message of 4 GiB",
    async (end: ServerEnd) => {
      await end.write(header(FIN | BINARY, 4 * 1024 * MEBIBYTE));
      await without(end, Buffer.alloc(65_536, 1));
    },
  ],
  [
    "one message of fragments without end",
    async (end: ServerEnd) => {
      await end.write(Buffer.concat([header(BINARY, 65_536), Buffer.alloc(65_536, 1)]));
      await without(end, Buffer.concat([header(CONTINUATION, 65_536), Buffer.alloc(65_536, 1)]));
    },
  ],
])("%s is given up, in bounded memory", async (_name, serve) => {
  const mib = await grown(async () => expect(await outcome(serve)).toMatchObject(lost));
  expect(mib).toBeLessThan(300);
});

test.each([
  ["compressed without having been asked to", small(FIN | COMPRESSED | BINARY, "\u0001abc")],
  ["of an unknown kind", small(FIN | 0x3, "\u0001abc")],
  ["masked, as only a client's are", Buffer.from([FIN | BINARY, MASKED | 1, 1, 2, 3, 4, 5])],
  ["a continuation of nothing", small(FIN | CONTINUATION, "\u0001abc")],
  ["a ping of more than 125 bytes", Buffer.concat([header(FIN | 0x9, 1_000), Buffer.alloc(1_000)])],
])("a frame that is %s ends the exec as lost", async (_name, bytes) => {
  expect(await outcome((end) => end.write(bytes))).toMatchObject(lost);
});

test.each(["", "v4.channel.k8s.io", "v5.channel.k8s.io, v4.channel.k8s.io", "chat"])(
  "the sub-protocol %p is refused, and nothing is taken from it",
  async (protocol) => {
    const error = await outcome((end) => void end.status({ status: "Success" }), protocol);
    expect(error).toMatchObject({ name: "KubeError" });
  },
);

test.each([
  ["no JSON", "Success"],
  ["no object", "[]"],
  ["of nothing", ""],
  ["of no known status", '{"status":"Maybe"}'],
  [
    "of a code that is none",
    '{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"1e9"}]}}',
  ],
  ["of causes that are none", '{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":7}}'],
  [
    "of no causes at all",
    '{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[null,7,{"reason":"ExitCode","message":{}}]}}',
  ],
  ["deeper than anything", "[".repeat(30_000)],
])("a status that is %s is never taken for success", async (_name, text) => {
  const error = await outcome(async (end) => {
    await end.send(3, text);
    end.socket.end();
  });
  expect(error).toMatchObject({ name: "KubeError" });
});
