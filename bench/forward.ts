import { createServer, type Socket } from "node:net";
import { clusterAccess } from "../src/kube/access.ts";
import { connect } from "../src/kube/connections.ts";
import { release } from "../src/memory.ts";

/**
 * The least that can stand between a caller and the API server on this runtime: passes the bytes of each connection on, to the
 * server over TLS and back, and looks at none of them. The cluster is found as the runner finds it.
 * Listens on a free port of the loopback, prints `{"addr":"host:port"}` and ends on SIGTERM.
 */
const access = clusterAccess(process.env);
const { tls } = await access.credentials();
const { signal } = new AbortController(); // ends with the process

/** With memory given back as the runner does it; who is slow holds the other side back. */
function pass(from: Socket, to: Socket): void {
  from.on("data", (chunk) => {
    if (typeof chunk === "string") return; // it never is: no encoding is set
    if (!to.write(chunk, () => release(chunk))) from.pause();
  });
  to.on("drain", () => from.resume());
  from.on("end", () => to.end());
  from.on("error", () => to.destroy());
  from.on("close", () => to.destroySoon());
}

const server = createServer({ noDelay: true }, async (caller) => {
  const cluster = await connect({ url: access.server, tls }, signal);
  pass(caller, cluster);
  pass(cluster, caller);
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no TCP address");
  console.error(JSON.stringify({ addr: `${address.address}:${address.port}` }));
});
process.on("SIGTERM", () => process.exit(0));
