import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { create, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  type ContainerSpec,
  ContainerSpecSchema,
  type StartWorkloadRequest,
  StartWorkloadRequestSchema,
  StartWorkloadResponseSchema,
  VolumeKind,
  VolumeMountSchema,
  type VolumeSpec,
  VolumeSpecSchema,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { CALL_MS, connect } from "./connection.ts";
import { Failure } from "./failure.ts";
import { type Invocation, UsageError } from "./invocation.ts";
import { printJson } from "./json.ts";
import { print } from "./output.ts";
import { environmentOf, pairs } from "./values.ts";
import { untilRunning } from "./wait.ts";

/** With --wait, where --timeout does not say: an image may have to be pulled. */
const WAIT_MS = 300_000;

/** Codes of a call whose outcome is not known here. */
const UNKNOWN_OUTCOME: ReadonlySet<Code> = new Set([Code.Unavailable, Code.DeadlineExceeded, Code.Unknown]);

/** Starts a workload and prints its id; with --wait only then waits until it runs. */
export async function start(invocation: Invocation): Promise<number> {
  const request = invocation.has("file") ? requestOfFile(invocation) : requestOfFlags(invocation);
  const waits = invocation.on("wait");
  using connection = await connect(invocation, invocation.durationMs("timeout") ?? (waits ? WAIT_MS : CALL_MS));
  // Named here, not by the runner: so that a call that is cut short can still be followed up.
  request.workloadId ||= randomUUID();
  let response: Awaited<ReturnType<typeof connection.client.startWorkload>>;
  try {
    response = await connection.client.startWorkload(request, connection.limits());
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error);
    if (!UNKNOWN_OUTCOME.has(code)) throw error;
    const about = `workload ${request.workloadId} may have been started all the same, see inspect`;
    throw new ConnectError(`${rawMessage}; ${about}`, code, undefined, undefined, error);
  }
  if (invocation.on("json")) await printJson(StartWorkloadResponseSchema, response);
  else await print(`${response.id}\n`);
  if (waits) await untilRunning(response.id, connection);
  return 0;
}

/** What the flags and operands describe. Throws UsageError. */
function requestOfFlags(invocation: Invocation): StartWorkloadRequest {
  const [image, ...cmd] = invocation.operands;
  if (image === undefined) throw new UsageError("start needs <image>, or --file");
  const volumes = [
    ...invocation.texts("volume").map((text) => volumeOf("volume", text, VolumeKind.NAMED)),
    ...invocation.texts("scratch").map((text) => volumeOf("scratch", text, VolumeKind.EPHEMERAL)),
  ];
  const main: ContainerSpec = create(ContainerSpecSchema, {
    image,
    name: invocation.text("name") ?? "",
    cmd,
    entrypoint: invocation.text("entrypoint") ?? "",
    env: environmentOf(invocation),
    workingDir: invocation.text("workdir") ?? "",
    mounts: volumes.map(({ mount }) => mount),
    requiredCapabilities: [...invocation.texts("cap-add")],
  });
  return create(StartWorkloadRequestSchema, {
    main,
    volumes: volumes.map(({ volume }) => volume),
    labels: pairs(invocation, "label"),
    workloadId: invocation.text("id") ?? "",
    capabilities: invocation.on("docker") ? ["docker"] : [],
  });
}

/** `name:path` or `name:path:ro`. Throws UsageError. */
function volumeOf(flag: string, text: string, kind: VolumeKind) {
  const [name = "", mountPath = "", mode, ...rest] = text.split(":");
  const form = "is not name:path or name:path:ro";
  if (mode !== undefined && /^\d/.test(mode))
    throw new UsageError(
      `--${flag}: "${text}" ${form}; a size cannot be asked for, the runner's PVC_STORAGE_SIZE decides`,
    );
  if (name === "" || mountPath === "" || (mode !== undefined && mode !== "ro") || rest.length > 0)
    throw new UsageError(`--${flag}: "${text}" ${form}`);
  const volume: VolumeSpec = create(VolumeSpecSchema, { name, kind });
  return { volume, mount: create(VolumeMountSchema, { volume: name, mountPath, readOnly: mode === "ro" }) };
}

/** A StartWorkloadRequest in protobuf's JSON, or the same as YAML. Throws UsageError where flags contradict it. */
function requestOfFile(invocation: Invocation): StartWorkloadRequest {
  const path = invocation.text("file") ?? "";
  const contradicting = DESCRIBING.filter((name) => invocation.has(name)).map((name) => `--${name}`);
  if (invocation.operands.length > 0) contradicting.unshift("an image");
  if (contradicting.length > 0)
    throw new UsageError(`--file tells it all: it goes without ${contradicting.join(", ")}`);
  let text: string;
  try {
    text = readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (error) {
    throw new Failure(`--file: ${error instanceof Error ? error.message : String(error)}`);
  }
  try {
    // YAML holds JSON. What it parses to is plain data, and fromJson checks all of it.
    return fromJson(StartWorkloadRequestSchema, Bun.YAML.parse(text) as JsonValue);
  } catch (error) {
    throw new Failure(`--file: ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The flags that describe a workload. */
const DESCRIBING = [
  "name",
  "env",
  "label",
  "workdir",
  "entrypoint",
  "volume",
  "scratch",
  "docker",
  "cap-add",
  "id",
] as const;
