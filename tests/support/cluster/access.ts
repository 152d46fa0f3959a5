/** Who may do what: bearer tokens and the one Role of the runner (authentication, then authorization, as the API server does). */
import { randomBytes } from "node:crypto";
import { ApiError } from "./status.ts";

/** One request, as RBAC looks at it. */
export interface Attributes {
  readonly verb: string;
  readonly namespace: string | undefined;
  readonly resource: string;
  readonly subresource: string | undefined;
  readonly name: string | undefined;
  /** API group; without it the core group. */
  readonly group?: string;
}

export type User = "admin" | "runner" | "anonymous";

const NAMES: Record<User, (namespace: string) => string> = {
  admin: () => "kubernetes-admin",
  runner: (namespace) => `system:serviceaccount:${namespace}:k8s-runner`,
  anonymous: () => "system:anonymous",
};

/** The runner's Role in its namespace: ruling 23, verb for verb. */
const RIGHTS: Record<string, readonly string[]> = {
  pods: ["get", "list", "watch", "create", "delete", "patch"],
  "pods/exec": ["get", "create"],
  "pods/log": ["get"],
  persistentvolumeclaims: ["get", "list", "watch", "create", "delete"],
  secrets: ["create", "delete"],
  events: ["list", "watch"],
};

/** Paths that everybody may read; others of this kind need authentication. */
const PUBLIC = /^\/(version|readyz|livez|healthz)$/;
const DISCOVERY = /^\/apis?(\/|$)/;

export class Access {
  readonly adminToken = randomBytes(24).toString("base64url");
  readonly #runnerTokens = new Set<string>();
  /** Rights taken from the runner, as `pods/exec get`. */
  readonly denied = new Set<string>();
  readonly #namespace: string;
  #token = "";

  constructor(namespace: string) {
    this.#namespace = namespace;
    this.renewToken();
  }

  /** The runner's newest token. */
  get token(): string {
    return this.#token;
  }

  /** A new token for the runner; with `revoke` the earlier ones are good no more. */
  renewToken(o: { revoke: boolean } = { revoke: true }): void {
    if (o.revoke) this.#runnerTokens.clear();
    this.#token = randomBytes(24).toString("base64url");
    this.#runnerTokens.add(this.#token);
  }

  /** Throws 401 for a token that is not good; without one the user is anonymous. */
  authenticate(authorization: string | undefined): User {
    if (authorization === undefined) return "anonymous";
    const token = /^Bearer (.*)$/.exec(authorization)?.[1] ?? "";
    if (token === this.adminToken) return "admin";
    if (this.#runnerTokens.has(token)) return "runner";
    throw new ApiError(401, "Unauthorized", "Unauthorized");
  }

  /** Throws 403 unless the user may call a path outside the resources. */
  authorizePath(user: User, path: string): void {
    if (user === "admin" || PUBLIC.test(path) || (user === "runner" && DISCOVERY.test(path))) return;
    throw new ApiError(403, "Forbidden", `forbidden: User "${this.name(user)}" cannot get path "${path}"`, {});
  }

  /** Whether the user may do this. */
  may(user: User, { verb, namespace, resource, subresource, group = "" }: Omit<Attributes, "name">): boolean {
    const full = subresource === undefined ? resource : `${resource}/${subresource}`;
    const granted = group === "" && RIGHTS[full]?.includes(verb) && !this.denied.has(`${full} ${verb}`);
    return user === "admin" || (user === "runner" && namespace === this.#namespace && granted === true);
  }

  /** Throws 403 unless the user may do this. */
  authorize(user: User, attributes: Attributes): void {
    if (this.may(user, attributes)) return;
    const { verb, namespace, resource, subresource, name, group = "" } = attributes;
    const full = subresource === undefined ? resource : `${resource}/${subresource}`;
    const grouped = group === "" ? resource : `${resource}.${group}`;
    const subject = name === undefined ? grouped : `${grouped} "${name}"`;
    const scope = namespace === undefined ? "at the cluster scope" : `in the namespace "${namespace}"`;
    const cause = `User "${this.name(user)}" cannot ${verb} resource "${full}" in API group "${group}" ${scope}`;
    throw new ApiError(403, "Forbidden", `${subject} is forbidden: ${cause}`, {
      ...(name === undefined ? {} : { name }),
      kind: resource,
    });
  }

  name(user: User): string {
    return NAMES[user](this.#namespace);
  }
}
