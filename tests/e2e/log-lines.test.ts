import { expect, test } from "bun:test";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { exec } from "../support/exec.ts";
import { scripted } from "../support/faults/script.ts";
import { Gate } from "../support/gate.ts";
import { freshId, idling, sharedRunner, startRunner } from "../support/runner.ts";
import { refusal, until } from "../support/wait.ts";

const runner = sharedRunner();

test("every request is one JSON line at debug level, with what it was, how it ended and how long it took", async () => {
  const { client } = runner();
  const { id } = await runner().start();
  await client.inspectWorkload({ workloadId: id });
  await refusal(client.inspectWorkload({ workloadId: `${id}x` }));
  const lines = runner()
    .logLines()
    .filter(({ msg, rpc }) => msg === "request" && rpc === "InspectWorkload");
  expect(lines).toMatchObject([
    { level: "debug", caller: "runner", code: "ok", workload_id: id, ms: expect.any(Number), ts: expect.any(Number) },
    { level: "debug", code: "NotFound", workload_id: `${id}x`, error: expect.stringContaining("not found") },
  ]);
});

test("secrets are in no line of the log and in no error", async () => {
  const { client } = runner();
  const canary = `canary-${freshId()}`;
  const secrets = {
    main: idling({ env: [{ name: "TOKEN", value: canary }], inlineFileMounts: [{ path: "/tmp/canary/file" }] }),
    inlineFiles: { "/tmp/canary/file": new TextEncoder().encode(canary) },
    imagePullCredentials: [{ registry: "r.test", username: "u", password: canary }],
  };
  const { id, containers } = await runner().start(secrets);
  const refusals = [
    await refusal(runner().start({ ...secrets, workloadId: id })),
    await refusal(runner().start({ ...secrets, workloadId: canary })),
    await refusal(runner().start({ ...secrets, dnsConfig: { nameservers: ["nonsense"], searches: [] } })),
  ];
  const result = await exec(client, {
    targetId: containers?.main ?? "",
    commandArgv: ["no-such-program", canary],
    options: { env: [{ name: "TOKEN", value: canary }] },
  });
  expect(result.exit?.exitCode).toBe(-1);
  expect(JSON.stringify(refusals)).not.toContain(canary);
  expect(runner().logText()).not.toContain(canary);
  expect(runner().logText()).not.toContain(Buffer.from(canary).toString("base64").slice(0, 30));
});

test("what operators look for is there under its words: a claim made, a watch of events closed", async () => {
  await using gate = await Gate.over(runner().backend.access);
  const { backend } = runner();
  await using behind = await startRunner({ backend, access: () => gate.access });
  const persistentName = behind.ledger.claimName("log");
  const volumes = [{ name: "v", kind: VolumeKind.NAMED, persistentName }];
  const { id: workloadId } = await behind.start({ volumes });
  const lineOf = (wanted: string) => behind.logLines().find(({ msg }) => msg === wanted);
  expect(lineOf("created pvc")).toMatchObject({ level: "info", caller: "runner", pvc: persistentName });
  gate.fault = scripted({ on: "watch", resource: "events", fault: "reset before" });
  const leaving = new AbortController();
  // All of it is read, as the past comes first.
  const events = (async () => {
    for await (const _ of behind.client.streamEvents({}, { signal: leaving.signal }));
  })();
  events.catch(() => undefined); // it ends with its caller
  const closed = await until("the watch was closed", () => lineOf("event watcher closed"));
  expect(closed).toMatchObject({ level: "warn", namespace: backend.namespace, error: expect.any(String) });
  leaving.abort();
  await behind.client.removeWorkload({ workloadId, force: true, removeVolumes: true });
});
