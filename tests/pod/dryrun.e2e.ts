import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import fc from "fast-check";
import type { ContainerSpec, StartWorkloadRequest } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { type Plan, planWorkload } from "../../src/pod/spec.ts";
import { type Backend, startBackend } from "../support/backend.ts";
import { anySettings, validRequest } from "./arbitrary.ts";
import { settings } from "./plans.ts";

/**
 * Generated right requests, as a real API server takes them: a server-side dry run of every Pod, claim and Secret.
 * Needs a real cluster and its admin's rights, so it is run by its path alone:
 *
 *     E2E_KUBECONFIG=… bun test ./tests/pod/dryrun.e2e.ts
 *
 * It makes a namespace that enforces Pod Security `baseline`, and RuntimeClasses of the kata implementations when there
 * are none, and removes what it made.
 */
setDefaultTimeout(180_000);

const REQUESTS = 300;
const PARALLEL = 4;
const RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses";
/** Pod Security Standards, baseline: the Linux capabilities that may be added. */
const BASELINE_CAPABILITIES = ["AUDIT_WRITE", "CHOWN", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETUID", "SYS_CHROOT"];

const namespace = `dryrun-${randomUUID().slice(0, 8)}`;
let cluster: Backend;
const made: string[] = [];

beforeAll(async () => {
  cluster = await startBackend();
  if (cluster.kind !== "real") throw new Error("E2E_KUBECONFIG must name the admin access of a real cluster");
  const labels = { "pod-security.kubernetes.io/enforce": "baseline" };
  await make("/api/v1/namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace, labels } });
  // Admission asks for the account before the controller has made it; whoever comes first makes it.
  await cluster
    .ask("POST", `/api/v1/namespaces/${namespace}/serviceaccounts`, {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: "default" },
    })
    .catch(ignoreExisting);
  for (const name of ["kata-qemu", "kata-fc"]) {
    const runtimeClass = { apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name }, handler: name };
    await make(RUNTIME_CLASSES, runtimeClass).catch(ignoreExisting);
  }
});

afterAll(async () => {
  for (const path of made) await cluster.ask("DELETE", path);
  await cluster[Symbol.asyncDispose]();
});

interface MadeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels?: Record<string, string> };
  readonly handler?: string;
}

async function make(collection: string, object: MadeObject): Promise<void> {
  await cluster.ask("POST", collection, object);
  made.push(`${collection}/${object.metadata.name}`);
}

function ignoreExisting(error: Error): void {
  if (!error.message.includes('"AlreadyExists"')) throw error;
}

async function dryRun({ pod, claims, secrets }: Plan, inNamespace: string): Promise<void> {
  const objects = [
    ["pods", pod],
    ...claims.map((claim) => ["persistentvolumeclaims", claim]),
    ...secrets.map((secret) => ["secrets", secret]),
  ];
  for (const [resource, object] of objects) {
    await cluster.ask("POST", `/api/v1/namespaces/${inNamespace}/${resource}?dryRun=All`, { ...Object(object) });
  }
}

/** Every plan is asked for; answers what was refused. */
async function refused(plans: readonly Plan[], inNamespace: string): Promise<string[]> {
  const errors: string[] = [];
  const queue = plans.values();
  const work = async (): Promise<void> => {
    for (const plan of queue)
      await dryRun(plan, inNamespace).catch(
        (error: Error) => void errors.push(`${error.message}\n${JSON.stringify(plan.pod)}`),
      );
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
  return errors;
}

test(`${REQUESTS} right requests with all kinds of docker are accepted`, async () => {
  const requests = fc.sample(fc.tuple(validRequest, anySettings, fc.boolean()), { numRuns: REQUESTS });
  const plans = requests.map(([request, { allowedLinuxCapabilities: _, ...others }, docker]) => {
    if (docker && others.docker !== undefined) request.capabilities.push("docker");
    return planWorkload(request, { ...others, namespace: cluster.namespace, newWorkloadId: randomUUID() });
  });
  expect(await refused(plans, cluster.namespace)).toEqual([]);
});

test(`${REQUESTS} right requests without docker and other Linux capabilities than baseline's pass Pod Security baseline`, async () => {
  const requests = fc.sample(fc.tuple(validRequest, fc.boolean()), { numRuns: REQUESTS });
  const plans = requests.map(([request, runtimeDefaultSeccomp]) =>
    planWorkload(asBaseline(request), { ...settings, namespace, newWorkloadId: randomUUID(), runtimeDefaultSeccomp }),
  );
  expect(await refused(plans, namespace)).toEqual([]);
});

test("the namespace does enforce baseline: the privileged docker daemon is refused there", async () => {
  const [request] = fc.sample(validRequest, { numRuns: 1, seed: 1 });
  if (request === undefined) throw new Error("no sample");
  request.capabilities.push("docker");
  const plan = planWorkload(asBaseline(request), { ...settings, namespace, docker: "privileged" });
  expect(await refused([plan], namespace)).toEqual([expect.stringContaining("violates PodSecurity")]);
});

function asBaseline(request: StartWorkloadRequest): StartWorkloadRequest {
  const containers: (ContainerSpec | undefined)[] = [request.main, ...request.sidecars, ...request.initContainers];
  for (const [index, container] of containers.entries()) {
    const capability = BASELINE_CAPABILITIES[index % BASELINE_CAPABILITIES.length];
    if (container !== undefined)
      container.requiredCapabilities = container.requiredCapabilities.map(() => capability ?? "");
  }
  return request;
}
