import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import type { Access } from "../../src/kube/access.ts";
import { relay } from "./relay.ts";

/** What a cut looks like: reset by the peer, closed by the peer, or nothing any more. */
export type CutKind = "reset" | "fin" | "silence";

/**
 * A wire between the runner and the API server that can be cut: bytes pass as they are (TLS included), so everything
 * works over it, exec's WebSocket too.
 */
export class Link implements AsyncDisposable {
  readonly #server;
  readonly #sockets = new Set<Socket>();
  #down = false;
  #kind: CutKind = "reset";
  /** When the last cut was made by itself (cutAfter), by performance.now(). */
  cutAt: number | undefined;
  /** How much may still come from either side before everything is cut. */
  readonly #allowance = { server: Number.POSITIVE_INFINITY, runner: Number.POSITIVE_INFINITY };

  private constructor(to: URL) {
    this.#server = createServer((near) => {
      if (this.#down) return near.destroy();
      const far = connect(Number(to.port || 443), to.hostname);
      // Counted before it is passed on: one read may hold more than was to come.
      for (const [socket, side] of [
        [far, "server"],
        [near, "runner"],
      ] as const)
        socket.on("data", (data) => {
          this.#allowance[side] -= data.length;
          if (this.#allowance[side] >= 0) return;
          this.cutAt = performance.now();
          this.cut(this.#kind);
        });
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on("close", () => this.#sockets.delete(socket));
      }
      relay(near, far);
      return near;
    });
  }

  static async to(server: URL): Promise<Link> {
    const link = new Link(server);
    await new Promise<void>((done) => link.#server.listen(0, "127.0.0.1", done));
    return link;
  }

  /** The same access, over this link. */
  access(over: Access): Access {
    const server = new URL(over.server);
    server.hostname = "127.0.0.1";
    server.port = String((this.#server.address() as AddressInfo).port); // listening on TCP, so neither string nor null
    return { ...over, server, credentials: (options) => over.credentials(options) };
  }

  /** Cuts as soon as this side has sent so much more. */
  cutAfter(bytes: number, side: "server" | "runner" = "server", kind: CutKind = "reset"): void {
    this.#kind = kind;
    this.cutAt = undefined;
    this.#allowance[side] = bytes;
  }

  /** Cuts every connection there is; new ones may be made. */
  cut(kind: CutKind = "reset"): void {
    this.#allowance.server = this.#allowance.runner = Number.POSITIVE_INFINITY;
    for (const socket of this.#sockets)
      if (kind === "silence") socket.unpipe().pause().removeAllListeners("data");
      else if (kind === "fin") socket.unpipe().end();
      else socket.resetAndDestroy();
  }

  /** Resets every connection, and refuses new ones until up(). */
  down(): void {
    this.#down = true;
    this.cut();
  }

  up(): void {
    this.#down = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }
}
