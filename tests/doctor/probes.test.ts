import { expect, test } from "bun:test";
import { Embedded } from "./embedded.ts";
import { visit } from "./rig.ts";

/* What doctor makes, and what it finds out by that. */
const place = Embedded.shared();

test("the probe Pod has no label by which runner, platform and policies know workloads", async () => {
  const { env } = place();
  const made: (Record<string, string> | undefined)[] = [];
  const stop = place().cluster.journal(
    "pods",
    ({ type, object }) => type === "ADDED" && made.push(object.metadata.labels),
  );
  await visit({ env, args: ["--only", "pod"] });
  stop();
  expect(made).toEqual([{ "app.kubernetes.io/managed-by": "k8s-runner-doctor" }]);
});

test("a proxy that passes on no upgrade, no watch or no log is found by that check alone", async () => {
  try {
    place().gate.refusals = [{ method: "GET", path: /\/exec$/, status: 502, message: "Bad Gateway" }];
    await place().expectOneFailure("exec", /^no command could be run: Bad Gateway/, { env: place().throughGate });
    place().gate.refusals = [{ method: "GET", path: /\/log$/, status: 502, message: "Bad Gateway" }];
    await place().expectOneFailure("log", /^ended after 0 of 2 lines: Bad Gateway/, { env: place().throughGate });
    place().gate.refusals = [];
    const silent = (resource: string) => {
      place().gate.fault = ({ path, query }) =>
        path.endsWith(`/${resource}`) && query.has("watch") ? { body: { cut: "silence", afterLines: 0 } } : undefined;
    };
    silent("pods");
    await place().expectOneFailure("watch", /told nothing/, { env: place().throughGate, patienceMs: 2_000 });
    silent("events");
    await place().expectOneFailure("events", /none about the Pod/, { env: place().throughGate, patienceMs: 2_000 });
  } finally {
    place().gate.refusals = [];
    place().gate.fault = () => undefined;
  }
});

test("a Pod that does not run is told with its reason, and what needs it is skipped", async () => {
  const { env } = place();
  const image = "registry.invalid/none:1";
  const { of } = await place().expectOneFailure("pod", /ImagePullBackOff/, { env, args: ["--image", image] });
  expect(of("pod").advice).toContain(image);
  expect(["watch", "exec", "log", "events"].map((id) => of(id).blockedBy)).toEqual(["pod", "pod", "pod", "pod"]);
  const template = place().files.write("spec: {nodeSelector: {disk: none}}");
  await place().expectOneFailure("pod", /not running after 1 s: not scheduled: Unschedulable: .*selector/, {
    env: { ...env, WORKLOAD_POD_TEMPLATE: template },
    args: ["--timeout", "1s"],
  });
});

test("--volumes makes a volume, mounts it, and removes it", async () => {
  const { env } = place();
  expect((await visit({ env, args: ["--volumes"] })).of("volume")).toMatchObject({ status: "ok" });
  expect(await place().everything()).toEqual([]);
  await place().expectOneFailure("volume", /^not bound: /, {
    env: { ...env, PVC_STORAGE_CLASS: "none" },
    args: ["--volumes", "--timeout", "1s"],
  });
});

test("docker is tried with a Pod as its workloads have it", async () => {
  const { env } = place();
  const privileged = { ...env, CAPABILITY_IMPLEMENTATIONS: '{"docker":"privileged"}' };
  expect((await visit({ env: privileged })).of("docker")).toMatchObject({ status: "ok" });
  expect(await place().everything()).toEqual([]);
});

test("an interruption removes what was made, and is no failure of a check", async () => {
  const { env } = place();
  const interruption = new AbortController();
  const stop = place().cluster.journal(
    "pods",
    ({ type }) => type === "ADDED" && interruption.abort(new Error("SIGTERM")),
  );
  const { exit, failed, of } = await visit({ env, signal: interruption.signal });
  stop();
  expect([exit, failed, of("pod").seen, of("docker").seen]).toEqual([1, [], "interrupted", "interrupted"]);
  expect(of("clean-up").status).toBe("ok");
  expect(await place().everything()).toEqual([]);
});

test("what a doctor left that was killed is removed by the next one, what may be in use is not", async () => {
  const { env } = place();
  const leave = (name: string, until: number) =>
    place().admin.pods.create({
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        name,
        labels: { "app.kubernetes.io/managed-by": "k8s-runner-doctor" },
        annotations: { "agyn.io/doctor-until": String(until) },
      },
      spec: { containers: [{ name: "main", image: "alpine:3.19", command: ["sleep", "100"] }] },
    });
  await leave("old", Date.now() - 1000);
  await leave("young", Date.now() + 60_000);
  expect((await visit({ env })).of("clean-up").seen).toBe("probe objects removed: 2");
  expect(await place().everything()).toEqual(["young"]);
  await place().admin.pods.delete("young", { gracePeriodSeconds: 0 });
});

test("what cannot be removed is told, with the command that removes it", async () => {
  const image = "registry.invalid/none:1";
  place().gate.refusals = [{ method: "DELETE", path: /\/pods\//, status: 500, message: "no" }];
  const { failed, of } = await visit({ env: place().throughGate, args: ["--image", image] });
  place().gate.refusals = [];
  expect(failed).toEqual(["pod", "clean-up"]);
  expect(of("clean-up").advice).toContain("delete pods");
  for (const name of await place().everything()) await place().admin.pods.delete(name, { gracePeriodSeconds: 0 });
});
