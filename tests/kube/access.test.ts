import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { stringify } from "yaml";
import { clusterAccess } from "../../src/kube/access.ts";

const IN_POD = { KUBERNETES_SERVICE_HOST: "10.0.0.1", KUBERNETES_SERVICE_PORT: "443" };

/** A directory with these files, removed at the end of the test. */
function directory(files: Record<string, string>) {
  const path = mkdtempSync(join(tmpdir(), "access-"));
  const write = (name: string, text: string) => {
    mkdirSync(join(path, name, ".."), { recursive: true });
    writeFileSync(join(path, name), text);
  };
  for (const [name, text] of Object.entries(files)) write(name, text);
  return { path, write, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

function kubeconfig(user: object, cluster: object = {}, name = "one"): string {
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name, cluster: { server: "https://api.example:6443", ...cluster } }],
    users: [{ name, user }],
    contexts: [{ name, context: { cluster: name, user: name, namespace: `in-${name}` } }],
    "current-context": name,
  });
}

test("inside a Pod the service account is used, whatever KUBECONFIG says", async () => {
  using files = directory({ token: "first\n", "ca.crt": "CA\n", namespace: "work\n" });
  const options = { serviceAccountDir: files.path };
  const access = clusterAccess({ ...IN_POD, KUBECONFIG: "/nowhere" }, options);
  expect(access.server.href).toBe("https://10.0.0.1/");
  expect(access.source).toBe(`in-cluster (${files.path})`);
  expect(access.namespace).toBe("work");
  expect(await access.credentials()).toEqual({ headers: { authorization: "Bearer first" }, tls: { ca: "CA" } });
  expect(
    clusterAccess({ KUBERNETES_SERVICE_HOST: "fd00::1", KUBERNETES_SERVICE_PORT: "6443" }, options).server.href,
  ).toBe("https://[fd00::1]:6443/");
});

test("renewed credentials are read from the files as they are now; an unreadable file leaves the old ones", async () => {
  using files = directory({ token: "first", "ca.crt": "CA" });
  const access = clusterAccess(IN_POD, { serviceAccountDir: files.path });
  await access.credentials();
  files.write("token", "second");
  files.write("ca.crt", "NEW CA");
  expect((await access.credentials()).headers).toEqual({ authorization: "Bearer first" });
  const renewed = { headers: { authorization: "Bearer second" }, tls: { ca: "NEW CA" } };
  expect(await access.credentials({ renew: true })).toEqual(renewed);
  files.write("token", "");
  expect(await access.credentials({ renew: true })).toEqual(renewed);
});

test("without a service account KUBECONFIG is next, then ~/.kube/config, then nothing", async () => {
  using files = directory({ "a.yaml": kubeconfig({ token: "t" }), ".kube/config": kubeconfig({ token: "home" }) });
  const options = { serviceAccountDir: join(files.path, "none"), home: files.path };
  const named = clusterAccess({ ...IN_POD, KUBECONFIG: join(files.path, "a.yaml") }, options);
  expect(named.source).toBe(`kubeconfig (KUBECONFIG: ${join(files.path, "a.yaml")})`);
  expect([named.server.href, named.namespace]).toEqual(["https://api.example:6443/", "in-one"]);
  expect((await named.credentials()).headers).toEqual({ authorization: "Bearer t" });
  const home = clusterAccess({ KUBECONFIG: "" }, options);
  expect((await home.credentials()).headers).toEqual({ authorization: "Bearer home" });
  expect(() => clusterAccess({}, { ...options, home: join(files.path, "none") })).toThrow(
    `no cluster access: not inside a Pod, KUBECONFIG is not set, and there is no ${join(files.path, "none")}/.kube/config`,
  );
});

test("certificates come embedded or from files beside the kubeconfig", async () => {
  const embedded = { "client-certificate-data": btoa("CERT"), "client-key-data": btoa("KEY") };
  const inFiles = { "client-certificate": "pki/c.crt", "client-key": "pki/c.key" };
  using files = directory({
    "data.yaml": kubeconfig(embedded, { "certificate-authority-data": btoa("CA"), "tls-server-name": "other" }),
    "files.yaml": kubeconfig(inFiles, { "certificate-authority": "pki/ca.crt" }),
    "skip.yaml": kubeconfig({ username: "u", password: "p" }, { "insecure-skip-tls-verify": true }),
    "pki/c.crt": "CERT",
    "pki/c.key": "KEY",
    "pki/ca.crt": "CA",
  });
  const credentials = (file: string) =>
    clusterAccess({ KUBECONFIG: join(files.path, file) }, { home: "" }).credentials();
  const material = { ca: "CA", cert: "CERT", key: "KEY" };
  expect((await credentials("data.yaml")).tls).toMatchObject({ ...material, serverName: "other" });
  expect((await credentials("files.yaml")).tls).toMatchObject(material);
  expect(await credentials("skip.yaml")).toEqual({
    headers: { authorization: `Basic ${btoa("u:p")}` },
    tls: { rejectUnauthorized: false },
  });
});

test("a token file, and an exec plugin, are asked again when the credentials are renewed", async () => {
  using files = directory({ token: "first", "file.yaml": kubeconfig({ tokenFile: "token" }) });
  const answer = (token: string) => JSON.stringify({ kind: "ExecCredential", status: { token } });
  const plugin = { apiVersion: "client.authentication.k8s.io/v1", command: "cat", args: [join(files.path, "answer")] };
  files.write("answer", answer("plugin 1"));
  files.write("exec.yaml", kubeconfig({ exec: plugin }));
  const access = clusterAccess({ KUBECONFIG: join(files.path, "file.yaml") }, { home: "" });
  expect((await access.credentials()).headers).toEqual({ authorization: "Bearer first" });
  const exec = clusterAccess({ KUBECONFIG: join(files.path, "exec.yaml") }, { home: "" });
  expect((await exec.credentials()).headers).toEqual({ authorization: "Bearer plugin 1" });
  files.write("token", "second");
  files.write("answer", answer("plugin 2"));
  expect((await exec.credentials()).headers).toEqual({ authorization: "Bearer plugin 1" });
  expect((await access.credentials({ renew: true })).headers).toEqual({ authorization: "Bearer second" });
  expect((await exec.credentials({ renew: true })).headers).toEqual({ authorization: "Bearer plugin 2" });
});

test("several files are merged: of two entries with one name the first counts", async () => {
  using files = directory({
    "a.yaml": kubeconfig({ token: "a" }),
    "b.yaml": kubeconfig({ token: "b" }, { server: "https://other.example" }),
    "c.yaml": stringify({ users: [{ name: "two", user: { token: "c" } }] }),
  });
  const KUBECONFIG = ["a.yaml", "missing.yaml", "b.yaml", "c.yaml"]
    .map((name) => join(files.path, name))
    .join(delimiter);
  const access = clusterAccess({ KUBECONFIG }, { home: "" });
  expect(access.server.hostname).toBe("api.example");
  expect((await access.credentials()).headers).toEqual({ authorization: "Bearer a" });
});

test("an unusable kubeconfig is told in one sentence", () => {
  using files = directory({
    "empty.yaml": "",
    "nothing.yaml": "apiVersion: v1\nkind: Config\n",
    "proxy.yaml": kubeconfig({}, { "proxy-url": "http://proxy:3128" }),
  });
  for (const name of ["empty.yaml", "nothing.yaml", "proxy.yaml", "missing.yaml"]) {
    const KUBECONFIG = join(files.path, name);
    expect(() => clusterAccess({ KUBECONFIG }, { home: "" })).toThrow(
      `kubeconfig (KUBECONFIG: ${KUBECONFIG}) cannot be used: `,
    );
  }
});
