import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { statusOf } from "../../src/gateway/state.ts";
import { ContainerStatus } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Pod } from "../../src/kube/types.ts";
import { freshId, idling, sharedRunner, startRunner } from "../support/runner.ts";
import { until, untilInspected } from "../support/wait.ts";

/* Reasons to wait that will not pass by themselves: the platform reads them from InspectWorkload (ruling 21). */
const runner = sharedRunner();

/** What a cache may lag behind the cluster. */
const WITHIN_MS = 2_000;

function templateFile(text: string): string {
  const path = join(mkdtempSync(join(tmpdir(), "waiting-")), "template.yaml");
  writeFileSync(path, text);
  return path;
}

const NEVER_PULL = "spec: {containers: [{imagePullPolicy: Never}]}\n";
const NOT_ROOT = "spec: {securityContext: {runAsNonRoot: true}}\n";

test.each([
  ["InvalidImageName", "Not An Image", "{}\n"],
  ["ErrImageNeverPull", "registry.invalid/missing:1", NEVER_PULL],
  ["CreateContainerConfigError", "alpine:3.19", NOT_ROOT],
])("%s is told within 2 s, and nothing of it is reported", async (reason, image, template) => {
  const { backend, ledger } = runner();
  await using it = await startRunner({ backend, env: { WORKLOAD_POD_TEMPLATE: templateFile(template) } });
  const { id } = await it.start({ workloadId: ledger.workload(freshId()), main: idling({ image }) });
  const waitsFor = (pod: Pod) => pod.status?.containerStatuses?.some(({ state }) => state?.waiting?.reason === reason);
  const pod = await until("the kubelet says so", async () => {
    const seen = await it.pod(id);
    return waitsFor(seen) ? seen : undefined;
  });
  const at = performance.now();
  const { containers } = await untilInspected(it.client, id, `waits for ${reason}`, (inspection) =>
    inspection.containers.some((container) => container.reason === reason),
  );
  expect(performance.now() - at).toBeLessThan(WITHIN_MS);
  expect(containers).toMatchObject([{ status: ContainerStatus.WAITING, reason }]);
  expect(containers[0]?.message).not.toBe("");
  expect(statusOf(pod)).toBeUndefined();
});
