import type { V1NetworkPolicy, V1StorageClass } from "@kubernetes/client-node";
import { KubeError } from "./error.ts";
import type { Transport } from "./request.ts";
import type { Wire } from "./types.ts";

export type StorageClass = Wire<V1StorageClass>;
export type NetworkPolicy = Wire<V1NetworkPolicy>;

/** One thing that somebody may do or not; without a namespace: in all of them. */
export interface Action {
  readonly verb: string;
  readonly group?: string;
  readonly resource: string;
  readonly subresource?: string;
  readonly namespace?: string;
}

/**
 * What a cluster says of itself and of who asks: reads outside of the workload namespace's own objects. Every method throws
 * KubeError, or `signal.reason` when aborted.
 */
export class Cluster {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** `major` and `minor` as numbers, and the version as text. */
  async version(signal: AbortSignal): Promise<{ major: number; minor: number; text: string }> {
    const { major, minor, gitVersion } = fieldsOf(await this.#get("/version", "version", signal));
    const number = (part: unknown) => Number.parseInt(String(part), 10); // some providers write 34+
    return { major: number(major), minor: number(minor), text: String(gitVersion) };
  }

  /** The name of the user that the API server takes us for, and its groups. */
  async whoAmI(signal: AbortSignal): Promise<{ name: string; groups: readonly string[] }> {
    const answer = await this.#post("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", {}, signal);
    const { username, groups } = fieldsOf(fieldsOf(fieldsOf(answer).status).userInfo);
    return {
      name: typeof username === "string" ? username : "",
      groups: Array.isArray(groups) ? groups.filter((group) => typeof group === "string") : [],
    };
  }

  /** Whether we may do this, as the API server's authorizers say now. */
  async may({ group = "", ...action }: Action, signal: AbortSignal): Promise<boolean> {
    const spec = { resourceAttributes: { group, ...action } };
    const kind = "SelfSubjectAccessReview";
    const answer = await this.#post("authorization.k8s.io", "selfsubjectaccessreviews", kind, { spec }, signal);
    const { allowed } = fieldsOf(fieldsOf(answer).status);
    if (typeof allowed !== "boolean") throw wrong(kind);
    return allowed;
  }

  /** The phase of a namespace, `Active` or `Terminating`. */
  async namespacePhase(name: string, signal: AbortSignal): Promise<string> {
    const answer = await this.#get(`/api/v1/namespaces/${encodeURIComponent(name)}`, "namespaces", signal);
    return String(fieldsOf(fieldsOf(answer).status).phase);
  }

  async storageClasses(signal: AbortSignal): Promise<StorageClass[]> {
    return itemsOf(await this.#get("/apis/storage.k8s.io/v1/storageclasses", "storageclasses", signal));
  }

  async networkPolicies(namespace: string, signal: AbortSignal): Promise<NetworkPolicy[]> {
    const path = `/apis/networking.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/networkpolicies`;
    return itemsOf(await this.#get(path, "networkpolicies", signal));
  }

  #get(path: string, resource: string, signal: AbortSignal): Promise<unknown> {
    return this.#transport.json({ method: "GET", path: { path, resource }, signal });
  }

  /** Reviews are made to be answered, and are stored nowhere: one whose answer was lost is asked again. */
  #post(group: string, resource: string, kind: string, more: object, signal: AbortSignal): Promise<unknown> {
    const body = { apiVersion: `${group}/v1`, kind, ...more };
    const path = { path: `/apis/${group}/v1/${resource}`, resource };
    return this.#transport.json({ method: "POST", path, body, repeatable: true, signal });
  }
}

type Fields = { readonly [key: string]: unknown };

function fieldsOf(value: unknown): Fields {
  if (isFields(value)) return value;
  throw wrong("JSON object");
}

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The cast: what the items of a list are is the API server's promise, as for every object (answer.ts). */
function itemsOf<T>(list: unknown): T[] {
  const { items } = fieldsOf(list);
  if (!Array.isArray(items)) throw wrong("list");
  return items.filter(isFields) as T[];
}

const wrong = (kind: string) => new KubeError(200, "", `the Kubernetes API answered something that is not a ${kind}`);
