import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { type Backend, startBackend } from "../support/backend.ts";
import { Collector } from "../support/collector.ts";
import { exec } from "../support/exec.ts";
import type { Fault } from "../support/faults/fault.ts";
import { scripted } from "../support/faults/script.ts";
import { Gate } from "../support/gate.ts";
import { freshId, idling, startRunner, type TestRunner } from "../support/runner.ts";
import { tar } from "../support/tar.ts";
import { until } from "../support/wait.ts";

/*
 * Promise P18: what is secret is in no log line (at debug level), metric, span or error, whatever goes wrong. Which fields of
 * the API are, is told by the schema: each field that can hold a text is in one of these two lists.
 */
setDefaultTimeout(60_000);

const SECRET = [
  "EnvVar.value",
  "ContainerSpec.cmd",
  "ContainerSpec.entrypoint",
  "ImagePullCredential.username",
  "ImagePullCredential.password",
  "StartWorkloadRequest.inline_files",
  "PutArchiveRequest.tar_payload",
  "ExecStartRequest.command_argv",
  "ExecStartRequest.command_shell",
  "ExecStdin.data",
] as const;

/** Names, ids, addresses and settings. */
const PUBLIC = [
  "ContainerSpec.image",
  "ContainerSpec.name",
  "EnvVar.name",
  "ContainerSpec.working_dir",
  "VolumeMount.volume",
  "VolumeMount.mount_path",
  "ContainerSpec.required_capabilities",
  "InlineFileMount.path",
  "ContainerSpec.additional_properties",
  "VolumeSpec.name",
  "VolumeSpec.persistent_name",
  "VolumeSpec.labels",
  "VolumeSpec.additional_properties",
  "DnsConfig.nameservers",
  "DnsConfig.searches",
  "ImagePullCredential.registry",
  "StartWorkloadRequest.labels",
  "StartWorkloadRequest.workload_id",
  "StartWorkloadRequest.capabilities",
  "StartWorkloadRequest.additional_properties",
  "StopWorkloadRequest.workload_id",
  "RemoveWorkloadRequest.workload_id",
  "InspectWorkloadRequest.workload_id",
  "GetWorkloadLabelsRequest.workload_id",
  "FindWorkloadsByLabelsRequest.labels",
  "ListWorkloadsByVolumeRequest.volume_name",
  "RemoveVolumeRequest.volume_name",
  "TouchWorkloadRequest.workload_id",
  "PutArchiveRequest.workload_id",
  "PutArchiveRequest.path",
  "StreamWorkloadLogsRequest.workload_id",
  "StreamWorkloadLogsRequest.container_name",
  "EventFilter.key",
  "EventFilter.values",
  "ExecStartRequest.request_id",
  "ExecStartRequest.target_id",
  "ExecOptions.workdir",
  "CancelExecutionRequest.execution_id",
];

/** `Message.field` of all fields of requests that hold texts or bytes. */
function textFields(): string[] {
  const seen = new Set<DescMessage>();
  const fields: string[] = [];
  const walk = (message: DescMessage): void => {
    if (seen.has(message) || message.typeName.startsWith("google.")) return;
    seen.add(message);
    for (const field of message.fields) {
      if (field.message !== undefined) walk(field.message);
      const isText = field.scalar === ScalarType.STRING || field.scalar === ScalarType.BYTES;
      if (isText || field.fieldKind === "map") fields.push(`${message.name}.${field.name}`);
    }
  };
  for (const { input } of RunnerService.methods) walk(input);
  return fields;
}

test("every field of the API that can hold a text is known to be secret or not", () => {
  expect(textFields().toSorted()).toEqual([...SECRET, ...PUBLIC].toSorted());
});

/** Unlike anything else, and telling by itself where it came from. */
const MARK = `canary${freshId().slice(0, 8)}`;
const canary = (field: (typeof SECRET)[number] | "bearer" | "collector"): string =>
  `${MARK}-${field.replace(/[._]/g, "-")}`;
const bytesOf = (text: string) => new TextEncoder().encode(text);

let backend: Backend;
let gate: Gate;
let collector: Collector;
let runner: TestRunner;
beforeAll(async () => {
  backend = await startBackend();
  gate = await Gate.over(backend.access);
  gate.token = canary("bearer");
  collector = await Collector.start();
  const credentials = async () => ({ headers: { authorization: `Bearer ${canary("bearer")}` }, tls: {} });
  runner = await startRunner({
    backend,
    access: () => ({ ...gate.access, credentials }),
    env: {
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_EXPORTER_OTLP_HEADERS: `authorization=${canary("collector")}`,
    },
  });
});
afterAll(async () => {
  gate.fault = () => undefined;
  gate.refusals = [];
  for (const workloadId of runner.ledger.workloads)
    await runner.client.removeWorkload({ workloadId, force: true }).catch(() => undefined); // most never came to be
  await runner[Symbol.asyncDispose]();
  await collector[Symbol.asyncDispose]();
  await gate[Symbol.asyncDispose]();
  await backend[Symbol.asyncDispose]();
});

const secretStart = (workloadId: string) => ({
  workloadId,
  main: idling({
    env: [{ name: "TOKEN", value: canary("EnvVar.value") }],
    inlineFileMounts: [{ path: "/tmp/canary/file" }],
  }),
  initContainers: [
    { image: "alpine:3.19", name: "first", entrypoint: "/bin/sh", cmd: ["-c", `true ${canary("ContainerSpec.cmd")}`] },
  ],
  inlineFiles: { "/tmp/canary/file": bytesOf(canary("StartWorkloadRequest.inline_files")) },
  imagePullCredentials: [
    {
      registry: "r.test",
      username: canary("ImagePullCredential.username"),
      password: canary("ImagePullCredential.password"),
    },
  ],
});

/** A start, executions and an upload with everything that is secret in them; the errors that callers were told. */
async function work(id: string, target: string): Promise<string> {
  const { client, ledger } = runner;
  const told: unknown[] = [];
  const attempt = (call: Promise<unknown>) =>
    call.catch((error: unknown) => told.push(ConnectError.from(error).message, ConnectError.from(error).metadata));
  const start = secretStart(ledger.workload(freshId()));
  await attempt(client.startWorkload({ ...start, additionalProperties: ledger.mark }));
  const entrypoint = `/no/such/${canary("ContainerSpec.entrypoint")}`;
  const refused = { ...start, workloadId: freshId(), main: { ...start.main, entrypoint, workingDir: "not/absolute" } };
  await attempt(client.startWorkload({ ...refused, dnsConfig: { nameservers: ["nonsense"], searches: [] } }));
  const env = [{ name: "TOKEN", value: canary("EnvVar.value") }];
  for (const command of [
    { commandArgv: ["no-such-program", canary("ExecStartRequest.command_argv")] },
    { commandArgv: [canary("ExecStartRequest.command_argv")] },
    { commandShell: `cat; ${canary("ExecStartRequest.command_shell")}` },
  ])
    await attempt(
      exec(
        client,
        { targetId: target, ...command, options: { env, timeoutMs: 5_000n } },
        canary("ExecStdin.data"),
      ).then(({ errors }) => told.push(errors.map(({ code, message }) => [code, message]))),
    );
  const tarPayload = tar([{ name: "a", data: bytesOf(canary("PutArchiveRequest.tar_payload")) }]);
  for (const [path, payload] of [
    ["/tmp", tarPayload],
    ["/no/such", tarPayload],
    ["/tmp", bytesOf(canary("PutArchiveRequest.tar_payload").repeat(100))],
  ] as const)
    await attempt(client.putArchive({ workloadId: id, path, tarPayload: payload }));
  return Bun.inspect(told);
}

const FAULTS: Record<string, Fault | undefined> = {
  none: undefined,
  "500 before": "error before",
  "500 after": "error after",
  "reset before": "reset before",
  "reset after": "reset after",
  "403": { answer: { status: 403, reason: "Forbidden", message: "no" } },
  "no JSON": { answer: { status: 200, body: "<html>hello</html>" } },
};

test.each(Object.keys(FAULTS))("nothing secret is told when the cluster has this fault: %s", async (name) => {
  const { containers, id } = await runner.start();
  await until("it runs", async () =>
    (await runner.client.inspectWorkload({ workloadId: id })).stateRunning ? true : undefined,
  );
  const fault = FAULTS[name];
  if (fault !== undefined) {
    const rule = { on: ["create", "delete", "patch", "get"], fault, times: Number.POSITIVE_INFINITY } as const;
    const [pods, secrets] = [scripted(rule), scripted({ ...rule, resource: "secrets" })];
    gate.fault = (request) => pods(request) ?? secrets(request);
    gate.refusals = [{ method: "GET", path: /\/exec$/, status: 500, message: "no" }];
  }
  const errors = await work(id, containers?.main ?? "");
  gate.fault = () => undefined;
  gate.refusals = [];
  const page = await (await fetch(`${runner.baseUrl}/metrics`)).text();
  expect(page).toContain("k8s_runner_rpc_handled_total");
  await until("the spans are there", () => collector.named("PutArchive").length > 0 || undefined);
  expect(runner.logText()).toContain("StartWorkload");
  for (const [where, text] of Object.entries({ errors, log: runner.logText(), metrics: page, spans: collector.text })) {
    expect([where, text.match(new RegExp(`.{0,80}${MARK}.{0,60}`))?.[0]]).toEqual([where, undefined]);
    for (const field of [...SECRET, "bearer", "collector"] as const)
      expect(text).not.toContain(Buffer.from(canary(field)).toString("base64").slice(0, 24));
  }
  // The canaries did go where they should.
  expect(collector.requests.at(-1)?.headers.authorization).toBe(canary("collector"));
  expect(gate.unauthorized).toBe(0);
});
