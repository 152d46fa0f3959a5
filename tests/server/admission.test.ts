import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { until } from "../support/wait.ts";
import { bidiTransports, envelope, http2Session, SERVICE, startTestServer, stdin, tcp, transports } from "./harness.ts";

/** A stream that is open until it is aborted. */
function opened(client: ReturnType<typeof createClient<typeof RunnerService>>, rpc: "exec" | "streamWorkloadLogs") {
  const end = new AbortController();
  const answers =
    rpc === "exec"
      ? client.exec(
          (async function* () {
            yield stdin("x");
            await once(end.signal, "abort");
          })(),
          { signal: end.signal },
        )
      : client.streamWorkloadLogs({ workloadId: "x" }, { signal: end.signal });
  const iterator = answers[Symbol.asyncIterator]();
  return { first: iterator.next().then(() => undefined, ConnectError.from), end: () => end.abort() };
}

describe.each(bidiTransports)("over %s", (_name, transportFor) => {
  test.each([
    ["exec", "executions", "too_many_executions"],
    ["streamWorkloadLogs", "logStreams", "too_many_log_streams"],
  ] as const)(
    "%s above the limit is RESOURCE_EXHAUSTED, in all and of one connection; others go on",
    async (rpc, name, token) => {
      await using server = await startTestServer({ limits: { [name]: 3, [`${name}PerConnection`]: 2 } });
      const [mine, other] = [server, server].map(({ baseUrl }) => createClient(RunnerService, transportFor(baseUrl)));
      if (mine === undefined || other === undefined) throw new Error("two were made");
      const before = [opened(mine, rpc), opened(mine, rpc)];
      for (const { first } of before) expect(await first).toBeUndefined();
      expect(await opened(mine, rpc).first).toMatchObject({
        code: Code.ResourceExhausted,
        rawMessage: `${token}_on_connection`,
      });
      const third = opened(other, rpc);
      expect(await third.first).toBeUndefined();
      expect(await opened(other, rpc).first).toMatchObject({ code: Code.ResourceExhausted, rawMessage: token });
      expect(server.usage.refused()).toMatchObject({ [name]: 1, [`${name}PerConnection`]: 1 });
      expect(server.usage.current()[name]).toBe(3);
      expect((await mine.ready({})).status).toBe("ok");
      third.end();
      await until("it is given back", () => server.usage.current()[name] === 2 || undefined);
      // Each place that is given back is there again, also of those of the connection.
      for (let round = 0; round < 3; round++) {
        const next = opened(other, rpc);
        expect(await next.first).toBeUndefined();
        next.end();
        await until("it is given back", () => server.usage.current()[name] === 2 || undefined);
      }
      for (const { end } of before) end();
      await until("all are given back", () => server.usage.current()[name] === 0 || undefined);
    },
  );
});

describe.each(Object.entries(transports))("over %s", (_name, transportFor) => {
  test("metadata above the limit is RESOURCE_EXHAUSTED, and the client can go on", async () => {
    await using server = await startTestServer({ limits: { metadataBytes: 4_096 } });
    const client = createClient(RunnerService, transportFor(server.baseUrl));
    const call = (bytes: number) => client.ready({}, { headers: { "x-much": "a".repeat(bytes) } });
    expect((await call(2_000)).status).toBe("ok");
    const error = await call(5_000).catch(ConnectError.from);
    expect(error).toMatchObject({ code: Code.ResourceExhausted });
    if (error instanceof ConnectError)
      expect(error.rawMessage).toMatch(/^metadata of \d+ bytes is larger than the limit of 4096$/);
    expect(server.usage.refused().metadataBytes).toBe(1);
    expect((await client.ready({})).status).toBe("ok");
  });
});

test("StreamEvents above the limit is RESOURCE_EXHAUSTED", async () => {
  await using server = await startTestServer({ limits: { eventStreams: 0 } });
  const client = createClient(RunnerService, createGrpcTransport({ baseUrl: server.baseUrl }));
  const first = client.streamEvents({})[Symbol.asyncIterator]().next();
  expect(await first.catch(ConnectError.from)).toMatchObject({
    code: Code.ResourceExhausted,
    rawMessage: "too_many_event_streams",
  });
  expect(server.usage.refused().eventStreams).toBe(1);
});

describe("a request that does not arrive whole", () => {
  const SOON = { requestMs: 40 };
  const head = { ":method": "POST", ":path": `/${SERVICE}/PutArchive`, te: "trailers" };

  test.each([
    ["gRPC", "application/grpc", (fields: Record<string, string>) => fields["grpc-status"], "4"],
    ["Connect", "application/proto", (fields: Record<string, string>) => fields[":status"], "504"],
  ])("is DEADLINE_EXCEEDED over %s, and other calls of its connection go on", async (name, type, statusIn, status) => {
    await using server = await startTestServer({ limits: SOON });
    using session = await http2Session(server.baseUrl);
    const stream = session.request({ ...head, "content-type": type });
    stream.write(envelope(Buffer.alloc(10)).subarray(0, 9));
    const [fields] = await once(stream, "response");
    expect(String(statusIn(fields))).toBe(status);
    if (name === "gRPC") expect(decodeURIComponent(fields["grpc-message"])).toBe("the request did not arrive in time");
    expect(server.usage.refused().requestMs).toBe(1);
    const client = createClient(RunnerService, createGrpcTransport({ baseUrl: server.baseUrl }));
    expect((await client.ready({})).status).toBe("ok");
  });

  test("is DEADLINE_EXCEEDED over HTTP/1.1", async () => {
    await using server = await startTestServer({ limits: SOON });
    using socket = await tcp(server.port);
    socket.write(
      `POST /${SERVICE}/Ready HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{`,
    );
    const [answer] = await once(socket, "data");
    expect(String(answer)).toStartWith("HTTP/1.1 504 ");
  });

  test("is no stream that is quiet after its first message", async () => {
    await using server = await startTestServer({ limits: SOON });
    const client = createClient(RunnerService, createGrpcTransport({ baseUrl: server.baseUrl }));
    const exec = opened(client, "exec");
    expect(await exec.first).toBeUndefined();
    // Another call that is late tells that the time of the first is over.
    using session = await http2Session(server.baseUrl);
    const late = session.request({ ...head, "content-type": "application/grpc" });
    const [fields] = await once(late, "response");
    expect(fields["grpc-status"]).toBe("4");
    expect(server.usage.current().executions).toBe(1);
    exec.end();
  });
});
