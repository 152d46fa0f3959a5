import { expect, test } from "bun:test";
import { exec } from "../support/exec.ts";
import { freshId, idling, sharedRunner } from "../support/runner.ts";
import { refusal } from "../support/wait.ts";

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
