import { describe, expect, test } from "bun:test";
import { WorkloadStatus } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { logText } from "../support/logs.ts";
import { freshId, IMAGE, idling, script, sharedRunner } from "../support/runner.ts";
import { refusal, untilRunning } from "../support/wait.ts";

const runner = sharedRunner();

test("StartWorkload without an id makes one, and the workload comes to run", async () => {
  const { client, ledger } = runner();
  const { id } = await client.startWorkload({ main: { image: IMAGE, cmd: ["sleep", "300"] } });
  ledger.workload(id);
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);

  const inspection = await untilRunning(client, id);
  expect(inspection).toMatchObject({ id, name: id, configImage: IMAGE, stateRunning: true, stateStatus: "running" });
  expect(inspection.image).not.toBe("");
  expect(inspection.configLabels).toMatchObject({
    "app.kubernetes.io/managed-by": "k8s-runner",
    "agyn.io/workload-id": id,
    "agyn.dev/managed-by": "agents-orchestrator",
  });
  expect(inspection.mounts).toEqual([]);
});

test("the answer names the Pod and its sidecars, and says starting", async () => {
  const workloadId = freshId();
  const answer = await runner().start({
    workloadId,
    sidecars: [idling({ name: "sidecar" }), idling()],
    initContainers: [script("true", { name: "setup" })],
  });
  const pod = `workload-${workloadId}`;
  expect(answer.id).toBe(workloadId);
  expect(answer.status).toBe(WorkloadStatus.STARTING);
  expect(answer.failure).toBeUndefined();
  expect(answer.containers?.main).toBe(pod);
  expect(answer.containers?.sidecars).toMatchObject([
    { name: "sidecar", id: `${pod}:sidecar`, status: "starting" },
    { name: "sidecar-2", id: `${pod}:sidecar-2`, status: "starting" },
  ]);
});

describe("the id of the caller", () => {
  test("is kept as it is, without the white space around it", async () => {
    const workloadId = freshId();
    expect((await runner().start({ workloadId: ` ${workloadId}\n` })).id).toBe(workloadId);
  });

  test("may be 32 hexadecimal digits without dashes", async () => {
    const workloadId = freshId().replaceAll("-", "");
    const { id, containers } = await runner().start({ workloadId });
    expect({ id, pod: containers?.main }).toEqual({ id: workloadId, pod: `workload-${workloadId}` });
  });

  test("a second start with it is refused and leaves the first alone", async () => {
    const workloadId = freshId();
    await runner().start({ workloadId });
    const { uid } = (await runner().pod(workloadId)).metadata ?? {};
    expect(await refusal(runner().start({ workloadId }))).toEqual({
      code: "AlreadyExists",
      message: `resource already exists: pods "workload-${workloadId}" already exists`,
    });
    expect((await runner().pod(workloadId)).metadata?.uid).toBe(uid);
  });

  test("of two starts with it at the same time one wins, and the winner is whole", async () => {
    const { claimName } = runner().ledger;
    const starts = Array.from({ length: 5 }, async (_, index) => {
      const workloadId = freshId();
      const request = {
        workloadId,
        volumes: [{ name: "data", kind: 2 as const, persistentName: claimName.call(runner().ledger, `pair-${index}`) }],
        imagePullCredentials: [{ registry: "registry.test", username: "u", password: "p" }],
      };
      const outcomes = await Promise.allSettled([runner().start(request), runner().start(request)]);
      expect(outcomes.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
      const pod = await runner().pod(workloadId);
      expect(pod.spec?.schedulingGates ?? []).toEqual([]);
      expect((await runner().secrets(workloadId)).map(({ metadata }) => metadata?.name)).toEqual([
        `workload-${workloadId}-pull`,
      ]);
      expect(await runner().claim(request.volumes[0]?.persistentName ?? "")).toBeDefined();
    });
    await Promise.all(starts);
  });
});

test("the Pod is what was asked for, hardened, and never restarts", async () => {
  const { id } = await runner().start({
    main: {
      image: ` ${IMAGE} `,
      entrypoint: "/bin/sh",
      cmd: ["-c", 'sleep 300 "$@"', "--", "a b", ""],
      env: [
        { name: "A", value: "1 $(B)" },
        { name: "A", value: "2" },
        { name: "my.env-name", value: "" },
      ],
      workingDir: " /tmp ",
      requiredCapabilities: [" NET_ADMIN ", " "],
    },
    sidecars: [idling()],
    initContainers: [script("true"), script("true", { name: "second" })],
  });
  const { spec } = await runner().pod(id);
  expect(spec).toMatchObject({
    restartPolicy: "Never",
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    containers: [
      {
        name: "main",
        image: IMAGE,
        command: ["/bin/sh"],
        args: ["-c", 'sleep 300 "$@"', "--", "a b", ""],
        workingDir: "/tmp",
        securityContext: { capabilities: { add: ["NET_ADMIN"] } },
      },
      { name: "sidecar-1" },
    ],
    initContainers: [{ name: "init-1" }, { name: "second" }],
  });
  const [main, sidecar] = spec?.containers ?? [];
  // The API server leaves an empty value out, so only names and values that are there can be compared.
  expect(main?.env?.map(({ name, value = "" }) => `${name}=${value}`)).toEqual(["A=1 $(B)", "A=2", "my.env-name="]);
  expect(sidecar?.command).toBeUndefined();
  expect(sidecar?.securityContext).toBeUndefined();
  expect(spec?.imagePullSecrets ?? []).toEqual([]);
  expect(spec?.schedulingGates ?? []).toEqual([]);
});

test("env and working directory reach the program", async () => {
  const { client } = runner();
  const main = script('echo "FOO=$FOO in $(pwd)"', { env: [{ name: "FOO", value: "bar baz" }], workingDir: "/tmp" });
  const { id } = await runner().start({ main });
  expect(await logText(client, { workloadId: id, containerName: "main", follow: true })).toBe("FOO=bar baz in /tmp\n");
});

test("init containers run one after another before main, and share an ephemeral volume with it", async () => {
  const { client } = runner();
  const mounts = [{ volume: "shared", mountPath: "/shared" }];
  const { id } = await runner().start({
    volumes: [{ name: "shared", kind: 1 }],
    initContainers: [
      script("echo first > /shared/order", { mounts }),
      script("echo second >> /shared/order", { mounts }),
    ],
    main: script("cat /shared/order", { mounts }),
  });
  expect(await logText(client, { workloadId: id, containerName: "main", follow: true })).toBe("first\nsecond\n");
});

test("an init container with restart_policy Always runs on beside main", async () => {
  const { client } = runner();
  const { id } = await runner().run({
    initContainers: [
      idling({ name: "native", additionalProperties: { restart_policy: "Always", other: "ignored" } }),
      script("true", { name: "after" }),
    ],
  });
  const { spec } = await runner().pod(id);
  expect(spec?.initContainers?.map(({ name, restartPolicy }) => [name, restartPolicy])).toEqual([
    ["native", "Always"],
    ["after", undefined],
  ]);
  const { containers } = await client.inspectWorkload({ workloadId: id });
  expect(containers.map(({ name, status }) => `${name} ${status}`)).toEqual(["native 1", "after 2", "main 1"]);
});

describe("labels", () => {
  test("come from additional_properties and labels, and labels win", async () => {
    const { client } = runner();
    const { id } = await runner().start({
      additionalProperties: {
        "label.team": "platform",
        "label.both": "property",
        "not-a-label": "x",
        "label.empty": "",
      },
      labels: { both: "label", "example.com/path": "v_1.0" },
    });
    const { labels } = await client.getWorkloadLabels({ workloadId: id });
    expect(labels).toMatchObject({ team: "platform", both: "label", empty: "", "example.com/path": "v_1.0" });
    expect(Object.keys(labels)).not.toContain("not-a-label");
  });

  test("agyn.dev/managed-by is on every Pod, and may be set to its one value", async () => {
    const { client } = runner();
    const { id } = await runner().start({
      additionalProperties: { "label.agyn.dev/managed-by": "agents-orchestrator" },
    });
    const { labels } = await client.getWorkloadLabels({ workloadId: id });
    expect(labels["agyn.dev/managed-by"]).toBe("agents-orchestrator");
  });
});

describe("dns_config", () => {
  test("with name servers replaces the cluster's DNS, in the order given", async () => {
    const dnsConfig = { nameservers: ["127.0.0.1", "10.96.0.10"], searches: ["svc.cluster.local", "cluster.local"] };
    const { id } = await runner().start({ dnsConfig });
    expect((await runner().pod(id)).spec).toMatchObject({ dnsPolicy: "None", dnsConfig });
  });

  test("without name servers changes nothing", async () => {
    const { id } = await runner().start({ dnsConfig: { searches: ["cluster.local"] } });
    const { spec } = await runner().pod(id);
    expect(spec?.dnsConfig).toBeUndefined();
    expect(spec?.dnsPolicy).toBe("ClusterFirst"); // the API server's default
  });

  test("that Kubernetes refuses is INVALID_ARGUMENT in its words", async () => {
    const { code, message } = await refusal(runner().start({ dnsConfig: { nameservers: ["not-an-address"] } }));
    expect(code).toBe("InvalidArgument");
    expect(message).toMatch(/^invalid kubernetes request: .*spec\.dnsConfig\.nameservers\[0\]/);
  });
});

describe("hostile text in the request", () => {
  test("is data: names of Object's own properties as labels, env and files", async () => {
    const names = ["constructor", "toString", "hasOwnProperty"];
    const { id } = await runner().start({
      labels: Object.fromEntries(names.map((name) => [name, "v"])),
      main: idling({ env: names.map((name) => ({ name, value: "v" })) }),
    });
    const { labels } = await runner().client.getWorkloadLabels({ workloadId: id });
    expect(names.map((name) => Object.getOwnPropertyDescriptor(labels, name)?.value)).toEqual(["v", "v", "v"]);
    expect((await runner().pod(id)).spec?.containers[0]?.env?.map(({ name }) => name)).toEqual(names);
  });
});
