import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";

/*
 * `honest.ts url calls everyMs`: so many Ready calls, one every so often whatever became of those before. Prints a line with
 * the first answer, and at the end JSON: how many were answered within a second, and the slowest in ms.
 */
const [, , baseUrl = "", calls = "", everyMs = ""] = process.argv;
const client = createClient(RunnerService, createGrpcTransport({ baseUrl }));
await client.ready({});
console.log("connected");
const startedAt = performance.now();
const times = await Promise.all(
  Array.from({ length: Number(calls) }, async (_, index) => {
    await Bun.sleep(startedAt + index * Number(everyMs) - performance.now());
    const sentAt = performance.now();
    const answer = await client.ready({}, { timeoutMs: 5_000 }).catch(() => undefined);
    return answer?.status === "ok" ? performance.now() - sentAt : Number.POSITIVE_INFINITY;
  }),
);
const inTime = times.filter((ms) => ms <= 1_000).length;
const sorted = times.toSorted((a, b) => a - b);
console.log(JSON.stringify({ inTime, p50Ms: sorted[Math.floor(times.length / 2)], slowestMs: sorted.at(-1) }));
process.exit(0);
