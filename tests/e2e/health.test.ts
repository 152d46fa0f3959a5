import { describe, expect, test } from "bun:test";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { Health, HealthCheckResponse_ServingStatus as Status } from "../../src/gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../src/gen/grpc/reflection/v1/reflection_pb.ts";
import { Gate } from "../support/gate.ts";
import { sharedRunner, startRunner, type TestRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";

const runner = sharedRunner();
const transportTo = ({ baseUrl }: TestRunner) => createGrpcTransport({ baseUrl });
const page = async ({ baseUrl }: TestRunner, path: string) => {
  const response = await fetch(baseUrl + path);
  return [response.status, await response.text()];
};

test("a runner that has synced is healthy, as gRPC and plain HTTP tell", async () => {
  const client = createClient(Health, transportTo(runner()));
  for (const service of ["", RunnerService.typeName]) {
    const watch = client.watch({ service })[Symbol.asyncIterator]();
    let status = (await watch.next()).value?.status;
    if (status === Status.NOT_SERVING) status = (await watch.next()).value?.status; // its first list was under way
    expect(status).toBe(Status.SERVING);
    expect((await client.check({ service })).status).toBe(Status.SERVING);
    await watch.return?.();
  }
  expect(await page(runner(), "/readyz")).toEqual([200, "ok\n"]);
  expect(await page(runner(), "/healthz")).toEqual([200, "ok\n"]);
});

test("reflection lists the runner, health and itself", async () => {
  const client = createClient(ServerReflection, transportTo(runner()));
  const answers = client.serverReflectionInfo(
    (async function* () {
      yield { messageRequest: { case: "listServices" as const, value: "" } };
    })(),
  );
  const [answer] = await Array.fromAsync(answers);
  expect(answer?.messageResponse.value).toMatchObject({
    service: [
      { name: RunnerService.typeName },
      { name: "grpc.health.v1.Health" },
      { name: "grpc.reflection.v1.ServerReflection" },
      { name: "grpc.reflection.v1alpha.ServerReflection" },
    ],
  });
});

describe("a cluster that is away", () => {
  test("makes the runner not ready, never dead, and Ready answers as ever", async () => {
    await using gate = await Gate.over(runner().backend.access);
    gate.fault = () => "reset before";
    await using it = await startRunner({ backend: runner().backend, access: () => gate.access });
    const client = createClient(Health, transportTo(it));
    expect((await client.check({})).status).toBe(Status.NOT_SERVING);
    expect(await page(it, "/readyz")).toEqual([503, "the cache has not synced\n"]);
    expect(await page(it, "/healthz")).toEqual([200, "ok\n"]);
    expect((await it.client.ready({})).status).toBe("ok");
    gate.fault = () => undefined;
    const watch = client.watch({})[Symbol.asyncIterator]();
    await until("it is told to serve", async () =>
      (await watch.next()).value?.status === Status.SERVING ? true : undefined,
    );
    await watch.return?.();
    expect(await page(it, "/readyz")).toEqual([200, "ok\n"]);
  });
});
