import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { parse } from "yaml";

/** The scripts of the workflows, run as GitHub runs them, with fakes for the programs that reach a registry. */

interface Step {
  readonly name?: string;
  readonly uses?: string;
  readonly run?: string;
}
interface Workflow {
  readonly permissions: unknown;
  readonly jobs: Readonly<Record<string, { readonly steps?: readonly Step[]; readonly uses?: string }>>;
}

const WORKFLOWS = `${import.meta.dir}/../../.github/workflows`;
const files = readdirSync(WORKFLOWS).sort();
const workflow = (file: string): Workflow => parse(readFileSync(`${WORKFLOWS}/${file}`, "utf8"));
const stepsOf = (file: string): Step[] => Object.values(workflow(file).jobs).flatMap(({ steps = [] }) => steps);

const scratch = mkdtempSync(`${tmpdir()}/workflows-`);
afterAll(() => rmSync(scratch, { recursive: true }));
let runs = 0;

/** The step of this name, in a directory of its own that holds these files. */
function run(file: string, name: string, env: Record<string, string>, contents: Record<string, string> = {}) {
  const directory = `${scratch}/${++runs}`;
  const bin = `${directory}/bin`;
  mkdirSync(bin, { recursive: true });
  for (const program of ["gh", "helm", "cosign", "docker"])
    symlinkSync(`${import.meta.dir}/fakes.sh`, `${bin}/${program}`);
  for (const [path, text] of Object.entries(contents)) writeFileSync(`${directory}/${path}`, text);
  const script = stepsOf(file).find((step) => step.name === name)?.run ?? "exit 99";
  const calls = `${directory}/calls`;
  writeFileSync(calls, "");
  const { exitCode, stdout } = Bun.spawnSync(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], {
    cwd: directory,
    env: { PATH: `${bin}:/usr/local/bin:/usr/bin:/bin`, CALLS: calls, SAYS: "", ...env },
  });
  return { status: exitCode, output: stdout.toString(), calls: readFileSync(calls, "utf8").trim().split("\n") };
}

const DIGEST = `sha256:${"0f".repeat(32)}`;

describe("the release page", () => {
  const changelog =
    "# Changelog\n\n## Unreleased\n\n- Not yet.\n\n## 1.2.10 (2026-11-26)\n\n- Later.\n\n## 1.2.1 (2026-11-25)\n\n- New.\n\n## 1.1.0 (2026-10-01)\n\n- Old.\n";
  const release = (VERSION: string) =>
    run("release.yml", "Release", { VERSION, DIGEST, GITHUB_REF_NAME: `v${VERSION}` }, { "CHANGELOG.md": changelog });

  test("has the changelog's section of its version and no other, the digest, and the bill of materials", () => {
    const { status, calls } = release("1.2.1");
    expect(status).toBe(0);
    expect(calls[0]).toBe(
      "gh release create v1.2.1 --verify-tag --title v1.2.1 --notes-file notes.md k8s-runner.spdx.json",
    );
    const notes = calls.slice(1).join("\n");
    expect(notes).toContain("- New.");
    expect(notes).toContain(DIGEST);
    expect(notes).not.toMatch(/Old|Later|Not yet/);
  });

  test("of a version that the changelog does not have is not made", () => {
    for (const version of ["1.3.0", "1.2", "1"]) {
      const { status, output, calls } = release(version);
      expect({ version, status, calls }).toEqual({ version, status: 1, calls: [""] });
      expect(output).toBe(`CHANGELOG.md has no section ${version}\n`);
    }
  });

  test("of a pre-release says that it is one", () => {
    const contents = { "CHANGELOG.md": "## 2.0.0-rc.1\n\n- Try it.\n" };
    const env = { VERSION: "2.0.0-rc.1", DIGEST, GITHUB_REF_NAME: "v2.0.0-rc.1" };
    expect(run("release.yml", "Release", env, contents).calls[0]).toContain(" --prerelease ");
  });
});

describe("the chart", () => {
  const push = (SAYS: string) => run("chart.yml", "Push and sign", { VERSION: "1.2.0", SAYS });

  test("is signed by the digest that was pushed", () => {
    const { status, calls } = push(`Pushed: ghcr.io/agynio/charts/k8s-runner:1.2.0\nDigest: ${DIGEST}`);
    expect({ status, calls }).toEqual({
      status: 0,
      calls: [
        "helm push dist/k8s-runner-1.2.0.tgz oci://ghcr.io/agynio/charts",
        `cosign sign --yes ghcr.io/agynio/charts/k8s-runner@${DIGEST}`,
      ],
    });
  });

  test("without a digest is not signed by its tag", () => {
    const { status, calls } = push("Pushed: ghcr.io/agynio/charts/k8s-runner:1.2.0");
    expect(status).not.toBe(0);
    expect(calls.some((call) => call.startsWith("cosign"))).toBe(false);
  });
});

describe("the image", () => {
  const index = (...platforms: string[]) =>
    JSON.stringify({
      manifests: platforms.map((platform) => ({
        platform: { os: platform.split("/")[0], architecture: platform.split("/")[1] },
      })),
    });
  const look = (SAYS: string) =>
    run("image.yml", "Both platforms are there", { IMAGE: "ghcr.io/agynio/k8s-runner", DIGEST, SAYS }).status;

  test("must be there for both platforms", () => {
    expect(look(index("linux/amd64", "linux/arm64", "unknown/unknown"))).toBe(0);
    expect(look(index("linux/amd64"))).not.toBe(0);
    expect(look(index())).not.toBe(0);
  });

  test("is signed by its digest, never by a tag", () => {
    const { calls } = run("image.yml", "Sign", { IMAGE: "ghcr.io/agynio/k8s-runner", DIGEST });
    expect(calls).toEqual([`cosign sign --yes ghcr.io/agynio/k8s-runner@${DIGEST}`]);
    expect(run("image.yml", "Sign", { IMAGE: "x", DIGEST: "" }).status).not.toBe(0);
  });
});

describe.each(files)("%s", (file) => {
  test("names each action by the digest of a commit or by an exact release", () => {
    const used = [...stepsOf(file), ...Object.values(workflow(file).jobs)].flatMap(({ uses }) => uses ?? []);
    expect(used.filter((uses) => !/^\.\/|@[0-9a-f]{40}$|@v\d+\.\d+\.\d+$/.test(uses))).toEqual([]);
  });

  test("begins with the right to read and nothing more", () => {
    expect(workflow(file).permissions).toEqual({ contents: "read" });
  });

  test("hands no expression to a shell", () => {
    expect(stepsOf(file).filter(({ run: script }) => script?.includes("${{"))).toEqual([]);
  });
});

test("CI runs what .ci/run runs that needs no cluster", () => {
  const ours = readFileSync(`${WORKFLOWS}/../../.ci/run`, "utf8");
  const theirs = stepsOf("ci.yml").map(({ run: script = "" }) => script);
  for (const command of ["tests/conformance/run.sh", "tests/chart/run.sh", "ziti/test.sh", "rhysd/actionlint"]) {
    expect(ours).toContain(command);
    expect(theirs.some((script) => script.includes(command))).toBe(true);
  }
});
