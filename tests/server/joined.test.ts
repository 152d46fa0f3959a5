import { expect, test } from "bun:test";
import { once } from "node:events";
import { connect as connectHttp2, createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { joined } from "../../src/joined.ts";

/** Both ends of a TCP connection, and every write that left the first of them. */
async function connection(server: Server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted: Promise<Socket[]> = once(server, "connection");
  const peer = connect((server.address() as AddressInfo).port, "127.0.0.1"); // it listens on TCP
  const [socket] = await accepted;
  if (socket === undefined) throw new Error("no connection");
  const writes: number[] = [];
  const write = socket.write.bind(socket);
  socket.write = (bytes: Uint8Array, ...rest: never[]) => {
    writes.push(bytes.length);
    return write(bytes, ...rest);
  };
  const close = () => {
    peer.destroy();
    server.close();
  };
  return { socket, peer, writes, [Symbol.dispose]: close };
}

async function read(socket: Socket): Promise<string> {
  let text = "";
  for await (const chunk of socket) text += chunk;
  return text;
}

test("short writes of one turn leave as one, in order, and before what is long", async () => {
  using pair = await connection(createServer());
  const socket = joined(pair.socket);
  const long = "-".repeat(64 * 1024);
  for (const text of ["a", "b", "c"]) socket.write(Buffer.from(text));
  await new Promise(setImmediate);
  expect(pair.writes).toEqual([3]);
  socket.write(Buffer.from("d"));
  await Promise.resolve();
  socket.write(Buffer.from("e")); // after an await, as answers come
  socket.write(Buffer.from(long));
  socket.write(Buffer.from("f"));
  socket.end();
  expect(await read(pair.peer)).toBe(`abcde${long}f`);
  expect(pair.writes).toEqual([3, 2, long.length, 1]);
});

test("of many short writes the first leave before the last are made", async () => {
  using pair = await connection(createServer());
  const socket = joined(pair.socket);
  for (const text of "abcdefgh") {
    socket.write(Buffer.from(text));
    await Promise.resolve(); // as answers come
  }
  expect(pair.writes).toEqual([6]);
  socket.end();
  expect(await read(pair.peer)).toBe("abcdefgh");
  expect(pair.writes).toEqual([6, 2]);
});

test("what waits is dropped in silence when the connection is gone", async () => {
  using pair = await connection(createServer());
  const errors: Error[] = [];
  pair.socket.on("error", (error) => errors.push(error));
  joined(pair.socket).write(Buffer.from("late"));
  pair.socket.destroy();
  await once(pair.socket, "close");
  await new Promise(setImmediate);
  expect(errors).toEqual([]);
  expect(pair.writes).toEqual([]);
});

test("the answers of requests that come together leave together", async () => {
  const http2 = createHttp2Server();
  http2.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("wantTrailers", () => stream.sendTrailers({ status: "0" }));
    stream.on("end", async () => {
      await Promise.resolve(); // as handlers do
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.end("answer");
    });
    stream.resume();
  });
  using pair = await connection(createServer());
  const { socket, peer, writes } = pair;
  http2.emit("connection", joined(socket));
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
  expect(writes.length).toBeGreaterThan(0); // the session does write here, and not past it
  expect(writes.length).toBeLessThanOrEqual(8);
  session.destroy();
});
