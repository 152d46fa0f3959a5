import { expect, test } from "bun:test";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RunnerService } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { startTestServer } from "../server/harness.ts";
import { until } from "../support/wait.ts";
import { attacks } from "./attacks.ts";

/* Each attack in its small form; run.sh has the full ones, and looks at time and memory. */

test.each(Object.entries(attacks))(
  "%s: an honest client is answered before, during and after; nothing is left",
  async (_name, { small, run }) => {
    await using server = await startTestServer({ limits: { headerMs: 1_500 } });
    const { usage, baseUrl, port } = server;
    const client = createClient(RunnerService, createGrpcTransport({ baseUrl }));
    const isReady = async () => expect((await client.ready({})).status).toBe("ok");
    await isReady();
    let isOver = false;
    const attack = run({ host: "127.0.0.1", port }, small).finally(() => {
      isOver = true;
    });
    while (!isOver) await isReady();
    await attack;
    await isReady();
    await until(
      "all is given back",
      () => (usage.current().connections === 1 && usage.current().streams === 0) || undefined,
    );
    expect(Object.hasOwn({}, "polluted") || "polluted" in {}).toBe(false);
  },
  30_000,
);
