/** The shape that all API objects share, and small accessors over it. */

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
}

export interface Metadata {
  name: string;
  namespace: string;
  uid: string;
  resourceVersion: string;
  generation?: number;
  creationTimestamp: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: OwnerReference[];
  finalizers?: string[];
  managedFields?: unknown[];
  generateName?: string;
}

/** An object as it is stored. Stored objects are never changed: an update replaces them. */
export interface ApiObject {
  readonly apiVersion: "v1";
  readonly kind: string;
  readonly metadata: Metadata;
}

/** What a client sent, before anything is known about it. */
export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** RFC 3339 to the second, as metav1.Time is written. */
export const timestamp = (at: Date = new Date()): string => `${at.toISOString().slice(0, 19)}Z`;

/** RFC 3339 with six decimals, as metav1.MicroTime is written. */
export const microTimestamp = (at: Date = new Date()): string => `${at.toISOString().slice(0, 23)}000Z`;

/** JSON merge patch (RFC 7386): null deletes, objects merge, anything else replaces. `target` stays as it was. */
export function mergePatch(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const result: JsonObject = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else
      Object.defineProperty(
        result,
        key,
        entry(mergePatch(Object.hasOwn(result, key) ? result[key] : undefined, value)),
      );
  }
  return result;
}

/** A plain property even for the key `__proto__`. */
const entry = (value: Json) => ({ value, enumerable: true, configurable: true, writable: true });
