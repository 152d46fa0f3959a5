import { describe, expect, test } from "bun:test";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Refusal } from "../support/gate.ts";
import { gatedRunner } from "../support/gated.ts";
import { Link } from "../support/link.ts";
import { logText } from "../support/logs.ts";
import { freshId, idling, script, startRunner } from "../support/runner.ts";
import { refusal, untilPhase, untilRunning } from "../support/wait.ts";

// What callers see when the API server refuses or fails: runner-api.md section 3 and the failures of single RPCs.
const { runner, gate, behind } = gatedRunner();

/** Runs with the API server refusing so. */
async function refusing<T>(refusals: Refusal[], work: () => Promise<T>): Promise<T> {
  gate().refusals = refusals;
  try {
    return await work();
  } finally {
    gate().refusals = [];
  }
}

describe("a refused write is told by its reason:", () => {
  test.each([
    [401, "Unauthorized", "Unauthenticated", "unauthenticated: no"],
    [403, "Forbidden", "PermissionDenied", "permission denied: no"],
    [409, "Conflict", "Aborted", "resource conflict: no"],
    [422, "Invalid", "InvalidArgument", "invalid kubernetes request: no"],
    [400, "BadRequest", "Internal", "kubernetes request failed: no"],
    [500, "InternalError", "Internal", "kubernetes request failed: no"],
    [503, "ServiceUnavailable", "Unavailable", "cluster_unreachable"],
  ])("%d %s is %s", async (status, reason, code, message) => {
    const workloadId = freshId();
    const refused = { method: "POST", path: /\/pods$/, status, reason, message: " no " };
    const start = () => refusal(behind().client.startWorkload({ workloadId, main: idling() }));
    expect(await refusing([refused], start)).toEqual({ code, message });
    expect(await runner().ledger.podNamed(`workload-${workloadId}`)).toBeUndefined();
    const logged = behind()
      .logLines()
      .findLast(({ msg }) => msg === "kubernetes api error");
    expect(logged).toMatchObject({ level: "error", rpc: "StartWorkload", workload_id: workloadId, error: "no" });
  });
});

test("Secrets that cannot be deleted are told in the log alone; the workload is stopped", async () => {
  const { id } = await runner().run({ imagePullCredentials: [{ registry: "r.test", username: "u", password: "p" }] });
  const refused = { method: "DELETE", path: /\/secrets\//, status: 403, reason: "Forbidden", message: "no" };
  await refusing([refused], () => behind().client.stopWorkload({ workloadId: id, timeoutSec: 1 }));
  expect(
    behind()
      .logLines()
      .findLast(({ msg }) => msg === "failed to delete pull secrets"),
  ).toMatchObject({
    level: "error",
    workload_id: id,
    errors: [`workload-${id}-pull: no`],
  });
});

test("a claim that cannot be deleted fails RemoveWorkload after the others were, with its cause in the log alone", async () => {
  const { ledger } = runner();
  const [kept, removed] = [ledger.claimName("kept"), ledger.claimName("removed")];
  const volumes = [kept, removed].map((persistentName, index) => ({
    name: `v${index}`,
    kind: VolumeKind.NAMED,
    persistentName,
  }));
  const { id } = await runner().run({ volumes });
  await untilRunning(behind().client, id);
  const refused = { method: "DELETE", path: new RegExp(`/${kept}$`), status: 403, reason: "Forbidden", message: "no" };
  const remove = () => refusal(behind().client.removeWorkload({ workloadId: id, force: true, removeVolumes: true }));
  expect(await refusing([refused], remove)).toEqual({ code: "Internal", message: "pvc_cleanup_failed" });
  expect((await runner().claim(kept))?.metadata?.deletionTimestamp).toBeUndefined();
  expect((await runner().claim(removed))?.metadata?.deletionTimestamp ?? "gone").toBeString();
  expect(
    behind()
      .logLines()
      .findLast(({ msg }) => msg === "failed to delete pvcs"),
  ).toMatchObject({
    errors: [`${kept}: no`],
  });
});

test("a start whose later steps are refused removes the Pod and the claims it made", async () => {
  const { ledger } = runner();
  const steps: Refusal[] = [
    { method: "POST", path: /\/persistentvolumeclaims$/, status: 403, reason: "Forbidden", message: "no" },
    { method: "POST", path: /\/secrets$/, status: 403, reason: "Forbidden", message: "no" },
    { method: "PATCH", path: /\/pods\//, status: 403, reason: "Forbidden", message: "no" },
  ];
  for (const refused of steps) {
    const workloadId = freshId();
    const claim = ledger.claimName(`undone-${workloadId.slice(0, 8)}`);
    const start = () =>
      refusal(
        behind().client.startWorkload({
          workloadId,
          main: idling(),
          volumes: [{ name: "data", kind: VolumeKind.NAMED, persistentName: claim }],
          imagePullCredentials: [{ registry: "r.test", username: "u", password: "p" }],
        }),
      );
    expect(await refusing([refused], start)).toEqual({ code: "PermissionDenied", message: "permission denied: no" });
    runner().ledger.workload(workloadId); // its Secrets are collected a moment later: the teardown waits for that
    expect(await ledger.podNamed(`workload-${workloadId}`)).toBeUndefined();
    expect((await runner().claim(claim))?.metadata?.deletionTimestamp ?? "gone").toBeString();
  }
});

test("an archive whose exec is refused is told apart from one that tar refuses", async () => {
  const { id } = await runner().run();
  await untilRunning(behind().client, id);
  const refused = { method: "GET", path: /\/exec$/, status: 403, reason: "Forbidden", message: "no exec" };
  const put = () =>
    refusal(behind().client.putArchive({ workloadId: id, path: "/tmp", tarPayload: new Uint8Array(1024) }));
  expect(await refusing([refused], put)).toEqual({ code: "Internal", message: "create exec: no exec" });
});

test("a log read that is cut in the middle never ends as a success", async () => {
  // Under a mebibyte with what the kubelet writes before each line: after a rotation it would tell only the newest file.
  const { id } = await runner().start({ main: script("yes 0123456789012345678901234567890123456789 | head -n 10000") });
  await untilPhase(runner().client, id, "succeeded");
  await using link = await Link.to(runner().backend.access.server);
  await using cut = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  await untilPhase(cut.client, id, "succeeded");
  link.cutAfter(300_000);
  const read = logText(cut.client, { workloadId: id, containerName: "main" });
  expect(await refusal(read)).toEqual({ code: "Internal", message: "logs_stream_error" });
});
