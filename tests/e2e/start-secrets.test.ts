import { describe, expect, test } from "bun:test";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { logText } from "../support/logs.ts";
import { freshId, idling, script, sharedRunner } from "../support/runner.ts";
import { refusal, until } from "../support/wait.ts";

const runner = sharedRunner();
const credential = (registry: string) => ({ registry: ` ${registry} `, username: " user ", password: " pässword\n" });
const decoded = (data: string | undefined) => Buffer.from(data ?? "", "base64").toString();

describe("pull credentials", () => {
  test("become a Secret each, owned by the Pod, and go with it", async () => {
    const registries = ["one.test", "two.test:5000"];
    const { id } = await runner().start({ imagePullCredentials: registries.map(credential) });
    const pod = await runner().pod(id);
    const names = [`workload-${id}-pull-0`, `workload-${id}-pull-1`];
    expect(pod.spec?.imagePullSecrets).toEqual(names.map((name) => ({ name })));
    expect(pod.spec?.schedulingGates ?? []).toEqual([]);
    expect(pod.metadata?.annotations?.["agyn.io/pull-secret-names"]).toBe(names.join(","));
    const secrets = (await runner().secrets(id)).toSorted((a, b) =>
      (a.metadata?.name ?? "").localeCompare(b.metadata?.name ?? ""),
    );
    expect(secrets.map(({ metadata }) => metadata?.name)).toEqual(names);
    for (const [index, { type, data, metadata }] of secrets.entries()) {
      expect(type).toBe("kubernetes.io/dockerconfigjson");
      expect(JSON.parse(decoded(data?.[".dockerconfigjson"]))).toEqual({
        auths: {
          [registries[index] ?? ""]: {
            username: "user",
            password: " pässword\n",
            auth: Buffer.from("user: pässword\n").toString("base64"),
          },
        },
      });
      expect(metadata?.labels).toMatchObject({
        "app.kubernetes.io/managed-by": "k8s-runner",
        "agyn.io/workload-id": id,
      });
      expect(metadata?.ownerReferences).toMatchObject([
        { kind: "Pod", name: `workload-${id}`, uid: pod.metadata?.uid ?? "" },
      ]);
    }
    await runner().client.removeWorkload({ workloadId: id, force: true });
    await until("its Secrets are gone", async () => ((await runner().secrets(id)).length === 0 ? true : undefined));
  });

  test("alone have a name without a number", async () => {
    const { id } = await runner().start({ imagePullCredentials: [credential("one.test")] });
    expect((await runner().pod(id)).spec?.imagePullSecrets).toEqual([{ name: `workload-${id}-pull` }]);
  });
});

test("inline files are there, read-only, in the containers that mount them and nowhere else", async () => {
  const { client } = runner();
  const path = `/tmp/inline-${freshId()}/ca.crt`;
  const bytes = new TextEncoder().encode("certificate\n");
  const show = `cat ${path}; { echo other > ${path}; } 2> /dev/null || echo read-only`;
  const { id } = await runner().start({
    inlineFiles: { [path]: bytes },
    main: script(show, { inlineFileMounts: [{ path }] }),
    initContainers: [script(`test -s ${path}`, { inlineFileMounts: [{ path }] })],
  });
  expect(await logText(client, { workloadId: id, containerName: "main", follow: true })).toBe(
    "certificate\nread-only\n",
  );
  const [secret] = await runner().secrets(id);
  expect(secret?.metadata?.name).toBe(`workload-${id}-inline-files`);
  expect(Object.entries(secret?.data ?? {}).map(([key, value]) => [key, decoded(value)])).toEqual([
    ["inline-file-0", "certificate\n"],
  ]);
});

test("a start that Kubernetes refuses leaves nothing of what it made, and says why", async () => {
  const { ledger } = runner();
  const workloadId = freshId();
  const claim = ledger.claimName("rolled-back");
  // A Secret of the name it needs stands in the way: refused after the Pod and the claim were made.
  await ledger.foreignSecret(`workload-${workloadId}-pull`);
  const start = runner().start({
    workloadId,
    main: idling({ mounts: [{ volume: "data", mountPath: "/data" }] }),
    volumes: [{ name: "data", kind: VolumeKind.NAMED, persistentName: claim }],
    imagePullCredentials: [credential("one.test")],
  });
  expect(await refusal(start)).toEqual({
    code: "AlreadyExists",
    message: `resource already exists: secrets "workload-${workloadId}-pull" already exists`,
  });
  await until("Pod and claim are gone", async () =>
    (await ledger.podNamed(`workload-${workloadId}`)) === undefined && (await runner().claim(claim)) === undefined
      ? true
      : undefined,
  );
  expect(decoded((await ledger.secretNamed(`workload-${workloadId}-pull`))?.data?.key)).toBe("foreign");
});
