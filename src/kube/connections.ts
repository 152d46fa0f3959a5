import net, { type Socket } from "node:net";
import tls from "node:tls";
import type { Tls } from "./access.ts";

/** So many wait for work at most. */
const MOST = 8;
/** Pause before TCP asks whether the peer is still there; a peer that is gone fails the read some 10 s later. */
const KEEP_ALIVE_MS = 30_000;

/** Where a connection leads, and how it is made safe. */
export interface Peer {
  readonly url: URL;
  readonly tls: Tls;
}

/** Connections of HTTP/1.1 that short reads leave for the next one: to make one, with TLS, takes longer than to read a page of log. */
export class Connections {
  readonly #idleMs: number;
  readonly #idle = new Map<Socket, { readonly peer: Peer; readonly timer: NodeJS.Timeout }>();

  /** One that waits longer than `idleMs` is closed. */
  constructor(idleMs: number) {
    this.#idleMs = idleMs;
  }

  /** The newest of those that wait for work at this peer. */
  take(peer: Peer): Socket | undefined {
    const socket = [...this.#idle].findLast(([, idle]) => isSame(idle.peer, peer))?.[0];
    if (socket !== undefined) {
      this.#forget(socket);
      socket.ref();
    }
    return socket;
  }

  /** Lets one wait that has nothing more to say. */
  leave(socket: Socket, peer: Peer): void {
    const close = () => this.#close(socket);
    for (const event of ["data", "end", "error", "close"]) socket.on(event, close); // nothing has been asked for
    this.#idle.set(socket, { peer, timer: setTimeout(close, this.#idleMs).unref() });
    socket.resume(); // or nothing would be heard of its end
    socket.unref();
    const [oldest] = this.#idle.keys();
    if (oldest !== undefined && this.#idle.size > MOST) this.#close(oldest);
  }

  /** Closes those that wait; those in use go on. */
  drop(): void {
    for (const socket of [...this.#idle.keys()]) this.#close(socket);
  }

  /** At once, so that it is not taken before its end is told. */
  #close(socket: Socket): void {
    this.#forget(socket);
    socket.destroy();
  }

  #forget(socket: Socket): void {
    clearTimeout(this.#idle.get(socket)?.timer);
    this.#idle.delete(socket);
    socket.removeAllListeners();
    socket.on("error", () => undefined);
  }
}

/** Makes a connection; settles once something may be sent on it, over TLS only when its peer is who it should be. */
export async function connect({ url, tls: { serverName, ...material } }: Peer, signal: AbortSignal): Promise<Socket> {
  const isSafe = url.protocol === "https:";
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  const target = { host, port: Number(url.port || (isSafe ? 443 : 80)) };
  const name = serverName ?? (net.isIP(host) === 0 ? host : undefined);
  const socket = isSafe
    ? tls.connect({
        ...target,
        ...material,
        ...(name === undefined ? {} : { servername: name }),
        ALPNProtocols: ["http/1.1"],
      })
    : net.connect(target);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once(isSafe ? "secureConnect" : "connect", resolve);
  socket.once("error", reject);
  socket.once("close", () => reject(new Error("closed")));
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    await promise;
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
    socket.removeAllListeners();
    socket.on("error", () => undefined); // what comes after it is told by the end of the connection
  }
}

const NAMES = ["ca", "cert", "key", "rejectUnauthorized", "serverName"] as const satisfies (keyof Tls)[];

const isSame = (a: Peer, b: Peer): boolean =>
  a.url.origin === b.url.origin && NAMES.every((name) => a.tls[name] === b.tls[name]);
