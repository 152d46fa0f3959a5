import { expect } from "bun:test";
import { randomUUID } from "node:crypto";
import { parse } from "yaml";
import { type Backend, startBackend } from "../support/backend.ts";
import { Files, type Visit, type VisitOptions, visit } from "./rig.ts";

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

export type Named = { readonly metadata: { readonly name: string } & Record<string, unknown> } & Record<
  string,
  unknown
>;

export const CLUSTER_RBAC = "/apis/rbac.authorization.k8s.io/v1";

/** A namespace of a real cluster with the chart's Role in it, bound to the ServiceAccount by which doctor runs. */
export class RealNamespace implements AsyncDisposable {
  readonly name = `doctor-${randomUUID().slice(0, 8)}`;
  readonly path = `/api/v1/namespaces/${this.name}`;
  readonly files = new Files();
  readonly cluster: Backend;
  /** The environment of doctor: this namespace, and the ServiceAccount's token as its only credentials. */
  env: Record<string, string> = {};
  readonly #rules: readonly Rule[];
  readonly #role = `${CLUSTER_RBAC}/namespaces/${this.name}/roles`;
  /** Paths of what was made outside of the namespace or needs to be deleted by itself, in order. */
  readonly #made: string[] = [];

  private constructor(cluster: Backend, rules: readonly Rule[]) {
    this.cluster = cluster;
    this.#rules = rules;
  }

  static async make(): Promise<RealNamespace> {
    const cluster = await startBackend();
    if (cluster.kind !== "real") throw new Error("E2E_KUBECONFIG must name the admin access of a real cluster");
    const values: { rbac: { rules: Rule[] } } = parse(await Bun.file("charts/k8s-runner/values.yaml").text());
    const made = new RealNamespace(cluster, values.rbac.rules);
    await made.#setUp();
    return made;
  }

  async #setUp(): Promise<void> {
    const { name, path, cluster } = this;
    await this.make("/api/v1/namespaces", { metadata: { name } });
    // The controller makes `default` too: whoever comes first.
    for (const account of ["default", "k8s-runner"])
      await cluster.ask("POST", `${path}/serviceaccounts`, { metadata: { name: account } }).catch(ignoring(409));
    await cluster.ask("POST", this.#role, { metadata: { name: "k8s-runner" }, rules: this.#rules });
    await cluster.ask("POST", `${CLUSTER_RBAC}/namespaces/${name}/rolebindings`, {
      metadata: { name: "k8s-runner" },
      ...this.bindingTo("Role", "k8s-runner"),
    });
    const { tls } = await cluster.access.credentials();
    const access = { server: cluster.access.server.href, ca: tls.ca, token: await this.token("k8s-runner") };
    const KUBECONFIG = this.files.kubeconfig(access);
    this.env = { KUBECONFIG, KUBE_NAMESPACE: name, GRPC_ADDR: "127.0.0.1:0", PVC_STORAGE_SIZE: "1Mi" };
  }

  /** Role and subject of a binding of the ServiceAccount. */
  bindingTo(kind: "Role" | "ClusterRole", role: string) {
    return {
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind, name: role },
      subjects: [{ kind: "ServiceAccount", name: "k8s-runner", namespace: this.name }],
    };
  }

  get rules(): readonly Rule[] {
    return this.#rules;
  }

  /** Makes an object and resolves with the way to delete it, which is done in the end at the latest. */
  async make(path: string, object: Named): Promise<() => Promise<void>> {
    await this.cluster.ask("POST", path, object);
    const url = `${path}/${object.metadata.name}`;
    this.#made.push(url);
    return async () => {
      await this.cluster.ask("DELETE", url).catch(ignoring(404));
    };
  }

  async token(account: string): Promise<string> {
    const spec = { expirationSeconds: 3600 };
    const answer = await this.cluster.ask("POST", `${this.path}/serviceaccounts/${account}/token`, { spec });
    const { status } = answer as { status: { token: string } }; // a TokenRequest of authentication.k8s.io/v1
    return status.token;
  }

  /** Takes a verb from the Role; `mends` gets the way to give it back. */
  async take(resource: string, verb: string, mends: (() => unknown)[]): Promise<void> {
    const write = (rules: readonly Rule[]) => this.cluster.ask("PATCH", `${this.#role}/k8s-runner`, { rules });
    const args = ["--only", `rbac.${resource}`];
    const less = (rule: Rule) =>
      rule.resources.includes(resource) ? { ...rule, verbs: rule.verbs.filter((each) => each !== verb) } : rule;
    mends.push(async () => {
      await write(this.#rules);
      await this.until((found) => found.failed.length === 0, { args });
    });
    await write(this.#rules.map(less).filter(({ verbs }) => verbs.length > 0));
    await this.until((found) => found.failed.length > 0, { args });
  }

  /** What doctor says here, with other settings if any. */
  visit(more: Partial<VisitOptions> = {}): Promise<Visit> {
    return visit({ env: this.env, ...more });
  }

  /** Until the API server acts by a change, which for rights, quotas and policies takes it a moment. */
  async until(holds: (found: Visit) => boolean, more: Partial<VisitOptions>): Promise<void> {
    let found = await this.visit(more);
    for (let attempt = 0; attempt < ATTEMPTS && !holds(found); attempt++) found = await this.visit(more);
    if (!holds(found)) throw new Error(`the change has no effect: ${found.text}`);
  }

  async expectGreen(more: Partial<VisitOptions> = {}): Promise<Visit> {
    const found = await this.visit(more);
    expect(found.checks.filter(({ status }) => status === "fail")).toEqual([]);
    expect(found.exit).toBe(0);
    return found;
  }

  /** The check `id` alone fails, and what needs it is skipped for its sake; the checks of `still` are ok. */
  async expectOneFailure(id: string, seen: RegExp, more: Partial<VisitOptions>, still: readonly string[] = []) {
    const found = await this.visit(more);
    expect(found.failed).toEqual([id]);
    expect(found.of(id).seen).toMatch(seen);
    expect(found.of(id).advice).not.toBe("");
    expect(found.exit).toBe(1);
    for (const { status, blockedBy } of found.checks)
      if (blockedBy !== undefined) expect([status, blockedBy]).toEqual(["skip", id]);
    for (const other of still) expect([other, found.of(other).status]).toEqual([other, "ok"]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const url of this.#made.reverse()) await this.cluster.ask("DELETE", url).catch(ignoring(404));
    this.files[Symbol.dispose]();
    await this.cluster[Symbol.asyncDispose]();
  }
}

/** One look takes some tens of ms: more than any change needs. */
const ATTEMPTS = 200;

const ignoring = (status: number) => (error: unknown) => {
  if (!String(error).includes(`: ${status} `)) throw error;
};
