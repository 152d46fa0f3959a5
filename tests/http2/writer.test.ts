import { expect, test } from "bun:test";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import type { Socket } from "node:net";
import { Http2Connection } from "../../src/http2/connection.ts";
import { encodeHeaders } from "../../src/http2/hpack.ts";
import { Usage } from "../../src/limits.ts";
import { createLog } from "../../src/log.ts";
import { tcpPair } from "./client.ts";

async function read(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test("short writes of one turn leave as one, in order, and before what is long", async () => {
  using pair = await tcpPair();
  const { writer, writes } = pair;
  const long = "-".repeat(64 * 1024);
  for (const text of ["a", "b", "c"]) writer.send(Buffer.from(text));
  expect(writes).toEqual([]);
  await new Promise(setImmediate);
  expect(writes).toEqual([3]);
  writer.send(Buffer.from("d"));
  await Promise.resolve();
  writer.send(Buffer.from("e")); // after an await, as answers come
  writer.send(Buffer.from(long));
  writer.send(Buffer.from("f"));
  writer.flush();
  pair.socket.end();
  expect((await read(pair.peer)).toString()).toBe(`abcde${long}f`);
  expect(writes).toEqual([3, 2, long.length, 1]);
});

test("what is short leaves with what is long behind it, as one, unless that is too much", async () => {
  using pair = await tcpPair();
  const { writer, writes } = pair;
  const long = (letter: string, before: string) => {
    const bytes = writer.room(32 * 1024);
    expect(bytes.subarray(0, -32 * 1024).toString()).toBe(before);
    writer.send(bytes.fill(letter, bytes.length - 32 * 1024));
  };
  const frame = writer.room(4 * 1024 + 9).fill("a"); // as of a short read
  writer.send(frame);
  writer.send(Buffer.from("b"));
  long("c", `${frame}b`);
  long("d", "");
  expect(writes).toEqual([36 * 1024 + 10, 32 * 1024]);
  for (const letter of "ef") writer.send(writer.room(7 * 1024).fill(letter));
  long("g", ""); // 14 KiB before it would be too much
  expect(writes.slice(2)).toEqual([14 * 1024, 32 * 1024]);
  await new Promise(setImmediate); // nothing was left to leave
  pair.socket.end();
  const counts = new Map<string, number>();
  for (const letter of (await read(pair.peer)).toString()) counts.set(letter, (counts.get(letter) ?? 0) + 1);
  const [k4, k7, k32] = [4 * 1024 + 9, 7 * 1024, 32 * 1024];
  expect([...counts]).toEqual([...Object.entries({ a: k4, b: 1, c: k32, d: k32, e: k7, f: k7, g: k32 })]);
  expect(writes.length).toBe(4);
});

test("of many short writes the first leave before the last are made", async () => {
  using pair = await tcpPair();
  for (const text of "abcdefgh") {
    pair.writer.send(Buffer.from(text));
    await Promise.resolve(); // as answers come
  }
  expect(pair.writes).toEqual([6]);
  await new Promise(setImmediate);
  expect(pair.writes).toEqual([6, 2]);
  pair.socket.end();
  expect((await read(pair.peer)).toString()).toBe("abcdefgh");
});

test.each(["end", "destroy"] as const)("what waits is dropped in silence after %s of the connection", async (end) => {
  using pair = await tcpPair();
  const errors: Error[] = [];
  pair.socket.on("error", (error) => errors.push(error));
  const received = read(pair.peer);
  pair.writer.send(Buffer.from("late"));
  pair.socket[end]();
  pair.writer.send(Buffer.from("-".repeat(64 * 1024)));
  await once(pair.socket, "close");
  expect(errors).toEqual([]);
  expect((await received).length).toBe(0);
  expect(pair.writes).toEqual([]);
});

test("memory of a long write is used again when that has left, and not before", async () => {
  using pair = await tcpPair();
  const { writer, socket, peer } = pair;
  const length = 32 * 1024;
  const count = 512; // more than the system takes from a peer that does not read
  expect(writer.isFull).toBe(false);
  const used = new Set<ArrayBufferLike>();
  for (let index = 0; index < count; index++) {
    const bytes = writer.room(length).fill(index % 251);
    used.add(bytes.buffer);
    writer.send(bytes);
    await Promise.resolve();
  }
  expect(writer.isFull).toBe(true);
  const received = read(peer);
  await once(socket, "drain");
  expect(writer.isFull).toBe(false);
  expect(used.has(writer.room(length).buffer)).toBe(true);
  socket.end();
  const bytes = await received;
  expect(bytes.length).toBe(count * length);
  for (let index = 0; index < count; index++) {
    const piece = bytes.subarray(index * length, (index + 1) * length);
    expect(piece.equals(Buffer.alloc(length, index % 251))).toBe(true);
  }
});

test("the answers of calls that come together leave together", async () => {
  using pair = await tcpPair();
  const { socket, peer, writes } = pair;
  const [head, trailers] = [encodeHeaders([[":status", "200"]]), encodeHeaders([["status", "0"]])];
  new Http2Connection(socket, {
    usage: new Usage(),
    log: createLog({ level: "silent" }),
    overdone: () => expect.unreachable(),
    serve: (stream) => {
      stream.onEnd = async () => {
        await Promise.resolve(); // as handlers do
        stream.answer(head, Buffer.from("answer"), trailers);
      };
    },
  });
  const session = connectHttp2("http://127.0.0.1", { createConnection: () => peer });
  const ask = async () => {
    const stream = session.request({ ":method": "POST" });
    stream.end();
    let text = "";
    for await (const chunk of stream) text += chunk;
    return text;
  };
  await ask(); // settings and their acknowledgement are over
  writes.length = 0;
  const answers = await Promise.all(Array.from({ length: 32 }, ask));
  expect(answers).toEqual(Array.from({ length: 32 }, () => "answer"));
  expect(writes.length).toBeGreaterThan(0); // they do leave here
  expect(writes.length).toBeLessThan(16);
  session.destroy();
});
