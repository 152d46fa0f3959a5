import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import type { Kube } from "../../src/kube/client.ts";
import { adminOf } from "../support/backend.ts";
import { type EmbeddedCluster, embeddedAccess, startCluster } from "../support/cluster/cluster.ts";
import { Gate } from "../support/gate.ts";
import { Files, type KubeconfigParts, type Visit, type VisitOptions, visit } from "./rig.ts";

/** An embedded cluster for doctor to visit, with a gate before it. */
export class Embedded implements AsyncDisposable {
  readonly cluster: EmbeddedCluster;
  readonly gate: Gate;
  readonly admin: Kube;
  readonly files = new Files();
  /** The environment of a doctor that has the runner's token. */
  readonly env: Readonly<Record<string, string>>;

  private constructor(cluster: EmbeddedCluster, gate: Gate) {
    this.cluster = cluster;
    this.gate = gate;
    ({ admin: this.admin } = adminOf(embeddedAccess(cluster, { admin: true }), cluster.namespace));
    this.env = { KUBE_NAMESPACE: cluster.namespace, GRPC_ADDR: "127.0.0.1:0", ...this.access({}) };
  }

  /** For all tests of the calling file. */
  static shared(): () => Embedded {
    setDefaultTimeout(30_000); // for this file alone
    let made: Embedded | undefined;
    beforeAll(async () => {
      const cluster = await startCluster();
      made = new Embedded(cluster, await Gate.over(embeddedAccess(cluster)));
    });
    afterAll(() => made?.[Symbol.asyncDispose]());
    return () => {
      if (made === undefined) throw new Error("the cluster is there only while tests run");
      return made;
    };
  }

  /** KUBECONFIG of another access than the runner's own. */
  access(parts: Partial<KubeconfigParts>): { KUBECONFIG: string } {
    const { url: server, caPem: ca, token } = this.cluster;
    return { KUBECONFIG: this.files.kubeconfig({ server, ca, token, ...parts }) };
  }

  get throughGate(): Record<string, string> {
    return { ...this.env, KUBECONFIG: this.files.kubeconfig({ server: this.gate.url }) };
  }

  /** Names of all that is in the namespace. */
  async everything(): Promise<string[]> {
    const { pods, claims, secrets } = this.admin;
    const lists = [(await pods.list()).items, (await claims.list()).items, (await secrets.list()).items];
    return lists.flatMap((items) => items.map(({ metadata }) => metadata?.name ?? ""));
  }

  /** One thing is broken: doctor names it and nothing else, and leaves nothing behind. */
  async expectOneFailure(id: string, seen: RegExp, options: Partial<VisitOptions> = {}): Promise<Visit> {
    const found = await visit({ env: this.env, ...options });
    expect(found.failed).toEqual([id]);
    expect(found.of(id).seen).toMatch(seen);
    expect(found.of(id).advice).not.toBe("");
    expect(found.exit).toBe(1);
    for (const check of found.checks.filter(({ blockedBy }) => blockedBy !== undefined))
      expect([check.status, check.blockedBy, check.seen]).toEqual(["skip", id, `needs ${id}`]);
    expect(await this.everything()).toEqual([]);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.files[Symbol.dispose]();
    await this.gate[Symbol.asyncDispose]();
    await this.cluster[Symbol.asyncDispose]();
  }
}
