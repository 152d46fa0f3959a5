import { expect, test } from "bun:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { freshId, idling, script, sharedRunner } from "../support/runner.ts";

const runner = sharedRunner();

/** As curl does it: a POST of JSON over HTTP/1.1. */
async function post(method: string, body: object): Promise<{ status: number; json: Record<string, unknown> }> {
  const response = await fetch(`${runner().baseUrl}/agynio.api.runner.v1.RunnerService/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const json: Record<string, unknown> = JSON.parse(await response.text());
  return { status: response.status, json };
}

test("Connect with JSON over HTTP/1.1 starts, inspects and removes a workload", async () => {
  const workloadId = runner().ledger.workload(freshId());
  const { json: started } = await post("StartWorkload", { workloadId, main: idling() });
  expect(started).toMatchObject({ id: workloadId, status: "WORKLOAD_STATUS_STARTING" });
  expect((await post("InspectWorkload", { workloadId })).json).toMatchObject({
    id: workloadId,
    configImage: "alpine:3.19",
  });
  expect(await post("RemoveWorkload", { workloadId, force: true })).toEqual({ status: 200, json: {} });
});

test("a failure keeps its code and message in Connect's JSON", async () => {
  expect(await post("StartWorkload", {})).toEqual({
    status: 400,
    json: { code: "invalid_argument", message: "main_container_required" },
  });
  expect(await post("InspectWorkload", { workloadId: "missing-workload" })).toEqual({
    status: 404,
    json: { code: "not_found", message: 'resource not found: pods "workload-missing-workload" not found' },
  });
  expect((await post("NoSuchMethod", {})).json).toMatchObject({ code: "unimplemented" });
});

test("gRPC-Web does unary calls and follows a log", async () => {
  const client = createClient(RunnerService, createGrpcWebTransport({ baseUrl: runner().baseUrl }));
  const { id } = await runner().start({ main: script("echo one; sleep 0.5; echo two") });
  let log = "";
  for await (const { event } of client.streamWorkloadLogs({ workloadId: id, containerName: "main", follow: true }))
    if (event.case === "chunk") log += Buffer.from(event.value.data).toString();
  expect(log).toBe("one\ntwo\n");
  expect((await client.inspectWorkload({ workloadId: id })).id).toBe(id);
  const failure = await client.inspectWorkload({ workloadId: "" }).then(
    () => undefined,
    (error: unknown) => ConnectError.from(error),
  );
  expect({ code: failure?.code, message: failure?.rawMessage }).toEqual({
    code: Code.InvalidArgument,
    message: "workload_id_required",
  });
});
