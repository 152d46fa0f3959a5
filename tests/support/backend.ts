import { readFileSync } from "node:fs";
import { type Access, clusterAccess } from "../../src/kube/access.ts";
import { Kube } from "../../src/kube/client.ts";
import { createLog } from "../../src/log.ts";

/** One request that reached the embedded cluster, in order of arrival. */
export interface ApiRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly status: number;
}

/** The Kubernetes behind the runner under test. */
export interface Backend extends AsyncDisposable {
  readonly kind: "embedded" | "real";
  /** What the runner may do. On a real cluster with E2E_IN_CLUSTER=1 just what its ServiceAccount may. */
  readonly access: Access;
  readonly namespace: string;
  /** Everything, in the workload namespace: to make foreign objects and to look at what the runner made. */
  readonly admin: Kube;
  /** One bare request with the admin's rights, for what is not namespaced; the parsed answer. */
  ask(method: string, path: string, body?: object): Promise<unknown>;
  /** As a compaction of etcd: watches and continue tokens of before are answered 410. The embedded cluster's alone. */
  compact?(): void;
  /** Every change of a Pod from now on, as the cluster's own journal has it. The embedded cluster's alone. */
  journal?(listener: (change: PodChange) => void): () => void;
}

export interface PodChange {
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly name: string;
  readonly uid: string;
  readonly version: string;
}

/**
 * The one switch between the embedded cluster and a real one: E2E_KUBECONFIG names the real cluster's admin access,
 * E2E_NAMESPACE its workload namespace (default agyn); E2E_IN_CLUSTER=1 gives the runner the access that a Pod's
 * environment gives (KUBERNETES_SERVICE_HOST and the mounted ServiceAccount) in place of the admin's.
 */
export async function startBackend(env: Record<string, string | undefined> = process.env): Promise<Backend> {
  const kubeconfig = env.E2E_KUBECONFIG;
  return kubeconfig === undefined || kubeconfig === "" ? embedded() : real(kubeconfig, env);
}

async function embedded(): Promise<Backend> {
  const { embeddedAccess, startCluster } = await import("./cluster/cluster.ts"); // not loaded for a real cluster
  const cluster = await startCluster();
  return {
    kind: "embedded",
    access: embeddedAccess(cluster),
    ...adminOf(embeddedAccess(cluster, { admin: true }), cluster.namespace),
    compact: () => cluster.compact(),
    journal: (listener) =>
      cluster.journal("pods", ({ type, version, object: { metadata } }) =>
        listener({ type, version: String(version), name: metadata.name, uid: metadata.uid }),
      ),
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}

function real(kubeconfig: string, env: Record<string, string | undefined>): Backend {
  readFileSync(kubeconfig); // a wrong path fails here, with the path in the message, and not as a test on another cluster
  const admin = clusterAccess({ KUBECONFIG: kubeconfig });
  const access = env.E2E_IN_CLUSTER === "1" ? clusterAccess(env) : admin;
  return {
    kind: "real",
    access,
    ...adminOf(admin, env.E2E_NAMESPACE ?? "agyn"),
    [Symbol.asyncDispose]: async () => {}, // not ours to end
  };
}

export function adminOf(access: Access, namespace: string): Pick<Backend, "admin" | "ask" | "namespace"> {
  return {
    namespace,
    admin: new Kube({ access, namespace, log: createLog({ level: "error" }) }),
    async ask(method, path, body) {
      const { headers, tls } = await access.credentials();
      const contentType = method === "PATCH" ? "application/merge-patch+json" : "application/json";
      const response = await fetch(new URL(path, access.server), {
        method,
        headers: { ...headers, "content-type": contentType },
        tls,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
      return response.json();
    },
  };
}
