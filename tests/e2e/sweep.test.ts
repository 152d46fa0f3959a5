import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { freshId, script, sharedRunner } from "../support/runner.ts";
import { sweeping } from "../support/sweeping.ts";
import { until, untilGone, untilPhase } from "../support/wait.ts";

const runner = sharedRunner();

test("a start that died is removed with the claims it made; its Secrets are collected, and claims it found are kept", async () => {
  const { backend, ledger } = runner();
  const workloadId = freshId();
  const manager = { "app.kubernetes.io/managed-by": "k8s-runner" };
  const labels = { ...manager, "agyn.io/workload-id": workloadId };
  const dead = await ledger.foreignPod(`workload-${workloadId}`, {
    labels,
    spec: { schedulingGates: [{ name: "agyn.io/setup" }], containers: [{ name: "main", image: "alpine:3.19" }] },
  });
  const uid = dead.metadata?.uid ?? "";
  const [made, found] = [ledger.claimName("made"), ledger.claimName("found")];
  const createdFor = async (name: string, owner: string) => {
    await ledger.foreignClaim(name, manager);
    // Annotated afterwards by the admin, as the start's own POST would have.
    await backend.admin.claims.patch(name, { metadata: { annotations: { "agyn.io/created-for": owner } } });
  };
  await createdFor(made, uid);
  await createdFor(found, randomUUID());
  await backend.admin.secrets.create({
    apiVersion: "v1",
    kind: "Secret",
    metadata: {
      name: `workload-${workloadId}-pull`,
      labels,
      ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: `workload-${workloadId}`, uid }],
    },
  });
  await sweeping(runner().backend, { gatedMs: 100 }, async () => {
    await until("Pod, claim and Secret are gone", async () => {
      const left = [
        await ledger.podNamed(`workload-${workloadId}`),
        await runner().claim(made),
        (await runner().secrets(workloadId))[0],
      ];
      return left.every((each) => each === undefined) ? true : undefined;
    });
  });
  expect((await runner().claim(found))?.metadata?.deletionTimestamp).toBeUndefined();
  // The id is free again.
  await runner().start({ workloadId });
});

test("gates of others, and starts that are young, are left alone", async () => {
  const { ledger } = runner();
  const workloadIds = [freshId(), freshId()] as const;
  const labels = (workloadId: string) => ({
    "app.kubernetes.io/managed-by": "k8s-runner",
    "agyn.io/workload-id": workloadId,
  });
  const gated = (workloadId: string, gate: string) =>
    ledger.foreignPod(`workload-${workloadId}`, {
      labels: labels(workloadId),
      spec: { schedulingGates: [{ name: gate }], containers: [{ name: "main", image: "alpine:3.19" }] },
    });
  await gated(workloadIds[0], "example.com/other");
  await gated(workloadIds[1], "agyn.io/setup");
  const { id } = await runner().start({ main: script("true") });
  await untilPhase(runner().client, id, "succeeded");
  // A finished Pod that the same sweep removes shows that it has looked.
  await sweeping(runner().backend, { gatedMs: 60_000, finishedMs: 50 }, async () => {
    await untilGone(runner().client, id);
  });
  for (const workloadId of workloadIds) expect(await ledger.podNamed(`workload-${workloadId}`)).toBeDefined();
});
