import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { claimProblem } from "./claims.ts";
import { RunningContainer } from "./container.ts";
import { NODE_NAME, type Occurrence, recordEvent } from "./events.ts";
import { startProblem } from "./images.ts";
import { sandboxOf } from "./namespaces.ts";
import { isPod, isSecret, type StoredPod, timestamp } from "./objects.ts";
import { Pipes } from "./pipes.ts";
import type { Mount, SandboxKind } from "./sandbox.ts";
import type { Store } from "./store.ts";
import type { Watchdog } from "./watchdog.ts";

/** A pull that fails is told as such for a moment, then as waiting for the next try. */
const BACK_OFF_MS = 200;

export interface NodeParts {
  readonly store: Store;
  readonly directory: string;
  readonly kind: SandboxKind;
  readonly watchdog: Watchdog;
}

/** Scheduler and kubelet of the one node: runs the containers of every Pod as processes and tells their state. */
export class Kubelet implements AsyncDisposable {
  readonly #parts: NodeParts;
  readonly #workers = new Map<string, PodWorker>();
  readonly #leave: (() => void)[];

  constructor(parts: NodeParts) {
    this.#parts = parts;
    const wake = () => {
      for (const worker of this.#workers.values()) worker.wake();
    };
    this.#leave = [
      parts.store.subscribe("pods", ({ type, object }) => {
        if (!isPod(object)) return;
        const { uid } = object.metadata;
        if (type === "ADDED") {
          const worker = new PodWorker(this.#parts, object);
          this.#workers.set(uid, worker);
          void worker.run().finally(() => this.#workers.delete(uid));
        } else if (type === "DELETED") this.#workers.get(uid)?.gone();
        else this.#workers.get(uid)?.wake();
      }),
      parts.store.subscribe("persistentvolumeclaims", wake),
      parts.store.subscribe("secrets", wake),
    ];
  }

  /** The container of a Pod; undefined when the Pod has none of this name or never came to this node. */
  container(pod: StoredPod, name: string): RunningContainer | undefined {
    return this.#workers.get(pod.metadata.uid)?.container(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const leave of this.#leave) leave();
    const workers = [...this.#workers.values()];
    for (const worker of workers) worker.gone();
    await Promise.all(workers.map((worker) => worker.over));
  }
}

/** Why the work on a Pod ends early. */
class Gone extends Error {}

class PodWorker {
  readonly over: Promise<void>;
  readonly #settle: () => void;
  readonly #parts: NodeParts;
  readonly #key: { namespace: string; name: string; uid: string };
  readonly #inits: RunningContainer[];
  readonly #mains: RunningContainer[];
  /** Ends of containers that were started. */
  readonly #ends: Promise<number>[] = [];
  #changed = Promise.withResolvers<void>();
  #gone = false;
  #phase: "Pending" | "Running" | "Succeeded" | "Failed" = "Pending";
  #scheduled: { status: "True" } | { status: "False"; reason: string; message: string } | undefined;
  #startTime: string | undefined;

  constructor(parts: NodeParts, pod: StoredPod) {
    this.#parts = parts;
    const { namespace, name, uid } = pod.metadata;
    this.#key = { namespace, name, uid };
    const directory = join(parts.directory, uid);
    mkdirSync(directory);
    const pipes = new Pipes(directory);
    const shared = { hostname: name, pipes, watchdog: parts.watchdog };
    this.#inits = (pod.spec.initContainers ?? []).map((spec) => new RunningContainer({ spec, ...shared }));
    this.#mains = pod.spec.containers.map((spec) => new RunningContainer({ spec, ...shared }));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    this.#settle = resolve;
  }

  container(name: string): RunningContainer | undefined {
    return this.#all.find(({ spec }) => spec.name === name);
  }

  /** Something about the Pod, its claims or Secrets changed. */
  wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  /** The Pod was removed: nothing of it may go on. */
  gone(): void {
    this.#gone = true;
    for (const container of this.#all) container.kill();
    this.wake();
  }

  /** The Pod's life, from its creation to its removal. Never rejects. */
  async run(): Promise<void> {
    const ending = this.#terminated();
    try {
      await Promise.race([this.#live(), ending]);
      await ending;
    } catch (error) {
      if (!(error instanceof Gone)) console.error("embedded kubelet:", error);
    } finally {
      for (const container of this.#all) container.kill();
      await Promise.allSettled(this.#ends);
      this.#settle();
    }
  }

  get #all(): RunningContainer[] {
    return [...this.#inits, ...this.#mains];
  }

  async #live(): Promise<void> {
    await this.#schedule();
    const mounts = await this.#volumes();
    await this.#pull();
    if (!(await this.#initialize(mounts))) return this.#finish("Failed");
    const ends = this.#mains.map((container) => this.#start(container, mounts));
    this.#phase = "Running";
    const codes = await Promise.all(ends);
    for (const sidecar of this.#inits.filter(({ running }) => running).reverse()) sidecar.terminate();
    for (const sidecar of this.#inits.filter(({ running }) => running)) sidecar.kill();
    await Promise.allSettled(this.#ends);
    this.#finish(codes.every((code) => code === 0) ? "Succeeded" : "Failed");
  }

  async #schedule(): Promise<void> {
    await this.#until((pod) => (pod.spec.schedulingGates ?? []).length === 0);
    await this.#until((pod) => {
      const problem = nodeProblem(pod) ?? claimProblem(this.#parts.store, pod);
      if (problem === undefined) return true;
      const message = `0/1 nodes are available: ${problem}.`;
      this.#scheduled = { status: "False", reason: "Unschedulable", message };
      if (this.#publish())
        this.#record({ reason: "FailedScheduling", message, type: "Warning", component: "default-scheduler" });
      return false;
    });
    const pod = this.#pod();
    const bound = { ...pod, spec: { ...pod.spec, nodeName: NODE_NAME } };
    this.#scheduled = { status: "True" };
    this.#startTime = timestamp();
    for (const container of this.#all)
      container.waits(this.#inits.length > 0 ? "PodInitializing" : "ContainerCreating");
    this.#parts.store.update("pods", bound);
    this.#publish();
    const { namespace, name } = this.#key;
    this.#record({
      reason: "Scheduled",
      message: `Successfully assigned ${namespace}/${name} to ${NODE_NAME}`,
      component: "default-scheduler",
    });
  }

  /** A directory for each volume; those of claims are kept for the next Pod that mounts the claim. */
  async #volumes(): Promise<Map<string, string>> {
    const { namespace, uid } = this.#key;
    const places = new Map<string, string>();
    for (const volume of this.#pod().spec.volumes ?? []) {
      const { name, persistentVolumeClaim: claim, secret, hostPath } = volume;
      const own = join(this.#parts.directory, uid, `volume-${name}`);
      const kept = claim && this.#parts.store.find("persistentvolumeclaims", namespace, claim.claimName)?.metadata.uid;
      const place = hostPath ? hostPath.path : kept ? join(this.#parts.directory, `claim-${kept}`) : own;
      if (!hostPath) mkdirSync(place, { recursive: true });
      if (secret?.secretName) await this.#writeSecret(secret.secretName, place);
      places.set(name, place);
    }
    return places;
  }

  async #writeSecret(name: string, place: string): Promise<void> {
    const find = () => this.#parts.store.find("secrets", this.#key.namespace, name);
    if (find() === undefined)
      this.#record({
        reason: "FailedMount",
        message: `MountVolume.SetUp failed: secret "${name}" not found`,
        type: "Warning",
      });
    await this.#until(() => find() !== undefined);
    const secret = find();
    if (secret === undefined || !isSecret(secret)) return;
    for (const [key, value] of Object.entries(secret.data ?? {}))
      writeFileSync(join(place, key), Buffer.from(value, "base64"));
  }

  /** Images are names only. A container that cannot be made from its own waits as long as the Pod is there. */
  async #pull(): Promise<void> {
    const { securityContext } = this.#pod().spec;
    const problems = this.#all.map((container) => ({
      container,
      problem: startProblem(container.spec, securityContext),
    }));
    const bad = problems.find(({ problem }) => problem !== undefined);
    if (bad?.problem === undefined) return;
    const { name, image = "" } = bad.container.spec;
    const tell = (reason: string, message: string) => {
      bad.container.waits(reason, message);
      this.#publish();
      this.#record({ reason: "Failed", message: `Error: ${reason}`, type: "Warning", container: name });
    };
    tell(bad.problem.reason, bad.problem.message);
    if (bad.problem.reason === "ErrImagePull") {
      await Promise.race([Bun.sleep(BACK_OFF_MS), this.#until(() => false)]);
      tell("ImagePullBackOff", `Back-off pulling image "${image}": ErrImagePull`);
    }
    await this.#until(() => false);
  }

  /** Init containers in order; false when one failed. Those that restart always run on beside the later ones. */
  async #initialize(places: ReadonlyMap<string, string>): Promise<boolean> {
    for (const container of this.#inits) {
      const end = this.#start(container, places);
      if (container.spec.restartPolicy === "Always")
        await this.#until(() => container.running || container.exitCode !== undefined);
      else if ((await end) !== 0) return false;
    }
    return true;
  }

  #start(container: RunningContainer, places: ReadonlyMap<string, string>): Promise<number> {
    if (this.#gone) throw new Gone();
    const { name, image } = container.spec;
    const directory = join(this.#parts.directory, this.#key.uid, `container-${name}`);
    mkdirSync(directory);
    const mounts = (container.spec.volumeMounts ?? []).map(({ name: volume, mountPath, subPath, readOnly }): Mount => {
      const place = places.get(volume) ?? directory;
      return { source: subPath ? join(place, subPath) : place, target: mountPath, readOnly: readOnly ?? false };
    });
    const sandbox = sandboxOf(this.#parts.kind, { directory, hostname: this.#key.name, mounts });
    this.#record({
      reason: "Pulled",
      message: `Container image "${image}" already present on machine`,
      container: name,
    });
    this.#record({ reason: "Created", message: `Created container: ${name}`, container: name });
    let started = false;
    const end = container.run(sandbox, () => {
      if (!started && container.running)
        this.#record({ reason: "Started", message: `Started container ${name}`, container: name });
      started = true;
      this.#publish();
      this.wake();
    });
    this.#ends.push(end);
    end.catch(() => undefined); // told by whoever waits for it
    return end;
  }

  #finish(phase: "Succeeded" | "Failed"): void {
    this.#phase = phase;
    this.#publish();
  }

  /** Waits for the Pod's deletion, then ends its containers within its grace period and removes it. */
  async #terminated(): Promise<void> {
    await this.#until((pod) => pod.metadata.deletionTimestamp !== undefined);
    const alive = () => this.#all.filter(({ running }) => running);
    for (const { spec } of alive())
      this.#record({ reason: "Killing", message: `Stopping container ${spec.name}`, container: spec.name });
    for (const container of alive()) container.terminate();
    const timer = this.#killAfterGrace();
    try {
      await this.#until(() => alive().length === 0);
    } finally {
      clearTimeout(timer);
    }
    await Promise.allSettled(this.#ends);
    const pod = this.#find();
    if (pod !== undefined) this.#parts.store.remove("pods", pod);
  }

  #killAfterGrace(): NodeJS.Timeout {
    const seconds = this.#pod().metadata.deletionGracePeriodSeconds ?? 30;
    const kill = () => {
      for (const container of this.#all) container.kill();
    };
    return setTimeout(kill, Math.min(seconds * 1000, 2 ** 31 - 1));
  }

  #find(): StoredPod | undefined {
    const { namespace, name, uid } = this.#key;
    const pod = this.#parts.store.find("pods", namespace, name);
    return pod !== undefined && isPod(pod) && pod.metadata.uid === uid ? pod : undefined;
  }

  #pod(): StoredPod {
    const pod = this.#find();
    if (pod === undefined || this.#gone) throw new Gone();
    return pod;
  }

  async #until(holds: (pod: StoredPod) => boolean): Promise<void> {
    while (!holds(this.#pod())) await this.#changed.promise;
  }

  #record(occurrence: Occurrence): void {
    const pod = this.#find();
    if (pod !== undefined) recordEvent(this.#parts.store, pod, occurrence);
  }

  /** Writes the status as it is now; false when it says nothing new. */
  #publish(): boolean {
    const pod = this.#find();
    if (pod === undefined) return false;
    const status = this.#status(pod);
    if (Bun.deepEquals(status, pod.status)) return false;
    const updated: StoredPod = { ...pod, status };
    this.#parts.store.update("pods", updated);
    return true;
  }

  #status(pod: StoredPod): StoredPod["status"] {
    const placed = this.#startTime !== undefined;
    const initialized = this.#inits.every(
      ({ exitCode, running, spec }) => exitCode === 0 || (running && spec.restartPolicy === "Always"),
    );
    const ready = this.#phase === "Running" && this.#mains.every(({ running }) => running);
    const condition = (type: string, holds: boolean) =>
      this.#condition(pod, { type, status: holds ? "True" : "False" });
    const conditions = [
      ...(placed
        ? [
            condition("PodReadyToStartContainers", true),
            condition("Initialized", initialized),
            condition("Ready", ready),
            condition("ContainersReady", ready),
          ]
        : []),
      ...(this.#scheduled === undefined ? [] : [this.#condition(pod, { type: "PodScheduled", ...this.#scheduled })]),
    ];
    return {
      ...pod.status,
      phase: this.#phaseNow,
      ...(conditions.length > 0 ? { conditions } : {}),
      ...(placed
        ? {
            hostIP: "127.0.0.1",
            podIP: "127.0.0.1",
            podIPs: [{ ip: "127.0.0.1" }],
            startTime: this.#startTime ?? "",
            containerStatuses: this.#mains.map((container) => container.status(false)),
            ...(this.#inits.length > 0
              ? { initContainerStatuses: this.#inits.map((container) => container.status(true)) }
              : {}),
          }
        : {}),
    };
  }

  /** Running only when no container waits any more, as the kubelet has it. */
  get #phaseNow() {
    const waits = this.#mains.some(({ waitingReason }) => waitingReason !== undefined);
    return this.#phase === "Running" && waits ? "Pending" : this.#phase;
  }

  #condition(pod: StoredPod, now: { type: string; status: string; reason?: string; message?: string }) {
    const before = pod.status.conditions?.find(({ type }) => type === now.type);
    const since = before?.status === now.status ? before.lastTransitionTime : undefined;
    return { lastProbeTime: null as unknown as string, lastTransitionTime: since ?? timestamp(), ...now };
  }
}

/** The one node has no labels. */
const nodeProblem = ({ spec: { nodeSelector = {} } }: StoredPod): string | undefined =>
  Object.keys(nodeSelector).length === 0 ? undefined : "1 node(s) didn't match Pod's node affinity/selector";
