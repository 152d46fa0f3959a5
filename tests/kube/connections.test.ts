import { expect, test } from "bun:test";
import net, { type AddressInfo, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import tls from "node:tls";
import { Connections, connect, type Peer } from "../../src/kube/connections.ts";
import { tlsMaterial } from "../support/cluster/tls.ts";
import { failureOf } from "./server.ts";

/** Longer than any test. */
const LONG_MS = 60_000;
const MOST = 8;

const never = () => new AbortController().signal;

/** Looks rather than listens: who takes a connection removes all listeners. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 1));
}

const closed = (socket: Socket): Promise<void> => until(() => socket.closed);

/** Whether there is none to take; the matcher would print all of a socket. */
const none = (connections: Connections, peer: Peer): boolean => connections.take(peer) === undefined;

/** What was made with `using` is over when the test is. */
function listening(server: net.Server, sockets: Set<Socket>) {
  const { port } = server.address() as AddressInfo; // a TCP server's address is an object
  return {
    port,
    /** The server's ends, in the order in which they came. */
    sockets,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => server.close(done));
    },
  };
}

/** A server that only listens. `heard` is told of what a client says. */
async function serve(heard: (text: string) => void = () => undefined) {
  const sockets = new Set<Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined); // the client may reset
    socket.on("data", (chunk) => heard(chunk.toString()));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const at = listening(server, sockets);
  const peer: Peer = { url: new URL(`http://127.0.0.1:${at.port}/path?query=1`), tls: {} };
  return { ...at, peer };
}

/** The same over TLS, on every address; it asks for the client's certificate. */
async function serveTls({ certPem, keyPem }: { certPem: string; keyPem: string }) {
  const sockets = new Set<Socket>();
  const heard: string[] = [];
  const seen: { servername: string | false | null; alpn: string | false | null }[] = [];
  const server = tls.createServer({ cert: certPem, key: keyPem, ALPNProtocols: ["h2", "http/1.1"] }, (socket) => {
    sockets.add(socket);
    seen.push({ servername: socket.servername, alpn: socket.alpnProtocol });
    socket.on("error", () => undefined); // the client may reset
    socket.on("data", (chunk) => heard.push(chunk.toString()));
  });
  server.on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, "0.0.0.0", resolve));
  return { ...listening(server, sockets), heard, seen };
}

const listeners = (socket: Socket) =>
  Object.fromEntries(socket.eventNames().map((name) => [name, socket.listenerCount(name)]));

/** A connection that nobody uses hears nothing, and its errors hurt nobody. */
const NOTHING = { error: 1 };

test("what was left is taken again for the same origin, whatever its path, the newest first, and each once", async () => {
  await using server = await serve();
  const { peer } = server;
  const connections = new Connections(LONG_MS);
  expect(none(connections, peer)).toBe(true);
  const [first, second] = [await connect(peer, never()), await connect(peer, never())];
  connections.leave(first, peer);
  connections.leave(second, peer);
  const other = { url: new URL("/other?query=2", peer.url), tls: {} };
  expect(connections.take(other) === second).toBe(true);
  expect(connections.take(other) === first).toBe(true);
  expect(none(connections, other)).toBe(true);
  expect([first.destroyed, second.destroyed]).toEqual([false, false]);
  for (const socket of [first, second]) socket.destroy();
});

test("what leads elsewhere, or was made safe in another way, is not taken", async () => {
  await using server = await serve();
  const { port } = server;
  const tlsOf = { ca: "ca", cert: "cert", key: "key", rejectUnauthorized: true, serverName: "name" };
  const peer = { url: new URL(`https://127.0.0.1:${port}`), tls: tlsOf };
  const connections = new Connections(LONG_MS);
  const socket = await connect(server.peer, never());
  connections.leave(socket, peer);
  const others: Peer[] = [
    { ...peer, url: new URL(`http://127.0.0.1:${port}`) },
    { ...peer, url: new URL(`https://127.0.0.2:${port}`) },
    { ...peer, url: new URL(`https://127.0.0.1:${port + 1}`) },
    { ...peer, tls: {} },
    ...Object.keys(tlsOf).map((name) => ({ ...peer, tls: { ...tlsOf, [name]: undefined } as Peer["tls"] })), // a part not given
    { ...peer, tls: { ...tlsOf, ca: "another" } },
    { ...peer, tls: { ...tlsOf, cert: "another" } },
    { ...peer, tls: { ...tlsOf, key: "another" } },
    { ...peer, tls: { ...tlsOf, rejectUnauthorized: false } },
    { ...peer, tls: { ...tlsOf, serverName: "another" } },
  ];
  for (const other of others) expect(none(connections, other)).toBe(true);
  expect(connections.take({ url: new URL(peer.url), tls: { ...tlsOf } }) === socket).toBe(true);
  socket.destroy();
});

test("one that was taken again works, and hears nothing of the time it waited", async () => {
  const heard = Promise.withResolvers<string>();
  await using server = await serve(heard.resolve);
  const { peer } = server;
  const connections = new Connections(LONG_MS);
  const socket = await connect(peer, never());
  expect(listeners(socket)).toEqual(NOTHING);
  for (let turn = 0; turn < 12; turn++) {
    connections.leave(socket, peer);
    expect(connections.take(peer) === socket).toBe(true);
    expect(listeners(socket)).toEqual(NOTHING);
  }
  const answer = new Promise<string>((resolve) => socket.once("data", (chunk) => resolve(chunk.toString())));
  socket.write("question");
  expect(await heard.promise).toBe("question");
  for (const end of server.sockets) end.write("answer");
  expect(await answer).toBe("answer");
  expect(socket.destroyed).toBe(false);
  socket.destroy();
});

const endings: Record<string, (end: Socket) => void> = {
  closes: (end) => end.end(),
  resets: (end) => end.resetAndDestroy(),
  "says something on, unasked": (end) => end.write("HTTP/1.1 408 Request Timeout\r\n\r\n"),
};

test.each(Object.entries(endings))("one that the server %s is closed, and not taken again", async (_, ending) => {
  await using server = await serve();
  const { peer } = server;
  const connections = new Connections(LONG_MS);
  const socket = await connect(peer, never());
  const other = await connect(peer, never());
  connections.leave(other, peer);
  connections.leave(socket, peer);
  await until(() => server.sockets.size === 2);
  for (const end of server.sockets) if (end.remotePort === socket.localPort) ending(end);
  await closed(socket);
  expect(connections.take(peer) === other).toBe(true);
  expect(none(connections, peer)).toBe(true);
  expect(listeners(socket)).toEqual(NOTHING);
  other.destroy();
});

test("one that was paused before it waits is heard all the same", async () => {
  await using server = await serve();
  const { peer } = server;
  const connections = new Connections(LONG_MS);
  const socket = await connect(peer, never());
  socket.pause();
  connections.leave(socket, peer);
  await until(() => server.sockets.size > 0);
  for (const end of server.sockets) end.write("unasked");
  await closed(socket);
  expect(none(connections, peer)).toBe(true);
});

test("so many wait at most, however fast they are left, and the oldest go", async () => {
  await using server = await serve();
  const { peer } = server;
  const connections = new Connections(LONG_MS);
  const sockets = await Promise.all(Array.from({ length: MOST + 4 }, () => connect(peer, never())));
  for (const socket of sockets) connections.leave(socket, peer);
  await Promise.all(sockets.slice(0, 4).map(closed));
  const taken = sockets.map(() => connections.take(peer)).filter((socket) => socket !== undefined);
  expect(taken.map((socket) => sockets.indexOf(socket))).toEqual([11, 10, 9, 8, 7, 6, 5, 4]);
  expect(taken.some((socket) => socket.destroyed)).toBe(false);
  for (const socket of sockets) socket.destroy();
});

test("one that was put away for a newer one is not taken, at once or later", async () => {
  await using first = await serve();
  await using second = await serve();
  const connections = new Connections(LONG_MS);
  const oldest = await connect(first.peer, never());
  connections.leave(oldest, first.peer);
  const newer = await Promise.all(Array.from({ length: MOST }, () => connect(second.peer, never())));
  for (const socket of newer) connections.leave(socket, second.peer);
  expect(none(connections, first.peer)).toBe(true);
  await closed(oldest);
  for (let count = 0; count < MOST; count++) expect(connections.take(second.peer)?.destroyed).toBe(false);
  for (const socket of newer) socket.destroy();
});

test("one that waits too long is closed, and one that is used is not", async () => {
  await using server = await serve();
  const { peer } = server;
  const connections = new Connections(20);
  const [waits, used] = [await connect(peer, never()), await connect(peer, never())];
  connections.leave(used, peer);
  expect(connections.take(peer) === used).toBe(true);
  connections.leave(waits, peer);
  await closed(waits);
  expect(none(connections, peer)).toBe(true);
  expect(used.destroyed).toBe(false);
  used.destroy();
});

test("those that wait are closed together, and are not taken, while those in use go on", async () => {
  await using server = await serve();
  const { peer } = server;
  const connections = new Connections(LONG_MS);
  const waiting = [await connect(peer, never()), await connect(peer, never())];
  const used = await connect(peer, never());
  for (const socket of waiting) connections.leave(socket, peer);
  connections.drop();
  expect(none(connections, peer)).toBe(true);
  await Promise.all(waiting.map(closed));
  expect(waiting.map(listeners)).toEqual([NOTHING, NOTHING]);
  expect(used.destroyed).toBe(false);
  connections.leave(used, peer);
  expect(connections.take(peer) === used).toBe(true);
  used.destroy();
});

test("connections that wait do not keep a process alive, and one that is used does", async () => {
  await using server = await serve();
  const run = async (isTaken: boolean) => {
    const script = `
      import { Connections, connect } from ${JSON.stringify(require.resolve("../../src/kube/connections.ts"))};
      const peer = { url: new URL("http://127.0.0.1:${server.port}"), tls: {} };
      const connections = new Connections(${LONG_MS});
      connections.leave(await connect(peer, new AbortController().signal), peer);
      if (${isTaken}) connections.take(peer).on("close", () => console.log("closed")).resume();
      console.log("waits");
    `;
    const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
    let said = "";
    for await (const chunk of child.stdout) {
      said += Buffer.from(chunk).toString();
      if (isTaken && said === "waits\n") for (const end of server.sockets) end.end();
    }
    return { said, code: await child.exited };
  };
  expect(await run(false)).toEqual({ said: "waits\n", code: 0 });
  expect(await run(true)).toEqual({ said: "waits\nclosed\n", code: 0 });
});

test("a connection is made only to a server whose certificate is of our CA and names it; else nothing reaches it", async () => {
  const [ours, other] = [tlsMaterial(Date.now()), tlsMaterial(Date.now())];
  await using server = await serveTls(ours);
  const url = new URL(`https://127.0.0.1:${server.port}`);
  const refused: Peer[] = [
    { url, tls: {} },
    { url, tls: { ca: other.caPem } },
    { url, tls: { ca: other.caPem, rejectUnauthorized: true } },
    { url, tls: { ca: other.caPem, serverName: "localhost" } },
    { url, tls: { ca: ours.caPem, serverName: "elsewhere.example" } },
    { url: new URL(`https://127.0.0.2:${server.port}`), tls: { ca: ours.caPem } },
  ];
  for (const peer of refused) {
    const write = async () => (await connect(peer, never())).write("token");
    expect(await failureOf(write())).toHaveProperty("code");
  }
  // The one that is right comes last: when it is heard, all that was said before would have been.
  const rightly = await connect({ url, tls: { ca: ours.caPem } }, never());
  rightly.write("rightly");
  await until(() => server.heard.length > 0);
  expect(server.heard).toEqual(["rightly"]);
  rightly.destroy();
});

test("over TLS, the server is told its name and HTTP/1.1; an address is no name", async () => {
  const { caPem: ca, ...material } = tlsMaterial(Date.now());
  await using server = await serveTls({ ...material });
  const peers: Peer[] = [
    { url: new URL(`https://localhost:${server.port}`), tls: { ca } },
    { url: new URL(`https://127.0.0.1:${server.port}`), tls: { ca, serverName: "localhost" } },
    { url: new URL(`https://127.0.0.1:${server.port}`), tls: { ca } },
  ];
  for (const peer of peers) {
    const socket = await connect(peer, never());
    expect(listeners(socket)).toEqual(NOTHING);
    await until(() => server.seen.length > peers.indexOf(peer));
    socket.destroy();
  }
  expect(server.seen.map(({ alpn }) => alpn)).toEqual(["http/1.1", "http/1.1", "http/1.1"]);
  expect(server.seen.map(({ servername }) => servername || "")).toEqual(["localhost", "localhost", ""]);
});

test("one over TLS waits and is taken again; what is cut off without a word of TLS is not", async () => {
  const { caPem: ca, ...material } = tlsMaterial(Date.now());
  await using server = await serveTls({ ...material });
  const peer: Peer = { url: new URL(`https://127.0.0.1:${server.port}`), tls: { ca } };
  const connections = new Connections(LONG_MS);
  const socket = await connect(peer, never());
  connections.leave(socket, peer);
  expect(none(connections, { ...peer, tls: { ca: `${ca}\n` } })).toBe(true);
  expect(connections.take(peer) === socket).toBe(true);
  connections.leave(socket, peer);
  await until(() => server.sockets.size > 0);
  for (const end of server.sockets) end.destroy();
  await closed(socket);
  expect(none(connections, peer)).toBe(true);
});

const hasIpv6 = Object.values(networkInterfaces()).some((each) => each?.some(({ address }) => address === "::1"));

test.skipIf(!hasIpv6)("an address of IPv6 leads there", async () => {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "::1", resolve));
  await using at = listening(server, new Set());
  const socket = await connect({ url: new URL(`http://[::1]:${at.port}`), tls: {} }, never());
  expect(socket.remoteAddress).toBe("::1");
  socket.destroy();
});

test("a connection that is refused, or closed before it is safe, fails", async () => {
  const gone = await serve();
  await gone[Symbol.asyncDispose]();
  expect(await failureOf(connect(gone.peer, never()))).toMatchObject({ code: "ECONNREFUSED" });
  const server = net.createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  await using at = listening(server, new Set());
  expect(await failureOf(connect({ url: new URL(`https://127.0.0.1:${at.port}`), tls: {} }, never()))).toBeInstanceOf(
    Error,
  );
});

test("whoever gives up while a connection is made gets the reason, and nothing stays open", async () => {
  const came = Promise.withResolvers<Socket>();
  const server = net.createServer((socket) => came.resolve(socket)); // says nothing of TLS
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const sockets = new Set<Socket>();
  await using at = listening(server, sockets);
  const peer = { url: new URL(`https://127.0.0.1:${at.port}`), tls: {} };
  const controller = new AbortController();
  const reason = new Error("enough");
  const making = failureOf(connect(peer, controller.signal));
  const end = await came.promise;
  sockets.add(end);
  const over = closed(end.resume().on("error", () => undefined));
  controller.abort(reason);
  expect(await making).toBe(reason);
  await over;
  expect(await failureOf(connect(peer, controller.signal))).toBe(reason);
});

test("the signal of a connection that is made does not end it, and is not listened to any more", async () => {
  await using server = await serve();
  const controller = new AbortController();
  let added = 0;
  const { addEventListener, removeEventListener } = controller.signal;
  Object.assign(controller.signal, {
    addEventListener: (...event: Parameters<typeof addEventListener>) => {
      added++;
      addEventListener.apply(controller.signal, event);
    },
    removeEventListener: (...event: Parameters<typeof removeEventListener>) => {
      added--;
      removeEventListener.apply(controller.signal, event);
    },
  });
  const socket = await connect(server.peer, controller.signal);
  expect(added).toBe(0);
  controller.abort(new Error("enough"));
  expect(socket.destroyed).toBe(false);
  socket.destroy();
});
