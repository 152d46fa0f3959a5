import { expect, test } from "bun:test";
import { ExecSession, exec } from "../support/exec.ts";
import { logChunks, logText } from "../support/logs.ts";
import { script, sharedRunner } from "../support/runner.ts";
import { tar } from "../support/tar.ts";
import { refusal, until, untilPhase } from "../support/wait.ts";
import { moved, scrape } from "./scrape.ts";

/* Bytes and open streams. */
const runner = sharedRunner();
const open = async (kind: string) => (await scrape(runner())).sum("open_streams", { kind });

test("bytes of executions are counted by stream", async () => {
  const { target } = await runner().run();
  const stream = (stream: string) => ["exec_bytes_total", { stream }] as const;
  const figures = await moved(
    runner(),
    { stdin: stream("stdin"), stdout: stream("stdout"), stderr: stream("stderr") },
    async () => {
      const options = { separateStderr: true };
      await exec(runner().client, { targetId: target, commandArgv: ["cat"], options }, "x".repeat(100_000));
      await exec(runner().client, { targetId: target, commandShell: "printf abc; printf defgh >&2", options });
    },
  );
  expect(figures).toEqual({ stdin: 100_000, stdout: 100_003, stderr: 5 });
});

test("bytes of logs and of archives are counted; those of an archive that was refused are not", async () => {
  const { id } = await runner().start({ main: script("echo one; echo two") });
  await untilPhase(runner().client, id, "succeeded");
  const { id: workloadId } = await runner().run();
  const tarPayload = tar([{ name: "metrics.txt", data: Buffer.from("hello") }]);
  const figures = await moved(runner(), { log: ["log_bytes_total"], archive: ["archive_bytes_total"] }, async () => {
    await logText(runner().client, { workloadId: id, containerName: "main" });
    await logText(runner().client, { workloadId: id, containerName: "main", follow: true });
    await runner().client.putArchive({ workloadId, path: "/tmp", tarPayload });
    await refusal(runner().client.putArchive({ workloadId, path: "/no/such/directory", tarPayload }));
  });
  expect(figures).toEqual({ log: 16, archive: tarPayload.length });
});

test("open executions, followed logs and event streams are counted while they are open, however they end", async () => {
  const { client } = runner();
  const { id, target } = await runner().run({ main: script("echo up; sleep 300") });
  await using session = new ExecSession(client, { targetId: target, commandArgv: ["cat"] });
  await session.started();
  expect(await open("exec")).toBe(1);
  const leaving = new AbortController();
  const { signal } = leaving;
  const following = logChunks(client, { workloadId: id, containerName: "main", follow: true }, { signal });
  await following.next();
  expect(await open("log_follow")).toBe(1);
  const events = client.streamEvents({}, { signal })[Symbol.asyncIterator]();
  const event = events.next();
  event.catch(() => undefined); // it ends with its caller
  await until("the event stream is open", async () => ((await open("event")) === 1 ? true : undefined));
  // A log that is not followed is none of them.
  await logText(client, { workloadId: id, containerName: "main" });
  expect(await open("log_follow")).toBe(1);
  leaving.abort();
  session.halfClose();
  await session.result();
  await until("all are closed", async () => ((await scrape(runner())).sum("open_streams") === 0 ? true : undefined));
});

test("what callers use is counted by resource, and each limit that was reached", async () => {
  const { client, target } = { client: runner().client, ...(await runner().run()) };
  const inUse = async (resource: string) => (await scrape(runner())).sum("callers_in_use", { resource });
  const before = await inUse("executions");
  await using session = new ExecSession(client, { targetId: target, commandArgv: ["cat"] });
  await session.started();
  expect((await inUse("executions")) - before).toBe(1);
  expect(await inUse("connections")).toBeGreaterThan(0);
  expect(await inUse("streams")).toBeGreaterThan(0);
  const headers = { "x-much": "a".repeat(40_000) };
  const reached = await moved(runner(), { metadata: ["limits_reached_total", { limit: "metadata_bytes" }] }, () =>
    refusal(client.ready({}, { headers })),
  );
  expect(reached).toEqual({ metadata: 1 });
});
