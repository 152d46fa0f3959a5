import http from "node:http";
import https from "node:https";
import type { Socket } from "node:net";

/** So many wait for work at most. */
const MOST = 8;

/** Connections of node:http that short reads leave for the next one: to make one, with TLS, takes longer than to read a page of log. */
export class KeptConnections {
  readonly #idleMs: number;
  readonly #agents = new Map<string, http.Agent>();

  /** One that waits longer than `idleMs` is closed. */
  constructor(idleMs: number) {
    this.#idleMs = idleMs;
  }

  /** For `protocol`, as a URL has it. */
  agent(protocol: string): http.Agent {
    const known = this.#agents.get(protocol);
    if (known !== undefined) return known;
    const agent = new (protocol === "https:" ? https : http).Agent({ keepAlive: true, maxFreeSockets: MOST });
    agent.on("free", (socket: Socket) => socket.setTimeout(this.#idleMs, close));
    this.#agents.set(protocol, agent);
    return agent;
  }

  /** One that was given to a request waits no more. */
  taken(socket: Socket): void {
    socket.setTimeout(0, close);
  }

  /** Closes those that wait; those in use go on. */
  drop(): void {
    for (const { freeSockets } of this.#agents.values())
      for (const sockets of Object.values(freeSockets)) for (const socket of [...(sockets ?? [])]) socket.destroy();
  }
}

function close(this: Socket): void {
  this.destroy();
}
