import { constants, createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type SecureContextOptions, type Server } from "node:tls";
import { errorText, type Log } from "./log.ts";
import { sleep } from "./time.ts";
import { fileProblem, type Variables } from "./variables.ts";

/** How often the files are read again. Polled: a kubelet changes a mounted Secret by a link, other tools by a file. */
const REREAD_MS = 10_000;
/** A client has so long to agree on TLS. */
const HANDSHAKE_MS = 10_000;

/** Where the certificate and its key lie, and, where clients must show one of their own, who signs those (ruling 13). */
export interface TlsFiles {
  /** TLS_CERT_FILE: the server's certificate, then those between it and its root. */
  readonly cert: string;
  /** TLS_KEY_FILE. */
  readonly key: string;
  /** TLS_CLIENT_CA_FILE; undefined: clients show no certificate. */
  readonly clientCa: string | undefined;
}

/** The contents of these files, in PEM, which fit each other. */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
  readonly clientCa: string | undefined;
}

/** What is wrong with one of the files, and what would be right. */
interface Problem {
  readonly variable: "TLS_CERT_FILE" | "TLS_KEY_FILE" | "TLS_CLIENT_CA_FILE";
  readonly wrong: string;
  readonly right: string;
}

/** Undefined: cleartext. Notes what is wrong with the variables, or with the files that they name. */
export function tlsFrom(variables: Variables): TlsFiles | undefined {
  const cert = variables.nonBlank("TLS_CERT_FILE");
  const key = variables.nonBlank("TLS_KEY_FILE");
  const clientCa = variables.nonBlank("TLS_CLIENT_CA_FILE");
  const both = "set both or neither";
  if (cert !== undefined && key !== undefined) {
    const files = { cert, key, clientCa };
    const { problems } = readTls(files);
    for (const { variable, wrong, right } of problems) variables.wrong(variable, wrong, right);
    return files;
  }
  if (cert !== undefined) variables.wrong("TLS_KEY_FILE", "TLS_KEY_FILE is required with TLS_CERT_FILE", both);
  else if (key !== undefined) variables.wrong("TLS_CERT_FILE", "TLS_CERT_FILE is required with TLS_KEY_FILE", both);
  else if (clientCa !== undefined)
    variables.wrong(
      "TLS_CLIENT_CA_FILE",
      "TLS_CLIENT_CA_FILE needs TLS_CERT_FILE and TLS_KEY_FILE",
      "set all three, or none: clients have no certificates without TLS",
    );
  return undefined;
}

/** The files' contents, and everything that is wrong with them; the contents are of use only when that is nothing. */
function readTls(files: TlsFiles): { material: TlsMaterial; problems: readonly Problem[] } {
  const problems: Problem[] = [];
  const note = (variable: Problem["variable"], wrong: string, right: string): undefined => {
    problems.push({ variable, wrong, right });
  };
  const read = <T>(variable: Problem["variable"], path: string, right: string, parse: (text: string) => T) => {
    let text: string;
    try {
      text = readFileSync(path, "utf8");
    } catch (error) {
      note(variable, `read ${path}: ${fileProblem(error)}`, right);
      return { text: "", value: undefined };
    }
    try {
      return { text, value: parse(text) };
    } catch {
      note(variable, `${path} is not what it must be`, right); // the parser's words help nobody, and might quote a key
      return { text, value: undefined };
    }
  };
  const cert = read(
    "TLS_CERT_FILE",
    files.cert,
    "name a PEM file with the server's certificate and its chain",
    certificatesIn,
  );
  const key = read("TLS_KEY_FILE", files.key, "name a PEM file with its private key, not encrypted", createPrivateKey);
  const clientCa =
    files.clientCa === undefined
      ? undefined
      : read(
          "TLS_CLIENT_CA_FILE",
          files.clientCa,
          "name a PEM file with the CA of the clients' certificates",
          certificatesIn,
        );
  if (cert.value !== undefined && key.value !== undefined && !belongs(key.value, cert.value))
    note("TLS_KEY_FILE", `the key in ${files.key} is not that of ${files.cert}`, "name a certificate and its own key");
  return { material: { cert: cert.text, key: key.text, clientCa: clientCa?.text }, problems };
}

/** Certificates in the order of the file, at least one; throws else. */
function certificatesIn(pem: string): [X509Certificate, ...X509Certificate[]] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----/gs) ?? [];
  const [first, ...rest] = blocks.map((block) => new X509Certificate(block));
  if (first === undefined) throw new Error("no certificate");
  return [first, ...rest];
}

const belongs = (key: KeyObject, [own]: readonly X509Certificate[]): boolean => own?.checkPrivateKey(key) ?? false;

/** The files' contents. Throws one error that names everything that is wrong with them. */
export function loadTls(files: TlsFiles): TlsMaterial {
  const { material, problems } = readTls(files);
  if (problems.length === 0) return material;
  throw new Error(problems.map(({ variable, wrong, right }) => `${variable}: ${wrong}, ${right}`).join("; "));
}

export interface KeepOptions {
  /** What is in use. */
  readonly material: TlsMaterial;
  /** Puts the new one in its place, for connections to come. */
  readonly renew: (material: TlsMaterial) => void;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** For tests. */
  readonly everyMs?: number | undefined;
}

/**
 * Takes the files anew whenever they have changed; until aborted, and never throws. Files that do not fit each other, or
 * are not there, change nothing and are told once: who writes two files one after the other is between them for a moment.
 */
export async function keepTls(files: TlsFiles, options: KeepOptions): Promise<void> {
  const { material, renew, log, signal, everyMs = REREAD_MS } = options;
  let seen = JSON.stringify(material);
  tell(material, log);
  while (!signal.aborted) {
    await sleep(everyMs, signal).catch(() => undefined); // aborted
    const found = attempt(files);
    const state = found instanceof Error ? found.message : JSON.stringify(found);
    if (signal.aborted || state === seen) continue;
    seen = state;
    try {
      if (found instanceof Error) throw found;
      renew(found);
      tell(found, log);
    } catch (error) {
      log.error({ error }, "TLS files are not taken: those before stay in use");
    }
  }
}

function attempt(files: TlsFiles): TlsMaterial | Error {
  try {
    return loadTls(files);
  } catch (error) {
    return error instanceof Error ? error : new Error(errorText(error));
  }
}

/** What clients will see from now on. */
function tell({ cert, clientCa }: TlsMaterial, log: Log): void {
  const [{ subject, serialNumber: serial, validToDate: end }] = certificatesIn(cert);
  const fields = { subject, serial, not_after: end.toISOString(), client_certificates: clientCa !== undefined };
  if (end.getTime() < Date.now()) log.warn(fields, "TLS certificate in use has expired");
  else log.info(fields, "TLS certificate in use");
}

/** Those of HTTP/2 and HTTP/1.1 over TLS 1.2 or newer. With a CA, only clients that show a certificate of it are let in. */
export function tlsServer(material: TlsMaterial, failed: (error: Error) => void): Server {
  const requestCert = material.clientCa !== undefined;
  const server = createServer({
    ...contextOf(material),
    requestCert,
    rejectUnauthorized: requestCert,
    ALPNProtocols: ["h2", "http/1.1"],
    handshakeTimeout: HANDSHAKE_MS,
  });
  server.on("tlsClientError", (error, socket) => {
    failed(error);
    socket.destroy(); // Bun 1.4.5 leaves it open when the time is up
  });
  return server;
}

export const contextOf = ({ cert, key, clientCa }: TlsMaterial): SecureContextOptions => ({
  cert,
  key,
  // Without tickets, each connection shows its certificate anew: one that has expired meanwhile could go on with an old ticket.
  ...(clientCa === undefined ? {} : { ca: clientCa, secureOptions: constants.SSL_OP_NO_TICKET }),
  minVersion: "TLSv1.2",
});
