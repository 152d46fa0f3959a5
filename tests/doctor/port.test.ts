import { expect, test } from "bun:test";
import { type AddressInfo, createServer } from "node:net";
import { startApp } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import { createLog } from "../../src/log.ts";
import { certificates, MountedSecret, secretOf } from "../support/certificates.ts";
import { embeddedAccess } from "../support/cluster/cluster.ts";
import { Embedded } from "./embedded.ts";
import { visit } from "./rig.ts";

/* The runner's own port, as doctor sees it from beside the runner. */
const place = Embedded.shared();
const DAY_MS = 86_400_000;

/** A runner with this environment on a free port, and the environment in which that port is its own. */
async function serving(more: Record<string, string>) {
  const env = { ...place().env, ...more };
  const access = embeddedAccess(place().cluster);
  const app = await startApp({ config: loadConfig(env), access, log: createLog({ level: "silent" }) });
  return {
    env: { ...env, GRPC_ADDR: `127.0.0.1:${app.address.port}` },
    [Symbol.asyncDispose]: () => app[Symbol.asyncDispose](),
  };
}

const tlsEnv = ({ tls: { cert, key, clientCa = "" } }: MountedSecret, callers: "any" | "known") => ({
  TLS_CERT_FILE: cert,
  TLS_KEY_FILE: key,
  ...(callers === "known" ? { TLS_CLIENT_CA_FILE: clientCa } : {}),
});

const addressOf = async (env: Record<string, string>) =>
  (await visit({ env, args: ["--only", "address"] })).of("address");

test("a port that another program has is a failure", async () => {
  const server = createServer((socket) => socket.on("error", () => socket.destroy()));
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo; // listening on TCP
  const env = { ...place().env, GRPC_ADDR: `127.0.0.1:${port}` };
  await place().expectOneFailure("address", /is taken by/, { env, args: ["--only", "address"], patienceMs: 300 });
  server.close();
});

test("a port that a runner has is none: in cleartext, with TLS, and where callers must show a certificate", async () => {
  const { servers, clients, server } = certificates();
  using secret = new MountedSecret(secretOf(server, clients.caPem));
  for (const more of [{}, tlsEnv(secret, "any"), tlsEnv(secret, "known")]) {
    await using runner = await serving(more);
    expect(await addressOf(runner.env)).toMatchObject({
      status: "ok",
      seen: expect.stringContaining("a runner answers"),
    });
  }
  // Another one's certificate is not ours.
  await using runner = await serving(tlsEnv(secret, "known"));
  using other = new MountedSecret(secretOf(servers.issue("server"), clients.caPem));
  expect((await addressOf({ ...runner.env, ...tlsEnv(other, "known") })).status).toBe("fail");
});

test("a certificate that has ended, or soon will, is told", async () => {
  const { servers, clients } = certificates();
  const now = Date.now();
  for (const [from, until, status, seen] of [
    [now - DAY_MS, now + 30.5 * DAY_MS, "ok", /good for 30 more days; callers need one too/],
    [now - DAY_MS, now + 3.5 * DAY_MS, "warn", /good for 3 more days/],
    [now - DAY_MS, now - 60_000, "fail", /ended on/],
    [now + DAY_MS, now + 9 * DAY_MS, "fail", /begins on/],
  ] as const) {
    using secret = new MountedSecret(secretOf(servers.issue("server", { from, until }), clients.caPem));
    const { of } = await visit({ env: { ...place().env, ...tlsEnv(secret, "known") }, args: ["--only", "tls"] });
    expect(of("tls")).toMatchObject({ status, seen: expect.stringMatching(seen) });
  }
});
