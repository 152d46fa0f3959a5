import type { Attributes } from "./access.ts";
import { isWatch } from "./watch.ts";

const VERBS: Record<string, string> = { POST: "create", PUT: "update", PATCH: "patch" };

/**
 * What a request is about, as RBAC and the handlers see it; undefined for a path outside of the resources of /api/v1 and
 * /apis/<group>/v1: `/namespaces/<ns>/<resource>[/<name>[/<subresource>]]`, or without a namespace for all of them.
 */
export function attributesOf(method: string, url: URL): Attributes | undefined {
  const [, api, ...rest] = url.pathname.split("/");
  const group = api === "apis" && rest.length > 2 ? rest.shift() : undefined;
  const [version, ...path] = rest;
  if ((api !== "api" && group === undefined) || version !== "v1" || path.length === 0) return undefined;
  const namespaced = path[0] === "namespaces" && path.length > 2;
  const parts = (namespaced ? path.slice(1) : [undefined, ...path]).map((part) => part && decodeURIComponent(part));
  const [namespace, resource = "", name, subresource] = parts;
  return {
    verb: verbOf(method, url, name),
    namespace,
    resource,
    subresource,
    name: name || undefined,
    ...(group && { group }),
  };
}

function verbOf(method: string, url: URL, name: string | undefined): string {
  if (method === "DELETE") return name ? "delete" : "deletecollection";
  if (method === "GET" || method === "HEAD") return name ? "get" : isWatch(url.searchParams) ? "watch" : "list";
  return VERBS[method] ?? method.toLowerCase();
}
