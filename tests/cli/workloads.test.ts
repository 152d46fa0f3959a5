import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IMAGE, idling, script, sharedRunner } from "../support/runner.ts";
import { inspect, untilGone, untilPhase } from "../support/wait.ts";
import { program } from "./program.ts";

const runner = sharedRunner();
const run = (...[words, options]: Parameters<ReturnType<typeof program>["run"]>) =>
  program(new URL(runner().baseUrl).host).run(words, options);

const directory = mkdtempSync(join(tmpdir(), "cli-workloads-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** `start` through the program; what it makes is given back at the end. */
async function started(...words: string[]): Promise<{ id: string; stderr: string }> {
  const label = Object.entries(runner().ledger.mark).map(([key, value]) => `${key.replace("label.", "")}=${value}`);
  const { status, stdout, stderr } = await run(["start", ...label.flatMap((pair) => ["--label", pair]), ...words]);
  expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
  const id = stdout.trim();
  runner().ledger.workload(id);
  return { id, stderr };
}

test("start makes of its flags the Pod that they describe, and prints its id alone", async () => {
  const id = crypto.randomUUID();
  const claim = `cli-${id.slice(0, 8)}`;
  runner().ledger.claims.add(claim);
  const answer = await started(
    ...["--id", id, "--name", "agent", "--env", "A=b=c", "-e", "EMPTY=", "--label", "team=red", "--workdir", "/tmp"],
    ...[
      "--entrypoint",
      "/bin/sh",
      "-v",
      `${claim}:/mnt/data`,
      "--scratch",
      "cache:/mnt/cache:ro",
      "--cap-add",
      "NET_ADMIN",
    ],
    ...[IMAGE, "--", "-c", "sleep 300"],
  );
  expect(answer.id).toBe(id);
  const { metadata, spec } = await runner().pod(id);
  expect(metadata?.labels).toMatchObject({ team: "red" });
  const [container] = spec?.containers ?? [];
  expect(container).toMatchObject({
    name: "agent",
    image: IMAGE,
    command: ["/bin/sh"],
    args: ["-c", "sleep 300"],
    workingDir: "/tmp",
    securityContext: { capabilities: { add: ["NET_ADMIN"] } },
  });
  expect(container?.env?.map(({ name, value }) => [name, value ?? ""])).toEqual([
    ["A", "b=c"],
    ["EMPTY", ""],
  ]);
  expect(container?.volumeMounts?.map(({ mountPath, readOnly }) => [mountPath, readOnly ?? false])).toEqual([
    ["/mnt/data", false],
    ["/mnt/cache", true],
  ]);
  expect(
    spec?.volumes?.map(({ persistentVolumeClaim, emptyDir }) => persistentVolumeClaim?.claimName ?? emptyDir),
  ).toEqual([claim, {}]);
});

test("start --wait returns when the main container runs, and tells on the way what it waits for", async () => {
  const { id, stderr } = await started("--wait", IMAGE, "--", "sleep", "300");
  expect((await inspect(runner().client, id))?.stateRunning).toBe(true);
  for (const line of stderr.split("\n").slice(0, -1)) expect(line).toStartWith(`k8s-runner: ${id}: pending`);
});

test("start --wait fails when the container ends badly, after it has printed the id", async () => {
  const id = crypto.randomUUID();
  runner().ledger.workload(id);
  const answer = await run(["start", "--wait", "--id", id, "--entrypoint", "/bin/sh", IMAGE, "--", "-c", "exit 3"]);
  expect(answer).toMatchObject({ status: 1, stdout: `${id}\n` });
  expect(answer.stderr).toMatch(/k8s-runner: main terminated \((Error, )?exit code 3\)\n$/);
});

test("start takes a whole StartWorkloadRequest from a JSON or a YAML file, or from standard input", async () => {
  const { mark } = runner().ledger;
  const request = {
    main: { ...idling(), env: [{ name: "FROM", value: "file" }] },
    sidecars: [{ ...idling(), name: "helper" }],
    additionalProperties: mark,
  };
  const properties = Object.entries(mark).map(([key, value]) => `  ${key}: "${value}"`);
  const yaml = [
    "# what a person would write",
    "main: { image: 'alpine:3.19', cmd: [sleep, '300'], env: [{ name: FROM, value: file }] }",
    "sidecars:\n- { image: 'alpine:3.19', cmd: [sleep, '300'], name: helper }",
    `additionalProperties:\n${properties.join("\n")}`,
  ].join("\n");
  for (const [name, text] of [
    ["a.json", JSON.stringify(request)],
    ["a.yaml", yaml],
    ["-", yaml],
  ] as const) {
    const path = name === "-" ? name : join(directory, name);
    if (name !== "-") writeFileSync(path, text);
    const { status, stdout, stderr } = await run(["start", "-f", path], { stdin: text });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const id = stdout.trim();
    runner().ledger.workload(id);
    const { spec } = await runner().pod(id);
    expect(spec?.containers.map((container) => container.name)).toEqual(["main", "helper"]);
    expect(spec?.containers[0]?.env?.[0]).toMatchObject({ name: "FROM", value: "file" });
  }
});

test("start refuses a file that is none, and tells what the runner refuses by its code", async () => {
  const path = join(directory, "typo.yaml");
  writeFileSync(path, "main: { imagee: alpine }");
  const typo = await run(["start", "--file", path]);
  expect(typo).toMatchObject({ status: 1, stdout: "" });
  expect(typo.stderr).toStartWith(`k8s-runner: --file: ${path}: `);
  expect(typo.stderr).toContain("imagee");
  expect(await run(["start", "--file", "/no/such"])).toEqual({
    status: 1,
    stdout: "",
    stderr: "k8s-runner: --file: ENOENT: no such file or directory, open '/no/such'\n",
  });
  expect(await run(["start", "--id", "nonsense", IMAGE])).toEqual({
    status: 1,
    stdout: "",
    stderr: "k8s-runner: invalid_argument: workload_id_invalid\n",
  });
});

test("ps lists what there is: as a table, as ids, by label, and as JSON that holds the whole state", async () => {
  const [one, other] = [`one-${crypto.randomUUID().slice(0, 8)}`, crypto.randomUUID()];
  const { id } = await runner().run({ labels: { cli: one, workload_key: other } });
  const table = await run(["ps", "--label", `cli=${one}`]);
  expect(table).toMatchObject({ status: 0, stderr: "" });
  const [heading = "", row = "", ...rest] = table.stdout.split("\n");
  expect(heading.split(/\s+/)).toEqual(["ID", "KEY", "STATUS", "UP", "IMAGES"]);
  expect(row).toMatch(new RegExp(`^${id}  ${other}  running +\\d+s +\\S*alpine:3.19$`));
  expect(rest).toEqual([""]);
  expect(await run(["ps", "-q", "-l", `cli=${one}`, "--running"])).toEqual({
    status: 0,
    stdout: `${id}\n`,
    stderr: "",
  });
  expect(await run(["ps", "-q", "-l", "cli=no-such"])).toEqual({ status: 0, stdout: "", stderr: "" });
  const { stdout } = await run(["ps", "--json", "-l", `cli=${one}`]);
  expect(stdout.split("\n")).toHaveLength(2);
  expect(JSON.parse(stdout)).toMatchObject({
    id,
    stateStatus: "running",
    stateRunning: true,
    mounts: [],
    configLabels: { cli: one },
    containers: [{ name: "main", role: "CONTAINER_ROLE_MAIN", status: "CONTAINER_STATUS_RUNNING", restartCount: 0 }],
  });
});

test("inspect shows one workload by its id, its Pod's name or the beginning of its id", async () => {
  const { id } = await runner().start({
    main: script("exit 4", { name: "agent" }),
    labels: { note: "x" },
    volumes: [{ name: "scratch", kind: 1 }],
  });
  await untilPhase(runner().client, id, "failed");
  const { status, stdout, stderr } = await run(["inspect", id]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toStartWith(`Id      ${id}\nStatus  failed (`);
  expect(stdout).toContain("note=x\n");
  expect(stdout).toMatch(/\nagent +main +terminated \((Error, )?exit code 4\) +0 +\d+s ago +\S*alpine:3.19\n/);
  for (const word of [`workload-${id}`, id.slice(0, 13)])
    expect((await run(["inspect", word])).stdout).toStartWith(`Id      ${id}\n`);
  expect(JSON.parse((await run(["inspect", id, "--json"])).stdout)).toMatchObject({ id, stateStatus: "failed" });
});

test("a word that means no workload, or more than one, changes nothing and says why", async () => {
  const tail = crypto.randomUUID().slice(4);
  const head = crypto.randomUUID().slice(0, 4);
  const [one, two] = [`${head}${tail}`, `${head}${tail.slice(0, -1)}${tail.endsWith("0") ? "1" : "0"}`];
  for (const workloadId of [one, two]) await runner().start({ workloadId });
  const said = async (...words: string[]) => (await run(words)).stderr;
  expect(await said("rm", "--force", head)).toMatch(/^k8s-runner: "...." is the beginning of \d+ ids: /);
  expect(await said("rm", "--force", one.slice(0, 3))).toEndWith("is no id, and too short for the beginning of one\n");
  expect(await said("rm", "zzzz")).toBe('k8s-runner: not_found: no workload\'s id is or begins with "zzzz"\n');
  for (const id of [one, two]) expect(await inspect(runner().client, id)).toBeDefined();
  const unknown = crypto.randomUUID();
  expect(await run(["inspect", unknown])).toEqual({
    status: 1,
    stdout: "",
    stderr: `k8s-runner: not_found: resource not found: pods "workload-${unknown}" not found\n`,
  });
});

test("stop and rm take several, tell each, go on after a failure, and --wait until all are gone", async () => {
  const [a, b] = [await runner().run(), await runner().run()];
  const unknown = crypto.randomUUID();
  const stopped = await run(["stop", "--grace", "1s", "--wait", unknown, a.id, b.id.slice(0, 18)]);
  expect(stopped.status).toBe(1);
  expect(stopped.stdout).toBe(`${a.id}\n${b.id}\n`);
  expect(stopped.stderr).toStartWith(`k8s-runner: ${unknown}: not_found: `);
  for (const { id } of [a, b]) expect(await inspect(runner().client, id)).toBeUndefined();
});

test("rm --volumes deletes the claims too, rm alone keeps them", async () => {
  const claims = [`cli-kept-${crypto.randomUUID().slice(0, 8)}`, `cli-gone-${crypto.randomUUID().slice(0, 8)}`];
  for (const claim of claims) runner().ledger.claims.add(claim);
  const workloads = await Promise.all(
    claims.map((persistentName) => runner().start({ volumes: [{ name: "data", kind: 2, persistentName }] })),
  );
  const [kept, gone] = workloads.map(({ id }) => id);
  expect(await run(["rm", "-f", kept ?? ""])).toEqual({ status: 0, stdout: `${kept}\n`, stderr: "" });
  expect(await run(["rm", "-f", "--volumes", "--wait", gone ?? ""])).toEqual({
    status: 0,
    stdout: `${gone}\n`,
    stderr: "",
  });
  await untilGone(runner().client, kept ?? "");
  const left = await Promise.all(claims.map((claim) => runner().claim(claim)));
  expect(left.map((claim) => claim !== undefined && claim.metadata?.deletionTimestamp === undefined)).toEqual([
    true,
    false,
  ]);
});
