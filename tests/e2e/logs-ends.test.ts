import { expect, test } from "bun:test";
import { logChunks, logText } from "../support/logs.ts";
import { script, sharedRunner } from "../support/runner.ts";
import { refusal, untilPhase } from "../support/wait.ts";

const runner = sharedRunner();

test("a workload that is stopped while its log is followed: all it wrote comes, then OK or pod_deleted", async () => {
  const { id } = await runner().run({
    main: script("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"),
  });
  let log = "";
  const chunks = logChunks(runner().client, { workloadId: id, containerName: "main", follow: true });
  const read = async () => {
    for await (const data of chunks) {
      if (log === "") await runner().client.stopWorkload({ workloadId: id, timeoutSec: 10 });
      log += Buffer.from(data).toString();
    }
    return "OK";
  };
  const end = await read().catch((error: unknown) => refusal(Promise.reject(error)));
  // Whether the Pod is still there when its container has ended is the cluster's business.
  expect(["OK", { code: "Unavailable", message: "pod_deleted" }]).toContainEqual(end);
  expect(log).toBe("up\nbye\n");
});

// The embedded cluster begins a timestamp anew every 16 KiB of a line; a kubelet joins those parts again.
const real = Boolean(process.env.E2E_KUBECONFIG);
test.if(real)("a line of any length is told, followed or not (real cluster only)", async () => {
  const { id } = await runner().start({
    main: script("head -c 500000 /dev/zero | tr '\\0' x; echo; echo after; head -c 300000 /dev/zero | tr '\\0' y"),
  });
  const expected = `${"x".repeat(500_000)}\nafter\n${"y".repeat(300_000)}`;
  const text = (follow: boolean) => logText(runner().client, { workloadId: id, containerName: "main", follow });
  expect((await text(true)) === expected).toBe(true);
  await untilPhase(runner().client, id, "succeeded");
  expect((await text(true)) === expected).toBe(true);
  expect((await text(false)) === expected).toBe(true);
});
