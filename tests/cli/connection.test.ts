import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tlsMaterial } from "../support/cluster/tls.ts";
import { linesOf } from "../support/main.ts";
import { sharedRunner } from "../support/runner.ts";
import { program } from "./program.ts";
import { proxy } from "./proxy.ts";

const runner = sharedRunner();
const host = () => new URL(runner().baseUrl).host;
const files = mkdtempSync(join(tmpdir(), "cli-connection-"));
afterAll(() => rmSync(files, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(files, name);
  writeFileSync(path, text);
  return path;
}

test("the address comes from the flag, else from RUNNER_ADDRESS, in any form that people write", async () => {
  const port = host().split(":")[1];
  for (const address of [host(), `http://${host()}`, `http://${host()}/`, `localhost:${port}`, `:${port}`])
    expect(await program("127.0.0.1:1").run(["ps", "-q", "--address", address])).toMatchObject({
      status: 0,
      stderr: "",
    });
  expect(await program(host()).run(["ps", "-q"])).toMatchObject({ status: 0, stderr: "" });
});

test("a runner that cannot be reached, and one that speaks something else, are told apart from answers", async () => {
  const { run } = program();
  expect(await run(["ps"])).toEqual({
    status: 1,
    stdout: "",
    stderr: "k8s-runner: unavailable: cannot reach 127.0.0.1:1: connect ECONNREFUSED 127.0.0.1:1\n",
  });
  expect((await run(["ps", "--address", "no-such-host.invalid:1"])).stderr).toContain("ENOTFOUND");
  using web = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("a web page") });
  const wrong = await run(["ps", "--address", `127.0.0.1:${web.port}`]);
  expect(wrong).toMatchObject({ status: 1, stdout: "" });
  expect(wrong.stderr).toStartWith("k8s-runner: unavailable: ");
  const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
  const late = await run(["ps", "--timeout", "500ms", "--address", `127.0.0.1:${silent.port}`]);
  silent.stop(true);
  expect(late).toEqual({ status: 1, stdout: "", stderr: "k8s-runner: deadline_exceeded: the operation timed out\n" });
});

test("TLS: the runner's certificate is checked, by --cacert where it is given", async () => {
  const material = tlsMaterial(Date.now());
  await using secure = await proxy(host(), { material });
  const ca = file("ca.pem", material.caPem);
  const { run } = program(secure.address);
  expect(await run(["ps", "-q", "--cacert", ca])).toMatchObject({ status: 0, stderr: "" });
  expect(await run(["ps", "-q"], { env: { RUNNER_CACERT: ca } })).toMatchObject({ status: 0, stderr: "" });
  expect(await run(["ps", "-q", "--cacert", ca, "--address", `https://${secure.address}`])).toMatchObject({
    status: 0,
  });
  for (const words of [["--tls"], ["--cacert", file("other.pem", tlsMaterial(Date.now()).caPem)]]) {
    const refused = await run(["ps", "-q", ...words]);
    expect(refused).toMatchObject({ status: 1, stdout: "" });
    expect(refused.stderr).toMatch(/^k8s-runner: unavailable: cannot reach .*certificate/);
  }
  const cleartext = await run(["ps", "-q", "--timeout", "5s"]);
  expect(cleartext).toMatchObject({ status: 1, stdout: "" });
  expect(cleartext.stderr).toStartWith("k8s-runner: unavailable: ");
});

test("TLS: a certificate of our own is shown with --cert and --key", async () => {
  const material = tlsMaterial(Date.now());
  await using secure = await proxy(host(), { material, clientCertificate: true });
  const ca = ["--cacert", file("mutual-ca.pem", material.caPem)];
  const own = ["--cert", file("cert.pem", material.certPem), "--key", file("key.pem", material.keyPem)];
  const { run } = program(secure.address);
  expect(await run(["ps", "-q", ...ca, ...own])).toMatchObject({ status: 0, stderr: "" });
  expect(await run(["ps", "-q", ...ca])).toMatchObject({ status: 1, stdout: "" });
});

test("a connection that is lost under exec ends with 126 and says that the command may still run", async () => {
  const { id } = await runner().run();
  await using way = await proxy(host());
  const child = program(way.address).start(["exec", id, "--", "sh", "-c", "echo up; sleep 300"]);
  expect((await linesOf(child.stdout).next()).value).toBe("up");
  way.cut();
  expect(await child.stderr.text()).toMatch(
    /^k8s-runner: unavailable: the connection to 127\.0\.0\.1:\d+ was lost: .*; the command may still run\n$/,
  );
  expect(await child.exited).toBe(126);
});

test("a connection that is lost under logs -f is a failure, not an end", async () => {
  const { id } = await runner().run({ main: { image: "alpine:3.19", cmd: ["sh", "-c", "echo up; sleep 300"] } });
  await using way = await proxy(host());
  const child = program(way.address).start(["logs", "-f", id]);
  expect((await linesOf(child.stdout).next()).value).toBe("up");
  way.cut();
  expect(await child.stderr.text()).toMatch(/^k8s-runner: unavailable: the connection to \S+ was lost: /);
  expect(await child.exited).toBe(1);
});
