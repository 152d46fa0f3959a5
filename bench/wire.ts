import { rpcHandler } from "../src/adapter.ts";
import { RunnerService } from "../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { grpcHandler } from "../src/grpc/handler.ts";
import { Usage } from "../src/limits.ts";
import { Listener } from "../src/listener.ts";
import { createLog } from "../src/log.ts";
import { observe } from "../src/runner/observe.ts";

/**
 * The runner's wire with handlers that do nothing: `own` as it ships, `connect-node` with gRPC by Connect's own handlers.
 * Ready answers; InspectWorkload answers what a running workload looks like; StreamWorkloadLogs sends as many chunks of
 * 32 KiB as its `tail_lines` says; Exec takes stdin and answers once with how many bytes it was.
 * Serves h2c on a free port of the loopback, prints `{"addr":"host:port"}` and ends on SIGTERM.
 */
const CHUNK = new Uint8Array(32 * 1024).fill(120);

const log = createLog({ level: "info" });
const options = {
  log,
  usage: new Usage(),
  maxMessageBytes: 32 * 1024 * 1024,
  interceptors: [observe(log)],
  shutdownSignal: new AbortController().signal,
  closed: () => undefined,
  routes: (router: Parameters<Parameters<typeof rpcHandler>[0]["routes"]>[0]) =>
    router.service(RunnerService, {
      ready: () => ({ status: "ok" }),
      inspectWorkload: ({ workloadId }) => ({
        id: workloadId,
        stateRunning: true,
        stateStatus: "running",
        configImage: "alpine:3.19",
        configLabels: { "agyn.dev/managed-by": "agyn-runner", "app.kubernetes.io/managed-by": "agyn-runner" },
        mounts: [{ source: "workspace-1", destination: "/workspace" }],
      }),
      async *streamWorkloadLogs({ tailLines }) {
        for (let count = 0; count < tailLines; count++)
          // A copy, as what comes from a cluster is never the same twice.
          yield { event: { case: "chunk", value: { data: CHUNK.slice() } } };
      },
      async *exec(requests) {
        let bytes = 0;
        for await (const { msg } of requests) if (msg.case === "stdin") bytes += msg.value.data.length;
        yield { event: { case: "exit", value: { exitCode: bytes } } };
      },
    }),
};
const handle = rpcHandler(options);
const isOwn = process.argv[2] === "own";
const listener = new Listener(isOwn ? { handle, handleStream: grpcHandler(options), log } : { handle, log });
const { host, port } = await listener.listen("127.0.0.1:0");
console.error(JSON.stringify({ addr: `${host}:${port}` }));
process.on("SIGTERM", () => process.exit(0));
