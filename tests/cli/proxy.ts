import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import type { TlsMaterial } from "../support/cluster/tls.ts";
import { relay } from "../support/relay.ts";

/** Stands before a runner: its connections can be cut, and it can speak TLS for it. */
export async function proxy(target: string, tls?: { material: TlsMaterial; clientCertificate?: boolean }) {
  const { hostname, port } = new URL(`http://${target}`);
  const open = new Set<Socket>();
  const pass = (from: Socket) => {
    const to = connect(Number(port), hostname);
    for (const socket of [from, to]) {
      open.add(socket);
      socket.on("close", () => open.delete(socket));
    }
    relay(from, to);
  };
  const server =
    tls === undefined
      ? createServer(pass)
      : createTlsServer(
          {
            cert: tls.material.certPem,
            key: tls.material.keyPem,
            ALPNProtocols: ["h2"],
            requestCert: tls.clientCertificate ?? false,
            rejectUnauthorized: false,
          },
          (socket: TLSSocket) => {
            const shown = Object.keys(socket.getPeerCertificate() ?? {}).length > 0;
            if (tls.clientCertificate && !shown) socket.destroy();
            else pass(socket);
          },
        );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  // It listens on TCP: the address is an object then.
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const cut = () => {
    for (const socket of open) socket.destroy();
  };
  return {
    address,
    /** Ends every connection, as a runner does that is killed. */
    cut,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      cut();
      await closed;
    },
  };
}
