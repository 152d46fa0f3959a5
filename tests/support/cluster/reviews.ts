/** What the API server says about itself and about who asks: reviews, and the few objects outside of namespaces that there are. */
import type { IncomingMessage } from "node:http";
import type { Access, Attributes, User } from "./access.ts";
import { STORAGE_CLASS } from "./claims.ts";
import { isObject, type JsonObject, objectAt, textAt } from "./objects.ts";
import { readBody } from "./server.ts";
import { ApiError, badRequest } from "./status.ts";

const ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const SUBJECT_REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/** The answer to a review; undefined when the request is none. Throws 403 for who is nobody. */
export async function review(
  request: IncomingMessage,
  { pathname }: URL,
  { access, user }: { access: Access; user: User },
): Promise<JsonObject | undefined> {
  if (request.method !== "POST" || (pathname !== ACCESS_REVIEWS && pathname !== SUBJECT_REVIEWS)) return undefined;
  const [, , group, , resource = ""] = pathname.split("/");
  if (user === "anonymous") {
    const cause = `User "system:anonymous" cannot create resource "${resource}" in API group "${group}" at the cluster scope`;
    throw new ApiError(403, "Forbidden", `${resource}.${group} is forbidden: ${cause}`, { kind: resource });
  }
  const body = JSON.parse(await readBody(request));
  if (!isObject(body)) throw badRequest("the object provided is unrecognized");
  if (pathname === SUBJECT_REVIEWS) {
    const username = access.name(user);
    const groups = user === "admin" ? ["system:masters"] : ["system:serviceaccounts"];
    return { ...body, status: { userInfo: { username, groups: [...groups, "system:authenticated"] } } };
  }
  const wanted = objectAt(objectAt(body, "spec"), "resourceAttributes");
  const part = (key: string) => textAt(wanted, key) || undefined;
  const allowed = access.may(user, {
    verb: textAt(wanted, "verb"),
    namespace: part("namespace"),
    resource: textAt(wanted, "resource"),
    subresource: part("subresource"),
    group: textAt(wanted, "group"),
  });
  return { ...body, status: { allowed } };
}

/** Objects that are read only: the one namespace, the one StorageClass and no NetworkPolicy; undefined for all else. */
export function clusterAnswer({ verb, resource, name, group }: Attributes, namespace: string): JsonObject | undefined {
  if (verb === "get" && resource === "namespaces" && name === namespace)
    return { apiVersion: "v1", kind: "Namespace", metadata: { name }, status: { phase: "Active" } };
  if (verb !== "list") return undefined;
  const list = (kind: string, items: object[]) => ({
    apiVersion: `${group}/v1`,
    kind: `${kind}List`,
    metadata: {},
    items,
  });
  if (resource === "storageclasses") return list("StorageClass", [standard]);
  if (resource === "networkpolicies") return list("NetworkPolicy", []);
  return undefined;
}

const standard = {
  metadata: { name: STORAGE_CLASS, annotations: { "storageclass.kubernetes.io/is-default-class": "true" } },
  provisioner: "kubernetes.io/no-provisioner",
};
