import { expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { type StartWorkloadRequest, StartWorkloadRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { Container } from "../../src/kube/types.ts";
import { type Plan, type PlanSettings, planWorkload } from "../../src/pod/spec.ts";
import { labelKeyProblems, labelValueProblems } from "../../src/pod/validate.ts";
import { anyRequest, anySettings, spoiledRequest, validRequest } from "./arbitrary.ts";
import { settings as planSettings, refusal } from "./plans.ts";

/** All that may stand in a Pod's spec and in its containers: a field that is not here cannot be asked for by anybody. */
const SPEC_FIELDS =
  "restartPolicy automountServiceAccountToken enableServiceLinks hostUsers runtimeClassName dnsPolicy dnsConfig imagePullSecrets initContainers containers volumes";
const CONTAINER_FIELDS = "name image command args workingDir env volumeMounts securityContext restartPolicy";
const VOLUME_SOURCES = "emptyDir persistentVolumeClaim secret hostPath";
const MOUNT_FIELDS = "name mountPath subPath readOnly";

const unlisted = (object: object, allowed: string): string[] =>
  Object.keys(object).filter((key) => !allowed.split(" ").includes(key));

/** What would let a caller out of its Pod, or into another one; empty for a plan as it should be. */
function dangersOf({ pod, claims, secrets, workloadId }: Plan, settings: PlanSettings): string[] {
  const spec = pod.spec ?? { containers: [] };
  const added = spec.containers.find(({ name }) => name === "docker-daemon")?.env?.[0]?.name === "DOCKER_TLS_CERTDIR";
  const docker = added ? settings.docker : undefined;
  const dangers = unlisted(spec, SPEC_FIELDS);
  if (spec.automountServiceAccountToken !== false) dangers.push("a service account token");
  if ((spec.hostUsers === false) !== (docker === "rootless")) dangers.push("hostUsers");
  if (spec.runtimeClassName !== (docker?.startsWith("kata") ? docker : undefined)) dangers.push("runtimeClassName");

  for (const { name, ...source } of spec.volumes ?? []) {
    dangers.push(...unlisted(source, VOLUME_SOURCES));
    const ours =
      docker === "rootless" &&
      name === "docker-tun" &&
      source.hostPath?.path === "/dev/net/tun" &&
      source.hostPath.type === "CharDevice";
    if (source.hostPath && !ours) dangers.push(`hostPath of ${name}`);
    if (source.secret && source.secret.secretName !== `workload-${workloadId}-inline-files`)
      dangers.push(`secret of ${name}`);
  }
  for (const container of [...(spec.initContainers ?? []), ...spec.containers]) {
    dangers.push(...containerDangers(container, { docker, settings }));
  }

  const ownedLabels = [pod.metadata?.labels, ...secrets.map(({ metadata }) => metadata?.labels)];
  if (ownedLabels.some((labels) => labels?.["agyn.io/workload-id"] !== workloadId)) dangers.push("workload id");
  const allLabels = [...ownedLabels, ...claims.map(({ metadata }) => metadata?.labels)];
  if (allLabels.some((labels) => labels?.["app.kubernetes.io/managed-by"] !== "k8s-runner")) dangers.push("manager");
  if (pod.metadata?.labels?.["agyn.dev/managed-by"] !== "agents-orchestrator") dangers.push("platform manager");
  if (claims.some(({ metadata }) => Object.hasOwn(metadata?.labels ?? {}, "agyn.io/workload-id")))
    dangers.push("claim's owner");
  return dangers;
}

function containerDangers(
  container: Container,
  { docker, settings }: { docker: PlanSettings["docker"]; settings: PlanSettings },
): string[] {
  const { name, securityContext = {}, volumeMounts = [] } = container;
  const dangers = [
    ...unlisted(container, CONTAINER_FIELDS),
    ...volumeMounts.flatMap((mount) => unlisted(mount, MOUNT_FIELDS)),
  ];
  if (docker !== undefined && name === "docker-daemon") {
    if ((securityContext.privileged === true) !== (docker !== "rootless")) dangers.push("privileged daemon");
    return dangers;
  }
  dangers.push(...unlisted(securityContext, "capabilities seccompProfile"));
  if (securityContext.seccompProfile?.type !== (settings.runtimeDefaultSeccomp ? "RuntimeDefault" : undefined))
    dangers.push("seccomp");
  const refused = securityContext.capabilities?.add?.filter(
    (capability) => settings.allowedLinuxCapabilities?.includes(capability) === false,
  );
  if (refused !== undefined && refused.length > 0) dangers.push("Linux capabilities");
  const outside = volumeMounts.filter(({ mountPath }) =>
    /^\/*(proc|sys|dev(?!\/+shm(\/|$))|var\/+run\/+secrets)(\/|$)|(^|\/)\.\.(\/|$)|:/.test(mountPath),
  );
  return [...dangers, ...outside.map(({ mountPath }) => `mount at ${mountPath}`)];
}

/** The plan, or undefined when it was refused as it must be: INVALID_ARGUMENT, in one short and printable line. */
function planned(request: StartWorkloadRequest, settings: PlanSettings): Plan | undefined {
  const before = structuredClone(request);
  try {
    return planWorkload(request, settings);
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    expect(error.code).toBe(Code.InvalidArgument);
    expect(error.rawMessage).toMatch(/^[a-z_]+(: .*)?$/);
    expect(error.rawMessage).not.toMatch(/\p{Cc}|\p{Cs}/u);
    expect(error.rawMessage.length).toBeLessThan(4096);
    return undefined;
  } finally {
    expect(request).toEqual(before);
  }
}

function requireHarmless(request: StartWorkloadRequest, settings: PlanSettings): boolean {
  const plan = planned(request, settings);
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  if (plan === undefined) return false;
  expect(dangersOf(plan, settings)).toEqual([]);
  for (const { metadata } of [plan.pod, ...plan.claims]) {
    for (const [key, value] of Object.entries(metadata?.labels ?? {})) {
      expect([...labelKeyProblems(key), ...labelValueProblems(value)]).toEqual([]);
    }
  }
  expect(JSON.parse(JSON.stringify(plan))).toEqual(plan); // nothing in it is lost on the way to the API server
  return true;
}

test("a request of any content is refused as invalid or gives a harmless plan", () => {
  fc.assert(
    fc.property(anyRequest, anySettings, (request, settings) => void requireHarmless(request, settings)),
    { numRuns: 3000 },
  );
}, 60_000);

test("a request that is right but for a part gives a harmless plan or none, and both happen", () => {
  const outcomes = new Set<boolean>();
  fc.assert(
    fc.property(spoiledRequest, anySettings, (request, settings) => {
      outcomes.add(requireHarmless(request, settings));
    }),
    { numRuns: 2000 },
  );
  expect(outcomes.size).toBe(2);
}, 60_000);

test("a right request is planned, harmless, and the same each time", () => {
  fc.assert(
    fc.property(
      validRequest,
      anySettings,
      fc.boolean(),
      (request, { allowedLinuxCapabilities: _, ...settings }, docker) => {
        if (docker && settings.docker !== undefined) request.capabilities.push(" DOCKER ");
        expect(requireHarmless(request, settings)).toBe(true);
        expect(planWorkload(request, settings)).toEqual(planWorkload(request, settings));
      },
    ),
    { numRuns: 2000 },
  );
}, 60_000);

test("keys of a map named as parts of every object come over the wire as data", () => {
  const own = (key: string): Record<string, string> => Object.fromEntries([[key, "polluted"]]);
  const refusals = ["__proto__", "constructor.", "a", "hasOwnProperty"].map((key) => {
    const request = create(StartWorkloadRequestSchema, { main: { image: "app:1" }, labels: own(key) });
    const received = fromBinary(StartWorkloadRequestSchema, toBinary(StartWorkloadRequestSchema, request));
    return refusal(() => planWorkload(received, planSettings));
  });
  expect(refusals[0]).toStartWith('invalid_label: invalid label key "__proto__": name part must consist of');
  expect(refusals[1]).toStartWith('invalid_label: invalid label key "constructor.": name part must consist of');
  expect(refusals.slice(2)).toEqual([undefined, undefined]);

  const files = create(StartWorkloadRequestSchema, {
    main: { image: "app:1" },
    inlineFiles: Object.fromEntries([["__proto__", new Uint8Array([1])]]),
  });
  const received = fromBinary(StartWorkloadRequestSchema, toBinary(StartWorkloadRequestSchema, files));
  expect(refusal(() => planWorkload(received, planSettings))).toBe("inline_file_path_invalid: __proto__");
});

test("the check of plans sees what it is there for", () => {
  const settings = fc.sample(anySettings, { numRuns: 1, seed: 1 })[0];
  const request = fc.sample(validRequest, { numRuns: 1, seed: 1 })[0];
  if (settings === undefined || request === undefined) throw new Error("no sample");
  const { allowedLinuxCapabilities: _, ...open } = settings;
  const plan = planWorkload(request, open);
  const spec = plan.pod.spec ?? { containers: [] };
  const [main, ...rest] = spec.containers;
  if (main === undefined) throw new Error("no container");
  const spoiled: (typeof spec)[] = [
    { ...spec, hostNetwork: true },
    { ...spec, hostPID: true },
    { ...spec, hostIPC: true },
    { ...spec, serviceAccountName: "x" },
    { ...spec, automountServiceAccountToken: true },
    { ...spec, volumes: [{ name: "x", hostPath: { path: "/" } }] },
    { ...spec, volumes: [{ name: "x", secret: { secretName: "other" } }] },
    { ...spec, volumes: [{ name: "x", projected: {} }] },
    { ...spec, containers: [{ ...main, securityContext: { privileged: true } }, ...rest] },
    { ...spec, containers: [{ ...main, volumeMounts: [{ name: "x", mountPath: "//proc/x" }] }, ...rest] },
  ];
  for (const one of spoiled) expect(dangersOf({ ...plan, pod: { ...plan.pod, spec: one } }, open)).not.toEqual([]);
});
