import { X509Certificate } from "node:crypto";
import { connect } from "node:tls";
import { Listener } from "../listener.ts";
import { createLog } from "../log.ts";
import { loadTls } from "../tls.ts";
import { type Check, type Finding, fail, ok, skip, warn } from "./check.ts";
import type { Exam } from "./exam.ts";

/** A certificate that ends sooner is told of: whoever renews it has missed its time. */
const RENEWAL_DAYS = 7;
const DAY_MS = 86_400_000;

/** Checks of what callers reach. */
export const portChecks: readonly Check[] = [
  { id: "address", needs: ["config"], run: address },
  { id: "tls", needs: ["config"], run: certificate },
];

/** GRPC_ADDR can be served, or a runner serves there already: in the runner's own Pod it does. */
async function address(exam: Exam): Promise<Finding> {
  const { grpcAddress } = exam.settings;
  const listener = new Listener({ handle: (exchange) => exchange.cut(), log: createLog({ level: "silent" }) });
  try {
    await listener.listen(grpcAddress);
    return ok(`${grpcAddress} can be bound`);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error); // its cause is in it
    if (!/EADDRINUSE|in use/.test(text)) return fail(text, "correct GRPC_ADDR: host:port or :port");
    if (await isRunner(exam)) return ok(`a runner answers at ${grpcAddress}`);
    return fail(
      `${grpcAddress} is taken by something that does not answer as this runner`,
      "end that process, or give GRPC_ADDR another port",
    );
  } finally {
    listener.destroy();
  }
}

async function isRunner({ settings: { grpcAddress, tls }, patienceMs, signal }: Exam): Promise<boolean> {
  const at = new URL(`http://${grpcAddress.replace(/^(0\.0\.0\.0|\[::\])?:/, "127.0.0.1:")}`);
  const bound = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]);
  if (tls !== undefined) return await showsOurCertificate(at, loadTls(tls).cert, bound);
  try {
    const response = await fetch(new URL("/agynio.api.runner.v1.RunnerService/Ready", at), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
      signal: bound,
    });
    return response.ok;
  } catch {
    return false; // nobody, or somebody who speaks something else: told as that
  }
}

/** By that it is known even where callers must show a certificate, which the doctor has none of. */
function showsOurCertificate({ hostname, port }: URL, pem: string, signal: AbortSignal): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const ours = new X509Certificate(pem).fingerprint256;
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ""), port: Number(port), rejectUnauthorized: false });
  socket.once("secureConnect", () => resolve(socket.getPeerCertificate().fingerprint256 === ours));
  socket.once("error", () => resolve(false));
  socket.once("close", () => resolve(false));
  signal.addEventListener("abort", () => resolve(false), { once: true });
  return promise.finally(() => socket.destroy());
}

/** That the files are there and fit each other is part of the configuration's own check. */
function certificate({ settings: { tls } }: Exam): Finding {
  if (tls === undefined) return skip("TLS_CERT_FILE is not set: the port is served in cleartext");
  const { validFromDate, validToDate } = new X509Certificate(loadTls(tls).cert);
  const advice = "renew the certificate (chart: the Secret of tls.secretName); the runner takes it without a restart";
  if (validToDate.getTime() < Date.now()) return fail(`the certificate ended on ${validToDate.toISOString()}`, advice);
  if (validFromDate.getTime() > Date.now())
    return fail(
      `the certificate begins on ${validFromDate.toISOString()}`,
      "look at this machine's clock, or renew it",
    );
  const days = Math.floor((validToDate.getTime() - Date.now()) / DAY_MS);
  const callers = tls.clientCa === undefined ? "callers need none" : "callers need one too";
  const seen = `the certificate is good for ${days} more days; ${callers}`;
  return days < RENEWAL_DAYS ? warn(seen, advice) : ok(seen);
}
