/** The shape that all API objects share, readers for objects as they come from outside, and merge patch. */
import type { Claim, KubeEvent, Pod, Secret } from "../../../src/kube/types.ts";

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
}

export interface Metadata {
  readonly name: string;
  readonly generateName?: string;
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation?: number;
  readonly creationTimestamp: string;
  readonly deletionTimestamp?: string;
  readonly deletionGracePeriodSeconds?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly OwnerReference[];
  readonly finalizers?: readonly string[];
  readonly managedFields?: readonly unknown[];
}

/** An object as it is stored. Stored objects are never changed: an update replaces them. */
export interface ApiObject {
  readonly apiVersion: "v1";
  readonly kind: string;
  readonly metadata: Metadata;
}

export type StoredPod = ApiObject & {
  readonly spec: NonNullable<Pod["spec"]>;
  readonly status: NonNullable<Pod["status"]>;
};
export type StoredClaim = ApiObject & {
  readonly spec: NonNullable<Claim["spec"]>;
  readonly status: NonNullable<Claim["status"]>;
};
export type StoredSecret = ApiObject & Pick<Secret, "data" | "type">;
export type StoredEvent = ApiObject & Omit<KubeEvent, "metadata" | "apiVersion" | "kind">;

export const isPod = (object: ApiObject): object is StoredPod => object.kind === "Pod";
export const isClaim = (object: ApiObject): object is StoredClaim => object.kind === "PersistentVolumeClaim";
export const isSecret = (object: ApiObject): object is StoredSecret => object.kind === "Secret";

/** A JSON object of which nothing is known yet. */
export type JsonObject = { readonly [key: string]: unknown };

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Whether this has what every object must have; the rest of it is for validation to check. */
export function isApiObject(value: unknown): value is ApiObject {
  if (!isObject(value) || typeof value.kind !== "string" || !isObject(value.metadata)) return false;
  const { name, namespace } = value.metadata;
  return typeof name === "string" && typeof namespace === "string";
}

/** Readers of a field: what is not there, or of another type, is as if it were empty. */
export const objectAt = (object: JsonObject, key: string): JsonObject => {
  const value = object[key];
  return isObject(value) ? value : {};
};
export const textAt = (object: JsonObject, key: string): string => {
  const value = object[key];
  return typeof value === "string" ? value : "";
};
export const objectsAt = (object: JsonObject, key: string): JsonObject[] => {
  const value = object[key];
  return Array.isArray(value) ? value.filter(isObject) : [];
};
export const textsAt = (object: JsonObject, key: string): string[] => {
  const value = object[key];
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
};
export const textMapAt = (object: JsonObject, key: string): Record<string, string> =>
  Object.fromEntries(
    Object.entries(objectAt(object, key)).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );

/** RFC 3339 to the second, as metav1.Time is written. */
export const timestamp = (at: number = Date.now()): string => `${new Date(at).toISOString().slice(0, 19)}Z`;

/** RFC 3339 with six decimals, as metav1.MicroTime is written. */
export const microTimestamp = (at: number = Date.now()): string => `${new Date(at).toISOString().slice(0, 23)}000Z`;

/** JSON merge patch (RFC 7386): null deletes, objects merge, anything else replaces. `target` stays as it was. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  // A map, for a key may be `__proto__`.
  const result = new Map(Object.entries(isObject(target) ? target : {}));
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) result.delete(key);
    else result.set(key, mergePatch(result.get(key), value));
  }
  return Object.fromEntries(result);
}
