import { expect, setDefaultTimeout, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { Link } from "../support/link.ts";
import { logChunks } from "../support/logs.ts";
import { script, sharedRunner, startRunner } from "../support/runner.ts";

/*
 * A log that is followed over a connection that is reset every two seconds. On a cluster that rotates logs (at 1 MiB on the
 * one of CI) lines may be lost to everybody, which must be told. E2E_TRIES: how often (default 5).
 */
const runner = sharedRunner();
setDefaultTimeout(3_600_000);
const TRIES = Number(process.env.E2E_TRIES ?? 5);
const RESET_EVERY_MS = 2_000;

/** Follows `lines` numbered lines to the end; how it ended, and that what came is the log's beginning, line by line. */
async function followed(lines: number, pauseEvery: number) {
  const link = await Link.to(runner().backend.access.server);
  await using _ = link;
  await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  const pause = `[ $((i % ${pauseEvery})) = 0 ] && sleep 0.5`;
  const { id } = await runner().run({
    main: script(`i=0; while [ $i -lt ${lines} ]; do echo "line $i"; i=$((i + 1)); ${pause}; done; exit 0`),
  });
  let resets = 0;
  const timer = setInterval(() => {
    resets += 1;
    link.cut();
  }, RESET_EVERY_MS);
  const chunks: Uint8Array[] = [];
  let end = "OK";
  try {
    const request = { workloadId: id, containerName: "main", follow: true };
    for await (const data of logChunks(behind.client, request)) chunks.push(data);
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error);
    end = `${Code[code]} ${rawMessage}`;
  } finally {
    clearInterval(timer);
  }
  const said = Buffer.concat(chunks).toString();
  const count = said.split("\n").length - 1;
  const exact = said === Array.from({ length: count }, (_, index) => `line ${index}\n`).join("");
  await runner().client.removeWorkload({ workloadId: id, force: true });
  return { end, count, exact, resets };
}

test("without rotation there is no gap and no repeat", async () => {
  for (let index = 0; index < TRIES; index++) {
    const { resets, ...rest } = await followed(15_000, 1_000);
    expect(rest).toEqual({ end: "OK", count: 15_000, exact: true });
    expect(resets).toBeGreaterThan(1);
  }
});

test("with rotation there is no repeat, and no gap that is not told", async () => {
  for (let index = 0; index < TRIES; index++) {
    const { end, count, exact, resets } = await followed(200_000, 5_000);
    console.log(`followed ${count} lines over ${resets} resets: ${end}`);
    expect({ exact, resets: resets > 1 }).toEqual({ exact: true, resets: true });
    if (end === "OK") expect(count).toBe(200_000);
    else expect(end).toContain("logs_gap");
  }
});
