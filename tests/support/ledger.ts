import { randomUUID } from "node:crypto";
import { KubeError } from "../../src/kube/error.ts";
import type { Claim, Pod, Secret } from "../../src/kube/types.ts";
import type { Backend } from "./backend.ts";
import { until } from "./wait.ts";

const WORKLOAD_ID_LABEL = "agyn.io/workload-id";
const MARK = "e2e-run";

interface Named {
  metadata?: { name?: string; labels?: Record<string, string>; uid?: string };
}

/** What one runner's tests made in a cluster that others may use too: how to tell it, remove it, and see that it is gone. */
export class Ledger {
  readonly #backend: Backend;
  readonly #alone: boolean;
  /** Names this run: the value of the label on everything. */
  readonly run = randomUUID().slice(0, 8);
  readonly workloads = new Set<string>();
  readonly claims = new Set<string>();
  readonly #foreignPods = new Set<string>();
  readonly #foreignSecrets = new Set<string>();
  readonly #foreignClaims = new Set<string>();

  /** `alone`: nobody else uses the cluster, so nothing at all may be left in it. */
  constructor(backend: Backend, { alone }: { alone: boolean }) {
    this.#backend = backend;
    this.#alone = alone;
  }

  /** For `additional_properties`: the label goes to the Pod and to the claims made for it. */
  get mark(): Record<string, string> {
    return { [`label.${MARK}`]: this.run };
  }

  /** A workload to be removed in the end. */
  workload(workloadId: string): string {
    this.workloads.add(workloadId);
    return workloadId;
  }

  /** A claim name that no other run uses; the claim is removed in the end if it exists. */
  claimName(purpose: string): string {
    const name = `e2e-${this.run}-${purpose}`;
    this.claims.add(name);
    return name;
  }

  /** Makes a Pod that the runner did not make. It idles unless `spec` says otherwise. */
  async foreignPod(
    name: string,
    o: { labels?: Record<string, string>; annotations?: Record<string, string>; spec?: Partial<Pod["spec"]> } = {},
  ): Promise<Pod> {
    this.#foreignPods.add(name);
    return await this.#backend.admin.pods.create({
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        name,
        labels: { [MARK]: this.run, ...o.labels },
        ...(o.annotations && { annotations: o.annotations }),
      },
      spec: {
        restartPolicy: "Never",
        terminationGracePeriodSeconds: 1,
        containers: [{ name: "main", image: "alpine:3.19", args: ["sleep", "300"] }],
        ...o.spec,
      },
    });
  }

  async foreignClaim(name: string, labels: Record<string, string> = {}): Promise<Claim> {
    this.#foreignClaims.add(name);
    return await this.#backend.admin.claims.create({
      apiVersion: "v1",
      kind: "PersistentVolumeClaim",
      metadata: { name, labels: { [MARK]: this.run, ...labels } },
      spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Mi" } } },
    });
  }

  async foreignSecret(name: string, labels: Record<string, string> = {}): Promise<Secret> {
    this.#foreignSecrets.add(name);
    return await this.#backend.admin.secrets.create({
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name, labels: { [MARK]: this.run, ...labels } },
      stringData: { key: "foreign" },
    });
  }

  async secretsOf(workloadId: string): Promise<Secret[]> {
    return (await this.#backend.admin.secrets.list({ labelSelector: `${WORKLOAD_ID_LABEL}=${workloadId}` })).items;
  }

  claimNamed(name: string): Promise<Claim | undefined> {
    return found(this.#backend.admin.claims.get(name));
  }

  podNamed(name: string): Promise<Pod | undefined> {
    return found(this.#backend.admin.pods.get(name));
  }

  secretNamed(name: string): Promise<Secret | undefined> {
    return found(this.#backend.admin.secrets.get(name));
  }

  /** Removes foreign objects, then waits until nothing of this run is left. What is left in spite of it is removed, and told. */
  async settle(): Promise<void> {
    await this.#removeForeign();
    const left = await until("nothing is left over", async () => {
      const names = await this.#leftovers();
      return names.length === 0 ? names : undefined;
    }).catch(() => this.#leftovers());
    if (left.length > 0) {
      await this.#removeByForce();
      throw new Error(`left over after the tests: ${left.join(", ")}`);
    }
    if (this.#backend.kind === "real") await this.#freeDisks();
  }

  async #removeForeign(): Promise<void> {
    const { pods, claims, secrets } = this.#backend.admin;
    await Promise.all([
      ...[...this.#foreignPods].map((name) => found(pods.delete(name, { gracePeriodSeconds: 0 }))),
      ...[...this.#foreignClaims].map((name) => found(claims.delete(name))),
      ...[...this.#foreignSecrets].map((name) => found(secrets.delete(name))),
    ]);
  }

  async #leftovers(): Promise<string[]> {
    const { pods, claims, secrets } = await this.#ours();
    const name = (kind: string) => (object: Named) => `${kind}/${object.metadata?.name}`;
    return [...pods.map(name("pod")), ...claims.map(name("claim")), ...secrets.map(name("secret"))];
  }

  async #removeByForce(): Promise<void> {
    const { pods, claims, secrets } = await this.#ours();
    const { admin } = this.#backend;
    const nameOf = (object: Named) => object.metadata?.name ?? "";
    await Promise.all([
      ...pods.map((pod) => found(admin.pods.delete(nameOf(pod), { gracePeriodSeconds: 0 }))),
      ...claims.map((claim) => found(admin.claims.delete(nameOf(claim)))),
      ...secrets.map((secret) => found(admin.secrets.delete(nameOf(secret)))),
    ]);
  }

  async #ours() {
    const { admin } = this.#backend;
    const [pods, claims, secrets] = await Promise.all([admin.pods.list(), admin.claims.list(), admin.secrets.list()]);
    const ours = ({ metadata: { name = "", labels = {} } = {} }: Named) =>
      this.#alone ||
      labels[MARK] === this.run ||
      this.workloads.has(labels[WORKLOAD_ID_LABEL] ?? "") ||
      this.claims.has(name);
    return { pods: pods.items.filter(ours), claims: claims.items.filter(ours), secrets: secrets.items.filter(ours) };
  }

  /**
   * A cluster whose disks were made by hand and are kept after use (reclaim policy Retain) has few of them: those that our
   * claims had are given back. Disks with a provisioner are its business.
   */
  async #freeDisks(): Promise<void> {
    const names = new Set([...this.claims, ...this.#foreignClaims]);
    if (names.size === 0) return;
    await until("the disks are released", async () => {
      const disks = (await this.#disks()).filter(
        ({ spec }) => spec.claimRef?.namespace === this.#backend.namespace && names.has(spec.claimRef.name),
      );
      const released = disks.filter(({ status }) => status.phase === "Released");
      for (const { metadata } of released) {
        const path = `/api/v1/persistentvolumes/${metadata.name}`;
        await this.#backend.ask("PATCH", path, { spec: { claimRef: null } });
      }
      return released.length === disks.length ? true : undefined;
    });
  }

  async #disks(): Promise<Disk[]> {
    const { items } = (await this.#backend.ask("GET", "/api/v1/persistentvolumes")) as { items: Disk[] }; // the API's own shape
    return items.filter(({ spec }) => spec.persistentVolumeReclaimPolicy === "Retain" && spec.csi === undefined);
  }
}

interface Disk {
  metadata: { name: string };
  spec: { persistentVolumeReclaimPolicy: string; csi?: object; claimRef?: { namespace: string; name: string } };
  status: { phase: string };
}

/** The answer, or undefined when there is no such object. */
async function found<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof KubeError && error.notFound) return undefined;
    throw error;
  }
}
