import { createServer, type ServerHttp2Stream } from "node:http2";

/**
 * The least that node:http2 on this runtime can do for a unary gRPC call: the bytes of Ready's answer once the request, whatever
 * it says, has come whole.
 * Serves h2c on a free port of the loopback, prints `{"addr":"host:port"}` and ends on SIGTERM.
 */
const message = Buffer.from([0x0a, 2, ...Buffer.from("ok")]); // ReadyResponse { status: "ok" }
const frame = Buffer.from([0, 0, 0, 0, message.length, ...message]); // not compressed, four bytes of length

const server = createServer({ maxSessionMemory: 1000 }); // as the runner's listener
server.on("stream", (stream: ServerHttp2Stream) => {
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.on("end", () => {
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.end(frame);
  });
  stream.resume();
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no TCP address");
  console.error(JSON.stringify({ addr: `${address.address}:${address.port}` }));
});
process.on("SIGTERM", () => process.exit(0));
