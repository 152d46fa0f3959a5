/** A client as a process of its own: runs `sleep 1000` in the target and waits. Usage: exec-client.ts BASE_URL TARGET_ID */
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { ExecSession } from "./exec.ts";

const [baseUrl = "", targetId = ""] = process.argv.slice(2);
const client = createClient(RunnerService, createGrpcTransport({ baseUrl }));
await using session = new ExecSession(client, { targetId, commandArgv: ["sh", "-c", "echo up; sleep 1000"] });
await session.untilOutput("up");
console.log("up");
await session.result();
