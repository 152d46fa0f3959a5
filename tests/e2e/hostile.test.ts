import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Claim, Pod, Secret } from "../../src/kube/types.ts";
import { exec } from "../support/exec.ts";
import { logText } from "../support/logs.ts";
import { freshId, idling, sharedRunner } from "../support/runner.ts";

const runner = sharedRunner();
const REQUESTS = 200;

/**
 * How an object looks that nobody has touched. What the cluster's own hand does is not looked at: a kubelet writes a
 * Pod's status, and the volume controller notes on a claim when it is bound.
 */
const identity = (object: Pod | Claim | Secret | undefined) => {
  const { uid, labels, deletionTimestamp, generation } = object?.metadata ?? {};
  const annotations = Object.fromEntries(
    Object.entries(object?.metadata?.annotations ?? {}).filter(([key]) => !key.startsWith("pv.kubernetes.io/")),
  );
  return { uid, labels, annotations, deletionTimestamp, generation };
};

test(`${REQUESTS} hostile requests over all RPCs leave what is not ours as it was`, async () => {
  const { client, ledger } = runner();
  const tag = freshId();
  const pods = [`workload-${freshId()}`, `foreign-${tag}`];
  const claims = [ledger.claimName("hostile-a"), ledger.claimName("hostile-b")];
  const secrets = [`workload-${tag}-pull`, `foreign-${tag}`];
  for (const name of pods)
    await ledger.foreignPod(name, { labels: { tag }, annotations: { "agyn.io/pvc-names": claims.join() } });
  for (const name of claims) await ledger.foreignClaim(name, { tag });
  for (const name of secrets) await ledger.foreignSecret(name, { tag });
  const look = async () => [
    ...(await Promise.all(pods.map(async (name) => identity(await ledger.podNamed(name))))),
    ...(await Promise.all(claims.map(async (name) => identity(await ledger.claimNamed(name))))),
    ...(await Promise.all(secrets.map(async (name) => identity(await ledger.secretNamed(name))))),
  ];
  const before = await look();
  expect(before.every(({ uid }) => uid !== undefined)).toBe(true);

  const names = [...pods, ...claims, ...secrets, ...pods.map((name) => name.replace("workload-", ""))];
  const twisted = fc.oneof(
    fc.constantFrom(...names),
    fc
      .constantFrom(...names)
      .chain((name) =>
        fc.constantFrom(
          `../${name}`,
          `x/../../pods/${name}`,
          `${name}?a=b`,
          `${name}#`,
          `${name}/`,
          `./${name}`,
          `%2e%2e/${name}`,
          `${name}\0`,
          name.toUpperCase(),
          ` ${name}`,
        ),
      ),
    fc.constantFrom("../../secrets/x", "..", ".", "/", "", "%2e%2e", "a".repeat(300), "é", "__proto__", "constructor"),
  );
  const calls: ((name: string) => Promise<unknown>)[] = [
    (name) => client.inspectWorkload({ workloadId: name }),
    (name) => client.getWorkloadLabels({ workloadId: name }),
    (name) => client.touchWorkload({ workloadId: name }),
    (name) => client.stopWorkload({ workloadId: name, timeoutSec: 2 ** 32 - 1 }),
    (name) => client.removeWorkload({ workloadId: name, force: true, removeVolumes: true }),
    (name) => client.removeVolume({ volumeName: name, force: true }),
    (name) => client.listWorkloadsByVolume({ volumeName: name }),
    (name) => client.findWorkloadsByLabels({ labels: { [name]: name, tag }, all: true }),
    (name) => client.putArchive({ workloadId: name, path: "/tmp", tarPayload: new Uint8Array(1024) }),
    (name) => logText(client, { workloadId: name, containerName: "main" }),
    (name) => exec(client, { targetId: name, commandArgv: ["rm", "-rf", "/"] }),
    (name) => client.startWorkload({ workloadId: name, main: idling(), additionalProperties: ledger.mark }),
    (name) =>
      client.startWorkload({
        main: idling({ name, mounts: [{ volume: "v", mountPath: name }] }),
        volumes: [{ name: "v", kind: VolumeKind.NAMED, persistentName: name }],
        imagePullCredentials: [{ registry: name, username: name, password: name }],
        additionalProperties: ledger.mark,
      }),
  ];
  const hostile = fc.sample(fc.tuple(fc.nat(calls.length - 1), twisted), { numRuns: REQUESTS, seed: 7 });
  const odd: unknown[] = [];
  for (const [index, name] of hostile) {
    const answer = await calls[index]?.(name).catch((error: unknown) => error);
    // A refusal is one of ours: never a fault of the server's own.
    if (answer instanceof Error && (!(answer instanceof ConnectError) || answer.rawMessage === "internal error"))
      odd.push([index, name, answer]);
  }
  expect(odd).toEqual([]);
  expect(await look()).toEqual(before);
  expect(writesTo(names)).toEqual([]);
}, 60_000);

/** The writes of the runner to any of these, from the audit log of a real cluster (E2E_AUDIT_LOG); none without one. */
function writesTo(names: readonly string[]): string[] {
  const path = process.env.E2E_AUDIT_LOG;
  if (path === undefined || runner().backend.kind === "embedded") return [];
  return readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line.includes("system:serviceaccount") && /"verb":"(create|update|patch|delete)"/.test(line))
    .map((line) => JSON.parse(line))
    .filter(({ objectRef, responseStatus }) => names.includes(objectRef?.name) && responseStatus?.code < 300)
    .map(({ verb, requestURI }) => `${verb} ${requestURI}`);
}
