import type { Attributes } from "./access.ts";
import { isWatch } from "./watch.ts";

const VERBS: Record<string, string> = { POST: "create", PUT: "update", PATCH: "patch" };

/**
 * What a request is about, as RBAC and the handlers see it; undefined for a path outside /api/v1's resources.
 * `/api/v1/namespaces/<ns>/<resource>[/<name>[/<subresource>]]`, or without a namespace for all of them.
 */
export function attributesOf(method: string, url: URL): Attributes | undefined {
  const [, api, version, ...path] = url.pathname.split("/");
  if (api !== "api" || version !== "v1" || path.length === 0) return undefined;
  const namespaced = path[0] === "namespaces" && path.length > 2;
  const parts = (namespaced ? path.slice(1) : [undefined, ...path]).map((part) => part && decodeURIComponent(part));
  const [namespace, resource = "", name, subresource] = parts;
  return { verb: verbOf(method, url, name), namespace, resource, subresource, name: name || undefined };
}

function verbOf(method: string, url: URL, name: string | undefined): string {
  if (method === "DELETE") return name ? "delete" : "deletecollection";
  if (method === "GET" || method === "HEAD") return name ? "get" : isWatch(url.searchParams) ? "watch" : "list";
  return VERBS[method] ?? method.toLowerCase();
}
