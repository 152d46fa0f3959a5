import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commands } from "../../src/cli/table.ts";
import { sharedRunner } from "../support/runner.ts";
import { program } from "./program.ts";

const runner = sharedRunner();
const host = () => new URL(runner().baseUrl).host;
const none = program();

/** What the program answers a shell, the last word being the one that is typed. */
const asked = async (...words: string[]): Promise<string[]> => {
  const { stdout } = await program(host()).run(["__complete", "zsh", "--", ...words]);
  return stdout
    .split("\n")
    .slice(0, -1)
    .map((line) => line.replace(/\t.*/, ""));
};

test.each(["bash", "zsh", "fish"])("the script for %s is one that this shell can read", async (shell) => {
  const { status, stdout, stderr } = await none.run(["completion", shell]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toContain("__complete");
  if (Bun.which(shell) === null) return; // tests/cli/terminal.sh installs them
  const check = Bun.spawnSync([shell, "-n", "/dev/stdin"], { stdin: Buffer.from(stdout), stderr: "pipe" });
  expect([check.exitCode, check.stderr.toString()]).toEqual([0, ""]);
});

test("commands, flags, their values and operands are completed by the table", async () => {
  const names = commands.filter(({ group }) => group !== "hidden").map(({ name }) => name);
  expect(await asked("")).toEqual(names);
  expect(await asked("ex")).toEqual(["exec"]);
  expect(await asked("help", "lo")).toEqual(["logs"]);
  expect(await asked("exec", "--t")).toEqual(["--tty", "--timeout", "--tls"]);
  expect(await asked("exec", "--tty", "--t")).toEqual(["--timeout", "--tls"]);
  expect(await asked("start", "--env", "A=1", "--en")).toEqual(["--env", "--entrypoint"]);
  expect(await asked("start", "--file", "")).toEqual([":file"]);
  expect(await asked("ps", "--cacert=/e")).toEqual([":file"]);
  expect(await asked("ps", "--label", "")).toEqual([]);
  expect(await asked("completion", "z")).toEqual(["zsh"]);
  expect(await asked("nonsense", "")).toEqual([]);
});

test("ids are asked of the runner that the line or the environment names; nothing is said when it is not there", async () => {
  const { id } = await runner().start();
  for (const words of [
    ["inspect", ""],
    ["exec", "-it", id.slice(0, 6)],
    ["rm", "-f", "x", ""],
  ])
    expect(await asked(...words)).toContain(id);
  expect(await asked("cp", id.slice(0, 6))).toEqual([`${id}:/`, ":file"]);
  expect(await asked("cp", `${id}:/e`)).toEqual([]);
  expect(await asked("exec", id, "l")).toEqual([]);
  expect(await asked("inspect", "--address", "127.0.0.1:1", "")).toEqual([]);
  const named = await none.run(["__complete", "zsh", "--", "inspect", "--address", host(), ""]);
  expect(named.stdout).toContain(`${id}\t`);
});

test("bash itself completes: commands, flags, ids after = and :, and files", async () => {
  const { id } = await runner().start();
  const directory = mkdtempSync(join(tmpdir(), "cli-completion-"));
  try {
    writeFileSync(join(directory, "agent.yaml"), "");
    const complete = async (...words: string[]): Promise<string> => {
      const script = `
k8s-runner() { "\${PROGRAM[@]}" "$@"; }
PROGRAM=("\${@:1:2}"); shift 2
eval "$(k8s-runner completion bash)"
COMP_WORDS=(k8s-runner "$@"); COMP_CWORD=$#
_k8s_runner 2>/dev/null
printf '%s\\n' "\${COMPREPLY[@]}"`;
      const child = Bun.spawn(["bash", "-c", script, "bash", ...none.line([]), ...words], {
        env: { ...none.env, RUNNER_ADDRESS: host() },
        cwd: directory,
        stdout: "pipe",
      });
      return (await child.stdout.text()).trim().split("\n").join(" ");
    };
    expect(await complete("che")).toBe("check-config");
    expect(await complete("logs", "--fol")).toBe("--follow");
    expect(await complete("inspect", id.slice(0, 7))).toBe(id);
    const [name = "", port = ""] = host().split(":");
    expect(await complete("inspect", "--address", "=", name, ":", port, id.slice(0, 7))).toBe(id);
    expect(await complete("cp", id.slice(0, 7))).toBe(`${id}:/`);
    expect(await complete("start", "--file", "ag")).toBe("agent.yaml");
    expect(await complete("start", "--file", "=", "ag")).toBe("agent.yaml");
  } finally {
    rmSync(directory, { recursive: true });
  }
});
