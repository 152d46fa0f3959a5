import { describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { writeFileSync } from "node:fs";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { startApp } from "../src/app.ts";
import { loadConfig } from "../src/config.ts";
import { RunnerService } from "../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { clusterAccess } from "../src/kube/access.ts";
import { createLog } from "../src/log.ts";
import { keepTls, loadTls, type TlsMaterial } from "../src/tls.ts";
import { certificates, MountedSecret, type Pair, secretOf } from "./support/certificates.ts";
import { authority } from "./support/cluster/tls.ts";
import { until } from "./support/wait.ts";

const { servers, clients, server, client } = certificates();
const good = secretOf(server, clients.caPem);

function problemsOf(env: Record<string, string>): string {
  try {
    loadConfig({ KUBE_NAMESPACE: "workloads", ...env });
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("it was taken");
}

describe("the configuration", () => {
  test("takes a pair, with a CA of clients or without", () => {
    using secret = new MountedSecret(good);
    const { cert, key, clientCa } = secret.tls;
    const env = { KUBE_NAMESPACE: "workloads", TLS_CERT_FILE: ` ${cert} `, TLS_KEY_FILE: key };
    expect(loadConfig(env).tls).toEqual({ cert, key, clientCa: undefined });
    expect(loadConfig({ ...env, TLS_CLIENT_CA_FILE: clientCa ?? "" }).tls).toEqual({ cert, key, clientCa });
    const blank = { TLS_CERT_FILE: " ", TLS_KEY_FILE: "", TLS_CLIENT_CA_FILE: "" };
    expect(loadConfig({ KUBE_NAMESPACE: "workloads", ...blank }).tls).toBeUndefined();
  });

  test.each([
    [{ TLS_CERT_FILE: "/c" }, "TLS_KEY_FILE: TLS_KEY_FILE is required with TLS_CERT_FILE, set both or neither"],
    [{ TLS_KEY_FILE: "/k" }, "TLS_CERT_FILE: TLS_CERT_FILE is required with TLS_KEY_FILE, set both or neither"],
    [
      { TLS_CLIENT_CA_FILE: "/a" },
      "TLS_CLIENT_CA_FILE: TLS_CLIENT_CA_FILE needs TLS_CERT_FILE and TLS_KEY_FILE, set all three, or none: clients have no certificates without TLS",
    ],
    [
      { TLS_CERT_FILE: "/no/c", TLS_KEY_FILE: "/no/k", TLS_CLIENT_CA_FILE: "/no/a" },
      "TLS_CERT_FILE: read /no/c: ENOENT: no such file or directory, name a PEM file with the server's certificate and its chain; " +
        "TLS_KEY_FILE: read /no/k: ENOENT: no such file or directory, name a PEM file with its private key, not encrypted; " +
        "TLS_CLIENT_CA_FILE: read /no/a: ENOENT: no such file or directory, name a PEM file with the CA of the clients' certificates",
    ],
  ])("%j is refused, all of it at once", (env, message) => {
    expect(problemsOf(env)).toBe(message);
  });

  test.each([
    [
      "no certificate",
      { "tls.crt": "hello" },
      "TLS_CERT_FILE: .*/tls\\.crt is not what it must be, name a PEM file with",
    ],
    ["a broken certificate", { "tls.crt": server.certPem.slice(0, 200) }, "TLS_CERT_FILE: .*/tls\\.crt is not what"],
    [
      "no key",
      { "tls.key": "" },
      "TLS_KEY_FILE: .*/tls\\.key is not what it must be, name a PEM file with its private key",
    ],
    ["a certificate for a key", { "tls.key": server.certPem }, "TLS_KEY_FILE: .*/tls\\.key is not what it must be"],
    [
      "another's key",
      { "tls.key": client.keyPem },
      "TLS_KEY_FILE: the key in .*/tls\\.key is not that of .*/tls\\.crt, name",
    ],
    [
      "no CA",
      { "ca.crt": "\n" },
      "TLS_CLIENT_CA_FILE: .*/ca\\.crt is not what it must be, name a PEM file with the CA",
    ],
  ])("refuses files that hold %s, without showing what they hold", (_name, files, message) => {
    using secret = new MountedSecret({ ...good, ...files });
    const { cert, key, clientCa = "" } = secret.tls;
    const text = problemsOf({ TLS_CERT_FILE: cert, TLS_KEY_FILE: key, TLS_CLIENT_CA_FILE: clientCa });
    expect(text).toMatch(new RegExp(`^${message}`));
    expect(text).not.toContain("BEGIN");
    expect(() => loadTls(secret.tls)).toThrow(new RegExp(`^${message}`));
  });

  test("takes a chain, and a bundle of several CAs", () => {
    using secret = new MountedSecret({
      ...good,
      "tls.crt": `Subject: server\n${server.certPem}\n${servers.caPem}`,
      "ca.crt": `# old\n${clients.caPem}# new\n${servers.caPem}`,
    });
    expect(loadTls(secret.tls).clientCa).toContain("# new");
  });
});

describe("files that change", () => {
  function keep(secret: MountedSecret, refuse = false) {
    const lines: Record<string, unknown>[] = [];
    const renewed: TlsMaterial[] = [];
    const over = new AbortController();
    const kept = keepTls(secret.tls, {
      material: loadTls(secret.tls),
      renew: (material) => {
        if (refuse) throw new Error("the server does not take it");
        renewed.push(material);
      },
      log: createLog({ level: "info", stream: { write: (line) => lines.push(JSON.parse(line)) } }),
      signal: over.signal,
      everyMs: 5,
    });
    return {
      lines,
      renewed,
      told: (count: number) => until(`${count} lines`, () => (lines.length >= count ? lines.at(-1) : undefined)),
      [Symbol.asyncDispose]: () => {
        over.abort();
        return kept;
      },
    };
  }
  const next = secretOf(servers.issue("next"), clients.caPem);

  test("are taken when all of them have, as a kubelet changes them", async () => {
    using secret = new MountedSecret(good);
    await using kept = keep(secret);
    secret.replace(next);
    expect(await kept.told(2)).toMatchObject({
      level: "info",
      msg: "TLS certificate in use",
      subject: "CN=next",
      client_certificates: true,
    });
    expect(kept.renewed).toEqual([
      { cert: next["tls.crt"], key: next["tls.key"], clientCa: next["ca.crt"] },
    ] as TlsMaterial[]);
  });

  test("that do not fit, or are gone, change nothing and are told once; the next good ones are taken", async () => {
    using secret = new MountedSecret(good);
    await using kept = keep(secret);
    writeFileSync(secret.path("tls.crt"), next["tls.crt"] ?? ""); // one file after the other
    expect(await kept.told(2)).toMatchObject({
      level: "error",
      msg: "TLS files are not taken: those before stay in use",
      error: expect.stringMatching(/^TLS_KEY_FILE: the key in .* is not that of /),
    });
    writeFileSync(secret.path("tls.key"), next["tls.key"] ?? "");
    expect(await kept.told(3)).toMatchObject({ subject: "CN=next" });
    secret.replace({});
    expect(await kept.told(4)).toMatchObject({
      level: "error",
      error: expect.stringContaining("TLS_CERT_FILE: read "),
    });
    secret.replace(good);
    expect(await kept.told(5)).toMatchObject({ level: "info", subject: "CN=server" });
    expect(kept.lines.length).toBe(5);
    expect(kept.renewed.map(({ cert }) => cert)).toEqual([next["tls.crt"] ?? "", server.certPem]);
    expect(JSON.stringify(kept.lines)).not.toContain("BEGIN");
  });

  test("that the server does not take are told", async () => {
    using secret = new MountedSecret(good);
    await using kept = keep(secret, true);
    secret.replace(next);
    expect(await kept.told(2)).toMatchObject({ level: "error", error: "the server does not take it" });
  });

  test("and hold an expired certificate are taken all the same, with a warning", async () => {
    using secret = new MountedSecret(good);
    await using kept = keep(secret);
    const now = Date.now();
    const old = authority("servers", now).issue("old", { from: now - 2000_000, until: now - 1000_000 });
    secret.replace(secretOf(old, clients.caPem));
    expect(await kept.told(2)).toMatchObject({
      level: "warn",
      msg: "TLS certificate in use has expired",
      subject: "CN=old",
    });
  });
});

test("the runner serves TLS from mounted files, and what they become", async () => {
  using secret = new MountedSecret(good);
  const { cert, key, clientCa = "" } = secret.tls;
  const tls = { TLS_CERT_FILE: cert, TLS_KEY_FILE: key, TLS_CLIENT_CA_FILE: clientCa };
  const lines: Record<string, unknown>[] = [];
  await using app = await startApp({
    config: loadConfig({ KUBE_NAMESPACE: "workloads", GRPC_ADDR: "127.0.0.1:0", ...tls }),
    access: clusterAccess({ KUBECONFIG: `${import.meta.dir}/support/nowhere.yaml` }),
    log: createLog({ level: "info", stream: { write: (line) => lines.push(JSON.parse(line)) } }),
    tuning: { tls: { everyMs: 5 } },
  });
  const baseUrl = `https://127.0.0.1:${app.address.port}`;
  const ready = (pair: Pair, ca: string) => {
    const nodeOptions = { ca, cert: pair.certPem, key: pair.keyPem };
    return createClient(RunnerService, createGrpcTransport({ baseUrl, nodeOptions })).ready({});
  };
  expect((await ready(client, servers.caPem)).status).toBe("ok");
  const after = certificates();
  secret.replace(secretOf(after.server, after.clients.caPem));
  await until("the new certificate is told", () =>
    lines.some(({ msg, serial }) => msg === "TLS certificate in use" && serial === serialOf(after.server.certPem))
      ? true
      : undefined,
  );
  expect((await ready(after.client, after.servers.caPem)).status).toBe("ok");
  expect(await ready(client, after.servers.caPem).catch(ConnectError.from)).toBeInstanceOf(ConnectError);
});

const serialOf = (pem: string): string => new X509Certificate(pem).serialNumber;
