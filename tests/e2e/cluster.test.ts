import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { WatchEvent } from "../../src/kube/answer.ts";
import { KubeError } from "../../src/kube/error.ts";
import type { Claim, Pod, Secret } from "../../src/kube/types.ts";
import { type Backend, startBackend } from "../support/backend.ts";
import { until } from "../support/wait.ts";

// No runner here: these hold the embedded cluster to what a real API server says and does, word for word, since the same
// file runs on both.
setDefaultTimeout(30_000);
const run = `cluster-${randomUUID().slice(0, 8)}`;
let backend: Backend;
beforeAll(async () => {
  backend = await startBackend();
});
afterAll(async () => {
  const { pods, claims, secrets } = backend.admin;
  for (const pod of (await pods.list({ labelSelector: `run=${run}` })).items)
    await pods.delete(pod.metadata?.name ?? "", { gracePeriodSeconds: 0 });
  for (const claim of (await claims.list({ labelSelector: `run=${run}` })).items)
    await claims.delete(claim.metadata?.name ?? "");
  for (const secret of (await secrets.list({ labelSelector: `run=${run}` })).items)
    await secrets.delete(secret.metadata?.name ?? "");
  await backend[Symbol.asyncDispose]();
});

const name = (part: string) => `${run}-${part}`;
const pod = (part: string, spec: Partial<NonNullable<Pod["spec"]>> = {}, metadata: Pod["metadata"] = {}): Pod => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: name(part), ...metadata, labels: { run, ...metadata?.labels } },
  spec: {
    restartPolicy: "Never",
    terminationGracePeriodSeconds: 1,
    containers: [{ name: "main", image: "alpine:3.19", args: ["sleep", "300"] }],
    ...spec,
  },
});
const claim = (part: string): Claim => ({
  apiVersion: "v1",
  kind: "PersistentVolumeClaim",
  metadata: { name: name(part), labels: { run } },
  spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Mi" } } },
});
/** Behind a gate a Pod stays as it was made. */
const gated = (part: string, metadata: Pod["metadata"] = {}) =>
  pod(part, { schedulingGates: [{ name: "agyn.io/setup" }] }, metadata);

async function refusal(call: Promise<unknown>): Promise<{ status: number; reason: string; message: string }> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof KubeError)) throw new Error(`expected a refusal, got ${error}`);
  const { status, reason, message } = error;
  return { status, reason, message };
}

describe("refusals are worded as the API server words them:", () => {
  test("what is not there, what is there already", async () => {
    const { pods, claims } = backend.admin;
    await pods.create(gated("twice"));
    expect(await refusal(pods.create(gated("twice")))).toEqual({
      status: 409,
      reason: "AlreadyExists",
      message: `pods "${name("twice")}" already exists`,
    });
    const gone = { status: 404, reason: "NotFound" };
    expect(await refusal(pods.get(name("none")))).toEqual({ ...gone, message: `pods "${name("none")}" not found` });
    expect(await refusal(pods.delete(name("none")))).toEqual({ ...gone, message: `pods "${name("none")}" not found` });
    expect(await refusal(claims.get(name("none")))).toEqual({
      ...gone,
      message: `persistentvolumeclaims "${name("none")}" not found`,
    });
  });

  test("Pods that cannot be", async () => {
    const container = { name: "main", image: "alpine:3.19" };
    const cases: [Pod, string][] = [
      [
        pod("no-volume", { containers: [{ ...container, volumeMounts: [{ name: "x", mountPath: "/x" }] }] }),
        'spec.containers[0].volumeMounts[0].name: Not found: "x"',
      ],
      [pod("same-names", { containers: [container, container] }), 'spec.containers[1].name: Duplicate value: "main"'],
      [
        pod("same-volumes", {
          volumes: [
            { name: "x", emptyDir: {} },
            { name: "x", emptyDir: {} },
          ],
        }),
        'spec.volumes[1].name: Duplicate value: "x"',
      ],
      [
        pod("label", {}, { labels: { a: "b c" } }),
        `metadata.labels: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
      ],
      [
        pod("dns", { dnsPolicy: "None", dnsConfig: { nameservers: ["x"] } }),
        'spec.dnsConfig.nameservers[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
      ],
    ];
    for (const [object, problem] of cases)
      expect(await refusal(backend.admin.pods.create(object, { dryRun: true }))).toEqual({
        status: 422,
        reason: "Invalid",
        message: `Pod "${object.metadata?.name}" is invalid: ${problem}`,
      });
  });

  test("preconditions that do not hold", async () => {
    const { pods } = backend.admin;
    const { metadata } = await pods.create(gated("guarded"));
    const other = randomUUID();
    const uid = metadata?.uid ?? "";
    expect(await refusal(pods.delete(name("guarded"), { uid: other }))).toEqual({
      status: 409,
      reason: "Conflict",
      message:
        `Operation cannot be fulfilled on Pod "${name("guarded")}": the UID in the precondition (${other}) does not match the UID in record (${uid}). ` +
        "The object might have been deleted and then recreated",
    });
    expect(await refusal(pods.delete(name("guarded"), { uid, resourceVersion: "1" }))).toMatchObject({
      status: 409,
      reason: "Conflict",
    });
    expect(await refusal(pods.patch(name("guarded"), { metadata: { uid: other } }))).toMatchObject({
      status: 422,
      reason: "Invalid",
    });
    expect(
      await refusal(pods.patch(name("guarded"), { metadata: { resourceVersion: "1", labels: { a: "b" } } })),
    ).toEqual({
      status: 409,
      reason: "Conflict",
      message: `Operation cannot be fulfilled on pods "${name("guarded")}": the object has been modified; please apply your changes to the latest version and try again`,
    });
    expect((await pods.get(name("guarded"))).metadata?.resourceVersion).toBe(metadata?.resourceVersion ?? "");
  });

  test("selectors that cannot be parsed", async () => {
    expect(await refusal(backend.admin.pods.list({ labelSelector: "a b" }))).toEqual({
      status: 400,
      reason: "BadRequest",
      message: "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
    });
  });
});

test("lists select by labels, come in pages of one state, and in the order of names", async () => {
  const { pods } = backend.admin;
  for (const part of ["page-c", "page-a", "page-b"]) await pods.create(gated(part, { labels: { page: run } }));
  const first = await pods.list({ labelSelector: `page=${run}`, limit: 2 });
  await pods.create(gated("page-0", { labels: { page: run } }));
  const second = await pods.list({ labelSelector: `page=${run}`, limit: 2, continue: first.metadata.continue ?? "" });
  const names = [...first.items, ...second.items].map(({ metadata }) => metadata?.name);
  expect(names).toEqual(["page-a", "page-b", "page-c"].map(name));
  expect(second.metadata).toMatchObject({ resourceVersion: first.metadata.resourceVersion });
  expect(second.metadata.continue ?? "").toBe("");
  for (const [selector, count] of [
    [`page=${run},run!=${run}`, 0],
    [`page in (${run},x)`, 4],
    [`page,run=${run}`, 4],
    [`!page,run=${run},page=${run}`, 0],
  ] as const)
    expect((await pods.list({ labelSelector: selector })).items).toHaveLength(count);
});

test("a watch resumes from a version, tells every change once, and a Pod that stops matching as deleted", async () => {
  const { pods } = backend.admin;
  const labelSelector = `watched=${run}`;
  const { metadata } = await pods.list({ labelSelector });
  await pods.create(gated("watched", { labels: { watched: run } }));
  await pods.patch(name("watched"), { metadata: { annotations: { a: "b" } } });
  await pods.patch(name("watched"), { metadata: { labels: { watched: null } } });
  const abort = new AbortController();
  const seen: WatchEvent<Pod>[] = [];
  for await (const event of pods.watch({
    labelSelector,
    resourceVersion: metadata.resourceVersion,
    signal: abort.signal,
  })) {
    if (event.type === "BOOKMARK") continue;
    seen.push(event);
    if (event.type === "DELETED") break;
  }
  abort.abort();
  expect(seen.map(({ type }) => type)).toEqual(["ADDED", "MODIFIED", "DELETED"]);
  expect(seen.map(({ object }) => object.metadata?.annotations?.a)).toEqual([undefined, "b", "b"]);
});

test("a watch may begin with all that there is, and says where that ends", async () => {
  const { pods } = backend.admin;
  for (const part of ["first-a", "first-b"]) await pods.create(gated(part, { labels: { first: run } }));
  const seen: string[] = [];
  let ended = false;
  for await (const { type, object } of pods.watch({ labelSelector: `first=${run}`, sendInitialEvents: true })) {
    if (type === "BOOKMARK") ended = object.metadata?.annotations?.["k8s.io/initial-events-end"] === "true";
    else if (type === "ADDED") seen.push(`${object.metadata?.name}`);
    if (ended) break;
  }
  expect(seen.sort()).toEqual(["first-a", "first-b"].map(name));
});

test("a watch from a version that is still to come tells of nothing before, and ends well", async () => {
  const { pods } = backend.admin;
  const labelSelector = `future=${run}`;
  const { metadata } = await pods.list({ labelSelector });
  const resourceVersion = `${metadata.resourceVersion}000`;
  const watch = pods.watch({ labelSelector, resourceVersion, timeoutSeconds: 1 });
  const first = watch.next();
  await pods.create(gated("future", { labels: { future: run } }));
  expect(await first).toEqual({ done: true, value: undefined });
});

test("a watch ends cleanly after its time, with a bookmark that says how far it came", async () => {
  const { pods } = backend.admin;
  const { metadata } = await pods.list({ labelSelector: `run=${run}` });
  for await (const { type, object } of pods.watch({
    labelSelector: `none=${run}`,
    resourceVersion: metadata.resourceVersion,
    timeoutSeconds: 1,
  })) {
    expect(type).toBe("BOOKMARK");
    expect(object.metadata?.resourceVersion).toMatch(/^\d+$/);
  }
});

test("a gated Pod waits, says so, and is scheduled when its gate is gone; gates cannot be added", async () => {
  const { pods } = backend.admin;
  await pods.create(gated("gated"));
  const { status, metadata } = await until("the gate is told", async () => {
    const found = await pods.get(name("gated"));
    return found.status?.conditions?.length ? found : undefined;
  });
  expect(status).toMatchObject({
    phase: "Pending",
    conditions: [{ type: "PodScheduled", status: "False", reason: "SchedulingGated" }],
  });
  expect(
    await refusal(pods.patch(name("gated"), { spec: { schedulingGates: [{ name: "agyn.io/setup" }, { name: "x" }] } })),
  ).toMatchObject({
    status: 422,
    reason: "Invalid",
  });
  await pods.patch(name("gated"), { metadata: { uid: metadata?.uid }, spec: { schedulingGates: [] } });
  await until("it runs", async () => ((await pods.get(name("gated"))).status?.phase === "Running" ? true : undefined));
});

test("a Pod takes its time to go, and Secrets that it owns go with it", async () => {
  const { pods, secrets } = backend.admin;
  const { metadata } = await pods.create(pod("owner"));
  const owner = { apiVersion: "v1", kind: "Pod", name: name("owner"), uid: metadata?.uid ?? "" };
  const owned: Secret = {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: name("owned"), labels: { run }, ownerReferences: [owner] },
  };
  await secrets.create(owned);
  await until("it runs", async () => ((await pods.get(name("owner"))).status?.phase === "Running" ? true : undefined));
  const deleted = await pods.delete(name("owner"), { uid: metadata?.uid ?? "", gracePeriodSeconds: 1 });
  expect(deleted?.metadata).toMatchObject({ deletionGracePeriodSeconds: 1, deletionTimestamp: expect.any(String) });
  await until("Pod and Secret are gone", async () => {
    const left = [
      await pods.get(name("owner")).catch(() => undefined),
      await secrets.get(name("owned")).catch(() => undefined),
    ];
    return left.every((each) => each === undefined) ? true : undefined;
  });
});

test("a claim is bound, and one that a Pod mounts stays terminating until the Pod is gone", async () => {
  const { pods, claims } = backend.admin;
  await claims.create(claim("kept"));
  const volumes = [{ name: "data", persistentVolumeClaim: { claimName: name("kept") } }];
  await pods.create(pod("mounting", { volumes }));
  await until("it runs", async () =>
    (await pods.get(name("mounting"))).status?.phase === "Running" ? true : undefined,
  );
  expect((await claims.get(name("kept"))).status?.phase).toBe("Bound");
  await claims.delete(name("kept"));
  expect((await claims.get(name("kept"))).metadata?.deletionTimestamp).toBeDefined();
  await pods.delete(name("mounting"), { gracePeriodSeconds: 0 });
  await until("the claim is gone", () =>
    claims.get(name("kept")).then(
      () => undefined,
      () => true,
    ),
  );
});

test("exec and log name what they cannot do", async () => {
  const { pods } = backend.admin;
  await pods.create(gated("silent"));
  const signal = new AbortController().signal;
  const exec = (container: string) => backend.admin.exec(name("silent"), { container, command: ["true"], signal });
  expect(await refusal(exec("nobody"))).toEqual({
    status: 400,
    reason: "BadRequest",
    message: `container nobody is not valid for pod ${name("silent")}`,
  });
  const read = backend.admin.log(name("silent"), { container: "nobody" }).next();
  expect(await refusal(read)).toEqual({
    status: 400,
    reason: "BadRequest",
    message: `container nobody is not valid for pod ${name("silent")}`,
  });
  expect(
    await refusal(backend.admin.exec(name("none"), { container: "main", command: ["true"], signal })),
  ).toMatchObject({
    status: 404,
    reason: "NotFound",
    message: `pods "${name("none")}" not found`,
  });
});
