import { isStatus } from "./error.ts";

/* What the API server sent, as the types that the rest works with; the kind decides. */

export interface ListPage<T> {
  items: T[];
  metadata: { resourceVersion: string; continue?: string };
}

/** ERROR events are no events here: they end the watch with a KubeError. */
export type WatchEvent<T> = { type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK"; object: T };

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Throws for bytes that are no UTF-8: guessing at them would make a name that no object has. */
export const utf8 = (bytes: Uint8Array): string => decoder.decode(bytes);

/** The kind decides; what an object holds beyond that is the API server's promise. */
export function isKind<T>(value: unknown, kind: string): value is T {
  return isObject(value) && value.kind === kind && isObject(value.metadata);
}

export function isList<T>(value: unknown, kind: string): value is ListPage<T> {
  if (!isKind<{ metadata: Record<string, unknown>; items?: unknown }>(value, kind)) return false;
  const { items, metadata } = value;
  const known = typeof metadata.resourceVersion === "string" && metadata.resourceVersion !== "";
  return known && Array.isArray(items) && items.every(isIdentified);
}

/** What cannot be told from others cannot be kept. */
const isIdentified = (item: unknown): boolean =>
  isObject(item) && isObject(item.metadata) && isText(item.metadata.name) && isText(item.metadata.uid);

const isText = (value: unknown): boolean => typeof value === "string" && value !== "";

const EVENT_TYPES: readonly unknown[] = ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"];

/** A watch event, the Status of an ERROR event, or undefined for anything else. */
export function eventOf<T>(line: string): WatchEvent<T> | ReturnType<typeof statusOf> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined; // the caller fails the watch
  }
  if (!isObject(value)) return undefined;
  return isEvent<T>(value) ? value : statusOf(value);
}

const isEvent = <T>(value: Record<string, unknown>): value is WatchEvent<T> =>
  EVENT_TYPES.includes(value.type) &&
  isObject(value.object) &&
  (value.type === "BOOKMARK" ? isObject(value.object.metadata) : isIdentified(value.object));

const statusOf = (value: Record<string, unknown>) =>
  value.type === "ERROR" && isStatus(value.object) ? value.object : undefined;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
