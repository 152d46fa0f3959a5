import { randomBytes } from "node:crypto";
import { KubeError } from "../kube/error.ts";
import type { Claim, KubeEvent, Pod } from "../kube/types.ts";
import { MANAGED_BY_LABEL, PLATFORM_LABEL, WORKLOAD_ID_LABEL } from "../pod/names.ts";
import { sleep } from "../time.ts";
import type { Exam } from "./exam.ts";

/** On everything the doctor makes, in place of the labels by which the runner, the platform and policies know workloads. */
const PROBE = { [MANAGED_BY_LABEL]: "k8s-runner-doctor" };
export const PROBE_SELECTOR = `${MANAGED_BY_LABEL}=${PROBE[MANAGED_BY_LABEL]}`;
/** Until when a probe may be in use, in Unix ms by the API server's clock: later it is what a doctor left that was killed. */
const IN_USE_UNTIL = "agyn.io/doctor-until";
/** What the checks of a running probe may take, altogether. */
const USE_MS = 120_000;
/** A deletion that is not answered by then is given up and told. */
const REMOVE_MS = 10_000;
const POLL_MS = 300;

/** What a probe's containers do: a line a second, and an end by themselves should nobody delete them. */
export const probeCommand = (seconds: number): string[] => [
  "-c",
  `i=0; while [ $i -lt ${seconds} ]; do echo "doctor $i"; i=$((i+1)); sleep 1; done`,
];

/** States of a container that no waiting mends. */
const HOPELESS = ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"];

/** A Pod of the doctor's own. It belongs to nobody, and is deleted at the end whatever happens. */
export class Probe {
  readonly name: string;
  /** The Pod when it ran. */
  running: Pod | undefined;
  readonly #exam: Exam;

  constructor(exam: Exam, suffix = "") {
    this.#exam = exam;
    this.name = `k8s-runner-doctor-${randomBytes(4).toString("hex")}${suffix}`;
  }

  /** Makes it from a workload's Pod, without the labels that make it one. Throws KubeError. */
  async create(workload: Pod): Promise<void> {
    const { kube, signal, leftBehind } = this.#exam;
    const pod = { ...workload, metadata: { ...workload.metadata, ...metadataFor(this.name, workload, this.#exam) } };
    // Before the request: one whose answer is lost may have been carried out.
    leftBehind.push(() => removeObject(this.#exam, "pods", this.name));
    await kube.pods.create(pod); // not cut by an interruption: nobody would know whether it was carried out
    signal.throwIfAborted();
  }

  /** Undefined once it runs; else why it does not, as far as anybody says. */
  async untilRunning(): Promise<string | undefined> {
    const { kube, options, signal } = this.#exam;
    const deadline = performance.now() + options.timeoutMs;
    for (;;) {
      const pod = await kube.pods.get(this.name, { signal });
      if (pod.status?.phase === "Running") {
        this.running = pod;
        return undefined;
      }
      const { reason, hopeless } = stateOf(pod);
      if (hopeless || performance.now() >= deadline) {
        const seconds = `${Math.round(options.timeoutMs / 1000)} s`;
        return `${hopeless ? "" : `not running after ${seconds}: `}${reason}${await this.#warnings(pod)}`;
      }
      await sleep(POLL_MS, signal);
    }
  }

  /** What the cluster warned of, when we may read that and the Pod's own state does not say it. */
  async #warnings(pod: Pod): Promise<string> {
    const texts = await warningsOf(this.#exam, pod.metadata?.uid);
    const state = JSON.stringify(pod.status ?? {});
    const last = texts.filter((text) => !state.includes(JSON.stringify(text).slice(1, -1))).at(-1);
    return last === undefined ? "" : `; ${last}`;
  }
}

/** The metadata of everything the doctor makes. */
export const metadataFor = (name: string, planned: Pod | Claim, exam: Exam) => ({
  name,
  labels: { ...withoutOurs(planned.metadata?.labels ?? {}), ...PROBE },
  annotations: {
    ...planned.metadata?.annotations,
    [IN_USE_UNTIL]: String(nowThere(exam) + exam.options.timeoutMs + USE_MS),
  },
});

const OURS = [MANAGED_BY_LABEL, PLATFORM_LABEL, WORKLOAD_ID_LABEL];

const withoutOurs = (labels: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(labels).filter(([key]) => !OURS.includes(key)));

/** The API server's clock, in Unix ms. */
const nowThere = ({ clock }: Exam): number => Date.now() + (clock === undefined ? 0 : clock.theirs - clock.ours);

/** Deletes an object, at once and with time of its own; one that is not there is fine. */
export async function removeObject(exam: Exam, kind: "pods" | "claims", name: string, uid?: string): Promise<void> {
  const signal = AbortSignal.timeout(REMOVE_MS);
  const options = { gracePeriodSeconds: 0, signal, ...(uid === undefined ? {} : { uid }) };
  try {
    await exam.kube[kind].delete(name, options);
    exam.removed++;
  } catch (error) {
    if (!(error instanceof KubeError && error.notFound)) throw error;
  }
}

/** Deletes what doctors left that were killed; what may still be in use stays. */
export async function removeLeftovers(exam: Exam): Promise<void> {
  const { kube, denied, signal } = exam;
  for (const [kind, resource] of [
    ["pods", "pods"],
    ["claims", "persistentvolumeclaims"],
  ] as const) {
    if (denied.has(`${resource} list`) || denied.has(`${resource} delete`)) continue;
    const { items } = await kube[kind].listAll({ labelSelector: PROBE_SELECTOR, signal });
    for (const { metadata } of items) {
      const until = Number(metadata?.annotations?.[IN_USE_UNTIL]);
      if (until > nowThere(exam)) continue; // false for what is no number
      await removeObject(exam, kind, metadata?.name ?? "", metadata?.uid);
    }
  }
}

/** What the Pod's own status says of why it does not run. */
function stateOf({ metadata, status }: Pod): { reason: string; hopeless: boolean } {
  const containers = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  const ended = containers.find(({ state }) => state?.terminated !== undefined && state.terminated.exitCode !== 0);
  const waiting = containers.find(
    ({ state }) => state?.waiting?.reason !== undefined && !STARTING.has(state.waiting.reason),
  );
  const unscheduled = status?.conditions?.find(({ type, status }) => type === "PodScheduled" && status === "False");
  if (waiting?.state?.waiting !== undefined) {
    const { reason = "", message } = waiting.state.waiting;
    return { reason: joined(`container ${waiting.name} waits`, reason, message), hopeless: HOPELESS.includes(reason) };
  }
  if (ended?.state?.terminated !== undefined) {
    const { reason, message, exitCode } = ended.state.terminated;
    return { reason: joined(`container ${ended.name} ended with ${exitCode}`, reason, message), hopeless: true };
  }
  if (status?.phase === "Failed" || status?.phase === "Succeeded")
    return { reason: joined(`the Pod ended (${status.phase})`, status.reason, status.message), hopeless: true };
  if (unscheduled !== undefined)
    return { reason: joined("not scheduled", unscheduled.reason, unscheduled.message), hopeless: false };
  if (metadata?.deletionTimestamp !== undefined) return { reason: "somebody deletes it", hopeless: true };
  return {
    reason: status?.phase === undefined ? "nobody has looked at it yet" : "its state does not say why",
    hopeless: false,
  };
}

/** Waiting that is the ordinary way to a start. */
const STARTING: ReadonlySet<string> = new Set(["ContainerCreating", "PodInitializing"]);

const joined = (...parts: readonly (string | undefined)[]): string =>
  parts.filter((part) => part !== undefined && part !== "").join(": ");

/** Texts of the warnings about this object, the newest last; none when we may not read events. */
export async function warningsOf({ kube, denied, signal }: Exam, uid: string | undefined): Promise<string[]> {
  if (denied.has("events list") || uid === undefined) return [];
  const { items } = await kube.events.listAll({ signal });
  return items
    .filter(({ type, involvedObject }) => type === "Warning" && involvedObject.uid === uid)
    .sort((a, b) => timeOf(a).localeCompare(timeOf(b)))
    .map(({ message }) => message ?? "");
}

const timeOf = ({ lastTimestamp, eventTime, metadata }: KubeEvent): string =>
  lastTimestamp ?? eventTime ?? metadata.creationTimestamp ?? "";
