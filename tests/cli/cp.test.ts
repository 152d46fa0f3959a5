import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sharedRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";
import { program } from "./program.ts";

const runner = sharedRunner();
let id = "";
let cli: ReturnType<typeof program>;
let here = "";
const made: string[] = [];

beforeAll(async () => {
  ({ id } = await runner().run());
  cli = program(new URL(runner().baseUrl).host);
});
beforeEach(async () => {
  here = mkdtempSync(join(tmpdir(), "cli-cp-"));
  made.push(here);
  expect((await sh("rm -rf /tmp/there && mkdir /tmp/there")).status).toBe(0);
});
afterAll(() => {
  for (const directory of made) rmSync(directory, { recursive: true });
});

const sh = (text: string) => cli.run(["exec", id, "--", "sh", "-c", text]);
const cp = (...words: string[]) => cli.run(["cp", ...words]);
const OK = { status: 0, stdout: "", stderr: "" };

/** A directory with all that can be copied: modes, links, long and odd names, a file larger than one message's part. */
function tree(): string {
  const root = join(here, "tree");
  mkdirSync(join(root, "sub", "empty"), { recursive: true });
  writeFileSync(join(root, "@plain"), "text\n");
  writeFileSync(join(root, "sub", `ünï ${"n".repeat(150)}`), "long");
  writeFileSync(join(root, "run.sh"), "#!/bin/sh\n");
  chmodSync(join(root, "run.sh"), 0o751);
  writeFileSync(join(root, "large"), Buffer.alloc(8_000_000, "0123456789abcdef~"));
  symlinkSync("@plain", join(root, "link"));
  symlinkSync("/nowhere/at/all", join(root, "astray"));
  return root;
}

/** Every path below with its kind, mode and contents. */
function contents(root: string): Record<string, unknown> {
  const names = readdirSync(root, { recursive: true, encoding: "utf8" }).sort();
  return Object.fromEntries(
    names.map((name) => {
      const path = join(root, name);
      const stats = lstatSync(path);
      const about = stats.isSymbolicLink()
        ? readlinkSync(path)
        : stats.isFile()
          ? readFileSync(path, "latin1")
          : "directory";
      return [name, [about, stats.isSymbolicLink() ? 0 : stats.mode & 0o777]];
    }),
  );
}

test("a directory goes into a workload and comes back the same: into a directory, under a new name, or its contents alone", async () => {
  const source = tree();
  const wanted = contents(source);
  expect(await cp(source, `${id}:/tmp/there`)).toEqual(OK);
  expect(await cp(source, `${id}:/tmp/there/renamed`)).toEqual(OK);
  expect(await cp(`${source}/.`, `${id}:/tmp/there/`)).toEqual(OK);
  for (const [index, path] of ["/tmp/there/tree", "/tmp/there/renamed"].entries()) {
    expect(await cp(`${id}:${path}`, join(here, `back-${index}`))).toEqual(OK);
    expect(contents(join(here, `back-${index}`))).toEqual(wanted);
  }
  mkdirSync(join(here, "into"));
  expect(await cp(`${id}:/tmp/there/tree`, join(here, "into"))).toEqual(OK);
  expect(contents(join(here, "into", "tree"))).toEqual(wanted);
  expect(await cp(`${id}:/tmp/there/tree/.`, join(here, "fresh"))).toEqual(OK);
  expect(contents(join(here, "fresh"))).toEqual(wanted);
  expect((await sh("ls -A /tmp/there")).stdout.split("\n").toSorted().join(" ").trim()).toBe(
    "@plain astray large link renamed run.sh sub tree",
  );
});

test("a file takes the name it is given, several go into a directory, and what was there is replaced", async () => {
  for (const name of ["a", "b"]) writeFileSync(join(here, name), name);
  expect(await cp(join(here, "a"), `${id}:/tmp/there/c`)).toEqual(OK);
  expect(await cp(join(here, "a"), join(here, "b"), `${id}:/tmp/there`)).toEqual(OK);
  expect(await cp(join(here, "b"), `${id}:/tmp/there/c`)).toEqual(OK);
  expect((await sh("cd /tmp/there && cat a b c && ls | wc -l")).stdout.replaceAll(/\s/g, "")).toBe("abb3");
  expect(await cp(`${id}:/tmp/there/a`, join(here, "b"))).toEqual(OK);
  expect(readFileSync(join(here, "b"), "utf8")).toBe("a");
});

test("what cannot be copied is told before anything was, and leaves nothing", async () => {
  writeFileSync(join(here, "a"), "a");
  const nothing = join(here, "nothing");
  expect((await cp(join(here, "a"), nothing, `${id}:/tmp/there`)).stderr).toBe(
    `k8s-runner: ENOENT: no such file or directory, lstat '${nothing}'\n`,
  );
  expect((await sh("ls -A /tmp/there")).stdout).toBe("");
  const absent = await cp(`${id}:/tmp/no-such-file`, here);
  expect(absent).toMatchObject({ status: 1, stdout: "" });
  expect(absent.stderr).toMatch(/^k8s-runner: tar: .*no-such-file/);
  expect((await cp(join(here, "a"), `${id}:/tmp/no-such-directory/`)).stderr).toStartWith(
    "k8s-runner: internal: put archive failed: ",
  );
  expect((await cp(`${id}:/tmp/there`, join(here, "no", "such"))).stderr).toBe(
    `k8s-runner: ${join(here, "no")} is no directory\n`,
  );
  expect(readdirSync(here)).toEqual(["a"]);
});

test("a directory does not take the place of a file, nor a file that of a directory", async () => {
  mkdirSync(join(here, "there"));
  mkdirSync(join(here, "d", "x"), { recursive: true });
  expect((await sh("touch /tmp/there/x")).status).toBe(0);
  expect((await cp(`${id}:/tmp/there/.`, join(here, "d"))).stderr).toEndWith(
    "is a directory, unlike what was to take its place\n",
  );
  expect(lstatSync(join(here, "d", "x")).isDirectory()).toBe(true);
});

test("what is neither a file nor a directory nor a link is refused, in either direction", async () => {
  const refusal = await cp(`${id}:/dev/null`, join(here, "null"));
  expect(refusal).toEqual({
    status: 1,
    stdout: "",
    stderr: 'k8s-runner: "./null" in the archive is a CharacterDevice; nothing is kept\n',
  });
  expect(readdirSync(here)).toEqual([]);
  expect((await cp("/dev/null", `${id}:/tmp/there`)).stderr).toBe(
    "k8s-runner: /dev/null is neither a file nor a directory nor a symbolic link\n",
  );
});

test("a copy out of a workload that is interrupted leaves nothing behind", async () => {
  expect((await sh("truncate -s 20G /tmp/there/huge")).status).toBe(0);
  const child = cli.start(["cp", `${id}:/tmp/there/huge`, join(here, "huge")]);
  await until("some of it has come", () => {
    const sizes = readdirSync(here, { recursive: true, encoding: "utf8" }).map(
      (name) => lstatSync(join(here, name)).size,
    );
    return Math.max(0, ...sizes) > 1_000_000 ? true : undefined;
  });
  child.kill("SIGINT");
  expect(await child.exited).toBe(130);
  expect(readdirSync(here)).toEqual([]);
});
