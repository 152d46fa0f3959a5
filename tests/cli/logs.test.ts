import { expect, test } from "bun:test";
import { linesOf } from "../support/main.ts";
import { script, sharedRunner } from "../support/runner.ts";
import { until, untilPhase } from "../support/wait.ts";
import { program } from "./program.ts";

const runner = sharedRunner();
const cli = () => program(new URL(runner().baseUrl).host);

async function ended(text: string): Promise<string> {
  const { id } = await runner().start({
    main: script(text, { name: "agent" }),
    sidecars: [script("echo beside", { name: "helper" })],
  });
  await untilPhase(runner().client, id, "succeeded");
  return id;
}

test("logs prints the main container's log as it is, or the end of it, or another container's", async () => {
  const id = await ended("printf 'one\\ntwo\\n\\033[1mthree\\377\\n'");
  const { run } = cli();
  const whole = cli().start(["logs", id]);
  expect(Buffer.from(await whole.stdout.bytes()).toString("latin1")).toBe("one\ntwo\n\u001b[1mthree\u00ff\n");
  expect(await run(["logs", id, "-n", "2"])).toMatchObject({ status: 0, stderr: "" });
  expect((await run(["logs", id, "-n", "2"])).stdout).toStartWith("two\n");
  expect(await run(["logs", id, "-c", "helper"])).toEqual({ status: 0, stdout: "beside\n", stderr: "" });
  expect((await run(["logs", id, "--timestamps", "-n", "1"])).stdout).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z /);
  expect(await run(["logs", id, "--since", "2999-01-01T00:00:00Z"])).toEqual({ status: 0, stdout: "", stderr: "" });
  expect((await run(["logs", id, "--since", "1h"])).stdout).toStartWith("one\n");
  const json = (await run(["logs", id, "--json"])).stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(Buffer.concat(json.map(({ chunk }) => Buffer.from(chunk.data, "base64"))).toString("latin1")).toStartWith(
    "one\ntwo\n",
  );
});

test("logs -f prints lines as they come and ends with 0 when the container ends", async () => {
  const { id } = await runner().run({
    main: script("echo first; until [ -e /tmp/go ]; do sleep 0.1; done; echo last"),
  });
  const child = cli().start(["logs", "-f", id]);
  const lines = linesOf(child.stdout);
  expect((await lines.next()).value).toBe("first");
  expect((await cli().run(["exec", id, "touch", "/tmp/go"])).status).toBe(0);
  expect((await lines.next()).value).toBe("last");
  expect((await lines.next()).done).toBe(true);
  expect([await child.exited, await child.stderr.text()]).toEqual([0, ""]);
});

test("a log that ends before its end is told by the code of the contract, with status 1", async () => {
  const { id } = await runner().run({ main: script("echo up; sleep 300") });
  const child = cli().start(["logs", "-f", id]);
  expect((await linesOf(child.stdout).next()).value).toBe("up");
  await runner().client.removeWorkload({ workloadId: id, force: true });
  expect([await child.stderr.text(), await child.exited]).toEqual(["k8s-runner: unavailable: pod_deleted\n", 1]);
});

test("a container that is not there, and a time limit, are told", async () => {
  const { id } = await runner().run();
  expect(await cli().run(["logs", id, "-c", "nope"])).toEqual({
    status: 1,
    stdout: "",
    stderr: "k8s-runner: not_found: container_not_found\n",
  });
  const late = await cli().run(["logs", "-f", id, "--timeout", "1s"]);
  expect(late).toMatchObject({ status: 1, stdout: "" });
  expect(late.stderr).toStartWith("k8s-runner: deadline_exceeded: ");
});

test("events tells what happened to a workload and goes on telling, as lines and as JSON", async () => {
  const { id } = await runner().run();
  const child = cli().start(["events", "-f", id, "--type", "Normal"]);
  const lines = linesOf(child.stdout);
  const reasons: string[] = [];
  while (!reasons.includes("Started")) {
    const [time, type, reason = "", object] = ((await lines.next()).value ?? "").split("  ");
    expect([type, object]).toEqual(["Normal", `pod/workload-${id}`]);
    expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    reasons.push(reason);
  }
  await runner().client.stopWorkload({ workloadId: id, timeoutSec: 1 });
  await until("the end is told too", async () =>
    (await lines.next()).value?.includes("  Killing  ") ? true : undefined,
  );
  child.kill("SIGINT");
  await child.exited;

  const json = await cli().run(["events", "--for", "2s", "--json", "--reason", "Started", id]);
  expect(json).toMatchObject({ status: 0, stderr: "" });
  for (const line of json.stdout.trimEnd().split("\n")) {
    const { data } = JSON.parse(line);
    expect(JSON.parse(data.json)).toMatchObject({ reason: "Started", involvedObject: { name: `workload-${id}` } });
  }
});
