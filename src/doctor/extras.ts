import { VolumeKind } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { KubeError } from "../kube/error.ts";
import type { Container, Pod } from "../kube/types.ts";
import { boundedSignal } from "../time.ts";
import { rootOf } from "./admission.ts";
import { blocked, type Check, type Finding, fail, ok, skip, warn } from "./check.ts";
import type { Exam } from "./exam.ts";
import { metadataFor, Probe, removeObject, warningsOf } from "./probe.ts";
import { nodeOf, outputOf, podAdvice, probeContainer } from "./workload.ts";

/** Checks with a Pod of their own, for what only some workloads ask for. */
export const extraChecks: readonly Check[] = [
  {
    id: "volume",
    needs: ["pod", "storage-class"],
    rights: ["persistentvolumeclaims create", "persistentvolumeclaims get", "persistentvolumeclaims delete"],
    run: volume,
  },
  { id: "docker", needs: ["pod", "exec", "runtime-class"], run: docker },
];

/** A volume as workloads have them: made, mounted and, in the end, removed. */
async function volume(exam: Exam): Promise<Finding> {
  const { options, kube, settings, signal, namespace, admission } = exam;
  if (!options.volumes) return skip("not asked for: --volumes makes a volume and removes it");
  if (admission.claim?.refusal !== undefined) return blocked(rootOf(admission.claim.refusal));
  const main = { ...probeContainer(exam), mounts: [{ volume: "data", mountPath: "/data" }] };
  const probe = new Probe(exam, "-volume");
  const named = { name: "data", kind: VolumeKind.NAMED, persistentName: probe.name };
  const { claims, pod } = exam.planFor({ main, volumes: [named] });
  const [planned] = claims;
  if (planned === undefined) throw new Error("bug: a named volume without a claim");
  const claim = { ...planned, metadata: { ...planned.metadata, ...metadataFor(probe.name, planned, exam) } };
  exam.leftBehind.push(() => removeObject(exam, "claims", probe.name));
  const { metadata } = await kube.claims.create(claim);
  await probe.create(pod);
  const reason = await probe.untilRunning();
  if (reason === undefined) return ok(`${settings.storageSize} were bound and mounted on ${nodeOf(probe)}`);
  const { status } = await kube.claims.get(probe.name, { signal });
  const warned = (await warningsOf(exam, metadata?.uid)).at(-1) ?? reason;
  return status?.phase === "Bound"
    ? fail(`bound, but not mounted: ${reason}`, podAdvice(reason, namespace, options.image))
    : fail(
        `not bound: ${warned}`,
        "kubectl get storageclass,persistentvolume, and the log of the provisioner; or another PVC_STORAGE_CLASS",
      );
}

/** A Pod as a workload with docker has it, but for the daemon itself: its image is the probe's. */
async function docker(exam: Exam): Promise<Finding> {
  const { settings, admission, options, namespace, signal, patienceMs } = exam;
  const implementation = settings.docker;
  if (implementation === undefined) return skip("CAPABILITY_IMPLEMENTATIONS names no docker");
  if (admission.docker?.refusal !== undefined) return blocked(rootOf(admission.docker.refusal));
  const main = probeContainer(exam);
  const probe = new Probe(exam, "-docker");
  await probe.create(withProbes(exam.planFor({ main, capabilities: ["docker"] }).pod, main));
  const reason = await probe.untilRunning();
  if (reason !== undefined)
    return fail(`${implementation}: ${reason}`, dockerAdvice(reason) ?? podAdvice(reason, namespace, options.image));
  const where = `${implementation}: its Pod ran on ${nodeOf(probe)}`;
  if (implementation !== "rootless") return ok(`${where}; other nodes may differ`);
  using bound = boundedSignal(patienceMs, signal);
  try {
    const request = { text: NODE_FACTS, container: "docker-daemon", signal: bound.signal };
    return rootless(factsIn(await outputOf(exam, probe, request)), where);
  } catch (error) {
    if (error instanceof KubeError)
      return fail(`${where}, but nothing can be run in it: ${error.message}`, podAdvice("", namespace, ""));
    throw error;
  }
}

/** The daemon in place of its image's own program runs what the main container runs: no docker image is pulled. */
function withProbes(pod: Pod, { entrypoint, cmd }: { entrypoint: string; cmd: string[] }): Pod {
  const idle = (container: Container): Container =>
    container.name === "main" ? container : { ...container, command: [entrypoint], args: cmd };
  return { ...pod, spec: { ...pod.spec, containers: (pod.spec?.containers ?? []).map(idle) } };
}

/** Sysctls of user namespaces, and whether the device is one; `name value` a line, names alone where there is no such file. */
const NODE_FACTS = `
for each in user/max_user_namespaces kernel/unprivileged_userns_clone kernel/apparmor_restrict_unprivileged_userns; do
  read -r value 2>/dev/null < /proc/sys/$each && echo "$each $value"
done
read -r inside outside ids < /proc/self/uid_map && echo "ids $ids"
[ -c /dev/net/tun ] && echo "tun yes"
echo end`;

export const factsIn = (said: string): ReadonlyMap<string, string> =>
  new Map(
    said
      .split("\n")
      .map((line) => line.trim().split(/\s+/))
      .map(([name = "", value = ""]) => [name, value]),
  );

/** All ids there are: a process in no user namespace of its own. */
const ALL_IDS = "4294967295";

/** What these facts about a Pod with docker mean for rootlesskit; `where` says which node. */
export function rootless(facts: ReadonlyMap<string, string>, where: string): Finding {
  const of = `${where}, which`;
  if (facts.get("ids") === ALL_IDS)
    return fail(
      `${of} gives Pods no user namespace of their own (hostUsers: false has no effect)`,
      "user namespaces need Kubernetes 1.33 or the feature gate UserNamespacesSupport, containerd 2.0 or CRI-O 1.25, and Linux 6.3",
    );
  if (facts.get("user/max_user_namespaces") === "0")
    return fail(`${of} allows no user namespaces`, "on every node: sysctl user.max_user_namespaces=28633");
  if (facts.get("kernel/unprivileged_userns_clone") === "0")
    return fail(
      `${of} allows user namespaces to root alone`,
      "on every node: sysctl kernel.unprivileged_userns_clone=1",
    );
  if (facts.get("tun") !== "yes") return fail(`${of} has no /dev/net/tun`, "on every node: modprobe tun");
  if (facts.get("kernel/apparmor_restrict_unprivileged_userns") === "1")
    return warn(
      `${of} restricts user namespaces of programs without an AppArmor profile of their own`,
      "on every node: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    );
  return ok(`${where}, with user namespaces and /dev/net/tun; other nodes may differ`);
}

function dockerAdvice(reason: string): string | undefined {
  if (/net\/tun|hostPath type check/.test(reason)) return "on every node: modprobe tun";
  if (/user namespace|idmap|hostUsers/i.test(reason))
    return "user namespaces need Kubernetes 1.33 or the feature gate UserNamespacesSupport, containerd 2.0 or CRI-O 1.25, and Linux 6.3";
  if (/runtime|handler|kata/i.test(reason))
    return "install the runtime of this RuntimeClass on the nodes, or choose another docker";
  return undefined;
}
