import { KubeError } from "../kube/error.ts";
import { linesOf } from "../kube/stream.ts";
import type { KubeEvent, Pod } from "../kube/types.ts";
import { errorText } from "../log.ts";
import { allOf } from "../source.ts";
import { type BoundedSignal, boundedSignal } from "../time.ts";
import { rootOf } from "./admission.ts";
import { blocked, type Check, type Finding, fail, ok } from "./check.ts";
import type { Exam } from "./exam.ts";
import { PROBE_SELECTOR, Probe, probeCommand, removeLeftovers } from "./probe.ts";
import { Witness } from "./witness.ts";

/** Longer than the other checks may take with the Pod. */
const SPARE_SECONDS = 120;

export const workloadChecks: readonly Check[] = [
  { id: "pod", needs: ["namespace"], rights: ["pods create", "pods get", "pods delete"], run: pod },
  { id: "watch", needs: ["pod"], rights: ["pods list", "pods watch"], run: watch },
  { id: "exec", needs: ["pod"], rights: ["pods/exec get"], run: exec },
  { id: "log", needs: ["pod"], rights: ["pods/log get"], run: log },
  { id: "events", needs: ["pod"], rights: ["events list", "events watch"], run: events },
];

/** The probe Pod: a plain workload in everything but its labels. */
async function pod(exam: Exam): Promise<Finding> {
  const { admission, options, namespace } = exam;
  if (admission.plain?.refusal !== undefined) return blocked(rootOf(admission.plain.refusal));
  await removeLeftovers(exam);
  const probe = new Probe(exam);
  exam.probe = probe;
  await beginWatching(exam, probe);
  const startedAt = performance.now();
  await probe.create(exam.planFor({ main: probeContainer(exam) }).pod);
  const reason = await probe.untilRunning();
  if (reason !== undefined) return fail(`${probe.name}: ${reason}`, podAdvice(reason, namespace, options.image));
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  return ok(`${probe.name} of ${options.image} ran on ${nodeOf(probe)} after ${seconds} s`);
}

/** What a probe's main container is: it writes a line a second, and ends by itself should nobody delete it. */
export const probeContainer = ({ options }: Exam) => ({
  image: options.image,
  entrypoint: "/bin/sh",
  cmd: probeCommand(Math.ceil(options.timeoutMs / 1000) + SPARE_SECONDS),
});

export const nodeOf = ({ running }: Probe): string => `node ${running?.spec?.nodeName ?? "unknown"}`;

export function podAdvice(reason: string, namespace: string, image: string): string {
  if (/image/i.test(reason))
    return `nodes must be able to pull ${image}: name another image with /bin/sh by --image, or give the nodes a mirror of it`;
  if (reason.includes("not scheduled"))
    return "kubectl describe nodes: give them room, or change what workloads ask for (workloadPodTemplate: nodeSelector, tolerations, resources)";
  return `kubectl --namespace ${namespace} get events, and the log of the node's kubelet; --timeout gives a slow node more time`;
}

/** The watches begin before the Pod is made; one that cannot is told by its own check. */
async function beginWatching(exam: Exam, probe: Probe): Promise<void> {
  const { kube, denied, signal } = exam;
  const may = (resource: string) => !denied.has(`${resource} list`) && !denied.has(`${resource} watch`);
  const begun = async <T>(witness: Promise<Witness<T>>): Promise<Witness<T> | KubeError> => {
    try {
      const made = await witness;
      exam.leftBehind.push(async () => made.stop());
      return made;
    } catch (error) {
      if (error instanceof KubeError) return error;
      throw error;
    }
  };
  if (may("pods")) {
    const sees = ({ metadata, status }: Pod) => metadata?.name === probe.name && status?.phase === "Running";
    exam.watches.pod = await begun(Witness.of({ collection: kube.pods, labelSelector: PROBE_SELECTOR, sees }, signal));
  }
  if (may("events")) {
    const sees = ({ involvedObject }: KubeEvent) => involvedObject.name === probe.name;
    exam.watches.events = await begun(Witness.of({ collection: kube.events, sees }, signal));
  }
}

function watch(exam: Exam): Promise<Finding> {
  return witnessed(exam, "pod", {
    seen: "told of the Pod's start",
    unseen: `told nothing of the Pod within ${exam.patienceMs / 1000} s after it ran`,
    advice: "a proxy before the API server must pass on a watch as it comes, without buffering or a limit of its size",
  });
}

function events(exam: Exam): Promise<Finding> {
  return witnessed(exam, "events", {
    seen: "told of the Pod by a watch",
    unseen: `none about the Pod within ${exam.patienceMs / 1000} s after it ran`,
    advice: `kubectl --namespace ${exam.namespace} get events: scheduler and kubelet must be able to write them`,
  });
}

async function witnessed(
  exam: Exam,
  which: keyof Exam["watches"],
  { seen, unseen, advice }: { seen: string; unseen: string; advice: string },
): Promise<Finding> {
  const witness = exam.watches[which];
  if (witness instanceof KubeError) return fail(errorText(witness), advice);
  try {
    return (await witness?.sees(exam.patienceMs, exam.signal)) ? ok(seen) : fail(unseen, advice);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    return fail(errorText(error), advice);
  }
}

/**
 * How often a command is tried whose output or exit code did not come. An API server under load was seen to lose the output of
 * a command that has ended, and to tell success (Kubernetes 1.34, docs/exec.md); what is broken is broken each time.
 */
const EXEC_ATTEMPTS = 3;

/** A round trip: what goes into stdin comes out of stdout, and the exit code is the command's. */
async function exec(exam: Exam): Promise<Finding> {
  const advice =
    "exec goes over a WebSocket (v5.channel.k8s.io): every proxy and firewall before the API server must pass on the upgrade, and the API server must reach the kubelets (port 10250)";
  using bound = boundedSignal(exam.patienceMs, exam.signal);
  const word = `doctor-${performance.now()}`;
  try {
    for (let attempt = 1; ; attempt++) {
      const { said, code } = await roundTrip(exam, word, bound.signal);
      if (said === `${word}\n` && code === 7) return ok("stdin, stdout and the exit code came through");
      if (attempt === EXEC_ATTEMPTS)
        return fail(
          `its output came back as ${JSON.stringify(said.slice(0, 100))}, its exit code 7 as ${code}`,
          advice,
        );
    }
  } catch (error) {
    return streamFailure(error, bound, "no command could be run", advice);
  }
}

/** The command ends once its stdin does, and that only once its output is here: so nothing of it is on the way any more. */
async function roundTrip(
  { kube, probe }: Exam,
  word: string,
  signal: AbortSignal,
): Promise<{ said: string; code: number }> {
  const command = ["/bin/sh", "-c", 'read -r line; echo "$line"; read -r end; exit 7'];
  using channel = await kube.exec(probe?.name ?? "", { container: "main", command, stdin: true, signal });
  await channel.write(Buffer.from(`${word}\n`));
  let said = "";
  for await (const { stream, data } of allOf(channel)) {
    if (stream === "stdout") said += Buffer.from(data).toString();
    if (said.includes("\n")) channel.end();
  }
  return { said, code: await channel.exitCode };
}

/** What a shell's text writes to stdout in a container of a probe; its last line is `end`, which is taken off. Throws KubeError. */
export async function outputOf(
  { kube }: Exam,
  probe: Probe,
  { text, container, signal }: { text: string; container: string; signal: AbortSignal },
): Promise<string> {
  const command = ["/bin/sh", "-c", text];
  for (let attempt = 1; attempt <= EXEC_ATTEMPTS; attempt++) {
    using channel = await kube.exec(probe.name, { container, command, signal });
    let said = "";
    for await (const { stream, data } of allOf(channel)) if (stream === "stdout") said += Buffer.from(data).toString();
    await channel.exitCode;
    if (said.endsWith(END)) return said.slice(0, -END.length);
  }
  throw new KubeError(0, "", `the output of a command was lost ${EXEC_ATTEMPTS} times`);
}

const END = "end\n";

/** The first line, and another one that is written while we follow. */
async function log(exam: Exam): Promise<Finding> {
  const { kube, probe, patienceMs, signal } = exam;
  using bound = boundedSignal(patienceMs, signal);
  const lines: string[] = [];
  const advice = "the API server must reach the kubelets (port 10250), and a proxy before it must not buffer logs";
  try {
    const bytes = kube.log(probe?.name ?? "", { container: "main", follow: true, signal: bound.signal });
    for await (const line of linesOf(bytes)) if (lines.push(line) === 2) break;
  } catch (error) {
    return streamFailure(error, bound, `ended after ${lines.length} of 2 lines`, advice);
  }
  return lines[0] === "doctor 0" && lines[1] === "doctor 1"
    ? ok("followed while it was written")
    : fail(`other lines than the Pod wrote: ${JSON.stringify(lines)}`, advice);
}

/** Throws what is no failure of the cluster, such as an interruption. */
function streamFailure(error: unknown, bound: BoundedSignal, what: string, advice: string): Finding {
  if (bound.timedOut) return fail(`${what}: no answer in time`, advice);
  if (error instanceof KubeError) return fail(`${what}: ${errorText(error)}`, advice);
  throw error;
}
