import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { version } from "../../package.json";
import { commands } from "../../src/cli/table.ts";
import { program } from "./program.ts";

const { run } = program();
const golden = (name: string): string => readFileSync(`${import.meta.dir}/golden/${name}.txt`, "utf8");

test("--help, -h and help print the same page on standard output", async () => {
  const page = { status: 0, stdout: golden("help"), stderr: "" };
  for (const words of [["--help"], ["-h"], ["help"]]) expect(await run(words)).toEqual(page);
});

test.each(["exec", "start", "version"])(
  "help %s and --help of it print its page, whatever else is on the line",
  async (name) => {
    const page = { status: 0, stdout: golden(`help-${name}`), stderr: "" };
    expect(await run(["help", name])).toEqual(page);
    expect(await run([name, "--help"])).toEqual(page);
    expect(await run([name, "some", "words", "-h"].slice(0, name === "version" ? 1 : 2).concat("-h"))).toEqual(page);
  },
);

test("every command has a page that names all of its flags", async () => {
  const shown = commands.filter(({ group }) => group !== "hidden");
  expect(shown.length).toBeGreaterThan(10);
  for (const { name, flags, summary } of shown) {
    const { status, stdout } = await run(["help", name]);
    expect(status).toBe(0);
    expect(stdout).toContain(`Usage: k8s-runner ${name}`);
    expect(stdout).toContain(summary);
    for (const flag of flags) expect(stdout).toContain(`--${flag.name}`);
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(120);
  }
});

test("version tells the version and Bun's, as text and as JSON", async () => {
  const text = { status: 0, stdout: `k8s-runner ${version}, Bun ${Bun.version}\n`, stderr: "" };
  expect(await run(["version"])).toEqual(text);
  expect(await run(["--version"])).toEqual(text);
  const { stdout } = await run(["version", "--json"]);
  expect(JSON.parse(stdout)).toEqual({ version, bun: Bun.version });
});

const USAGE = 2;
test.each([
  [["lgos", "x"], 'k8s-runner: unknown command "lgos"; did you mean logs?\n'],
  [["frobnicate"], 'k8s-runner: unknown command "frobnicate"\n'],
  [["--frob"], 'k8s-runner: unknown flag "--frob"\n'],
  [["help", "exce"], 'k8s-runner: unknown command "exce"; did you mean exec?\n'],
  [["ps", "--runing"], "k8s-runner: ps has no flag --runing; did you mean --running?\n"],
  [["ps", "-x"], "k8s-runner: ps has no flag -x\n"],
  [["ps", "--label"], "k8s-runner: --label needs a value: <name=value>\n"],
  [["ps", "--running=yes"], "k8s-runner: --running takes no value\n"],
  [["ps", "web"], 'k8s-runner: ps does not take "web"\n'],
  [["ps", "--label", "a"], 'k8s-runner: --label: "a" is not name=value\n'],
  [["inspect"], "k8s-runner: inspect needs <workload>\n"],
  [["ps", "--timeout", "5x"], 'k8s-runner: --timeout: time: unknown unit "x" in duration "5x"\n'],
  [["ps", "--timeout=-5s"], 'k8s-runner: --timeout: "-5s" is negative\n'],
  [["ps", "--address", "nonsense"], 'k8s-runner: --address: "nonsense" is not host:port\n'],
  [
    ["ps", "--address", "http://h:1", "--tls"],
    "k8s-runner: --address: http://h:1 says cleartext, but other flags ask for TLS\n",
  ],
  [["ps", "--cacert", "/no/such"], "k8s-runner: --cacert: ENOENT: no such file or directory, open '/no/such'\n"],
  [["ps", "--cert", "/dev/null"], "k8s-runner: --cert and --key belong together\n"],
  [["logs", "x", "--tail", "ten"], 'k8s-runner: --tail: "ten" is no whole number\n'],
  [["logs", "x", "--tail", "0"], "k8s-runner: --tail: at least 1\n"],
  [["logs", "x", "--since", "2026-99-99"], 'k8s-runner: --since: "2026-99-99" is no time\n'],
  [["exec", "x"], "k8s-runner: exec needs <command>, or --shell\n"],
  [["exec", "--shell", "ls", "x", "ls"], "k8s-runner: a command and --shell do not go together\n"],
  [["exec", "--json", "-t", "x", "ls"], "k8s-runner: --json and --tty do not go together\n"],
  [
    ["exec", "-it", "x", "ls"],
    "k8s-runner: --tty needs a terminal as standard input; for a pipe, --interactive alone is right\n",
  ],
  [
    ["exec", "-e", "NOT_SET_HERE", "x", "ls"],
    "k8s-runner: --env: NOT_SET_HERE is not set here, and no value is given\n",
  ],
  [["start"], "k8s-runner: start needs <image>, or --file\n"],
  [["start", "-f", "x", "--docker", "image"], "k8s-runner: --file tells it all: it goes without an image, --docker\n"],
  [["start", "-v", "data", "image"], 'k8s-runner: --volume: "data" is not name:path or name:path:ro\n'],
  [
    ["start", "-v", "data:/data:5Gi", "image"],
    'k8s-runner: --volume: "data:/data:5Gi" is not name:path or name:path:ro; a size cannot be asked for, the runner\'s PVC_STORAGE_SIZE decides\n',
  ],
  [
    ["stop", "x", "--grace", "0"],
    'k8s-runner: --grace: there is always a second; "k8s-runner rm --force" gives none\n',
  ],
  [["cp", "a", "b"], "k8s-runner: one side of cp is in a workload: <workload>:<path>\n"],
  [["cp", "a:/x", "b:/y"], "k8s-runner: cp does not copy from one workload to another\n"],
  [["cp", "a:x", "b"], 'k8s-runner: "a:x": the path in a workload begins with /\n'],
  [
    ["cp", "-c", "x", "b", "a:/x"],
    "k8s-runner: --container is for copies out of a workload: the API takes files for the main container alone\n",
  ],
  [["completion", "tcsh"], 'k8s-runner: completion is there for bash, zsh and fish, not for "tcsh"\n'],
])("%j is a wrong command line: said on standard error, status 2, and nothing else happens", async (words, said) => {
  const { status, stdout, stderr } = await run(words);
  expect(stderr).toStartWith(said);
  expect({ status, stdout }).toEqual({ status: USAGE, stdout: "" });
});

test("words of another program are left alone, with and without -- before them", async () => {
  // The runner is not there, which is told last: the line was taken.
  const unreachable = "unavailable: cannot reach 127.0.0.1:1: connect ECONNREFUSED 127.0.0.1:1\n";
  const id = crypto.randomUUID();
  for (const words of [
    ["exec", id, "ls", "-la", "--nonsense"],
    ["exec", id, "--", "ls", "--nonsense"],
    ["exec", "--", id, "ls", "--nonsense"],
    ["exec", "--", id, "--", "ls"],
    ["exec", id, "-e", "A=B", "ls", "-e"],
  ])
    expect(await run(words)).toEqual({ status: 125, stdout: "", stderr: `k8s-runner: ${unreachable}` });
  expect(await run(["start", "image", "--", "--wait"])).toMatchObject({ status: 1, stdout: "" });
});
