/** ObjectMeta: checks (apimachinery's ValidateObjectMeta, with its texts), and what the server itself writes. */
import { randomBytes, randomUUID } from "node:crypto";
import { labelKeyProblems, labelValueProblems } from "../../../src/pod/validate.ts";
import {
  type JsonObject,
  type Metadata,
  type OwnerReference,
  objectsAt,
  textAt,
  textMapAt,
  textsAt,
  timestamp,
} from "./objects.ts";
import { invalid, invalidValue, type Problem, required } from "./status.ts";

const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const SUBDOMAIN_TEXT =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and " +
  "end with an alphanumeric character (e.g. 'example.com', regex used for validation is " +
  "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SUBDOMAIN_BYTES = 253;

export function subdomainProblems(field: string, value: string): Problem[] {
  const texts = [
    ...(Buffer.byteLength(value) > SUBDOMAIN_BYTES ? [`must be no more than ${SUBDOMAIN_BYTES} characters`] : []),
    ...(SUBDOMAIN.test(value) ? [] : [SUBDOMAIN_TEXT]),
  ];
  return texts.map((text) => invalidValue(field, value, text));
}

/** `sent.name`, or one made of `sent.generateName`; empty when there is neither. */
export function nameOf(sent: JsonObject): string {
  const prefix = textAt(sent, "generateName");
  return textAt(sent, "name") || (prefix === "" ? "" : prefix + randomBytes(4).toString("hex").slice(0, 5));
}

export function metadataProblems(name: string, sent: JsonObject): Problem[] {
  const field = "metadata.name";
  return [
    ...(name === "" ? [required(field, "name or generateName is required")] : subdomainProblems(field, name)),
    ...labelProblems(textMapAt(sent, "labels")),
    ...annotationProblems(textMapAt(sent, "annotations")),
    ...objectsAt(sent, "ownerReferences").flatMap(ownerProblems),
    ...textsAt(sent, "finalizers").flatMap(finalizerProblems),
  ];
}

function labelProblems(labels: Record<string, string>): Problem[] {
  const field = "metadata.labels";
  return Object.entries(labels).flatMap(([key, value]) => [
    ...labelKeyProblems(key).map((text) => invalidValue(field, key, text)),
    ...labelValueProblems(value).map((text) => invalidValue(field, value, text)),
  ]);
}

/** Upper case is allowed in the prefix of an annotation's key, and nothing is asked of its value. */
const annotationProblems = (annotations: Record<string, string>): Problem[] =>
  Object.keys(annotations).flatMap((key) =>
    labelKeyProblems(key.toLowerCase()).map((text) => invalidValue("metadata.annotations", key, text)),
  );

function ownerProblems(owner: JsonObject): Problem[] {
  const field = "metadata.ownerReferences";
  const rules = {
    apiVersion: "version must not be empty",
    kind: "must not be empty",
    name: "must not be empty",
    uid: "must not be empty",
  };
  return Object.entries(rules)
    .filter(([key]) => textAt(owner, key) === "")
    .map(([key, text]) => invalidValue(`${field}.${key}`, "", text));
}

function finalizerProblems(finalizer: string, index: number): Problem[] {
  const field = "metadata.finalizers";
  return [
    ...labelKeyProblems(finalizer).map((text) => invalidValue(field, finalizer, text)),
    ...(finalizer.includes("/")
      ? []
      : [
          invalidValue(
            `${field}[${index}]`,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
          ),
        ]),
  ];
}

/** Throws 422 when a patch would change what never changes. */
export function requireSameIdentity(kind: string, before: Metadata, after: Metadata): void {
  const keys = ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] as const;
  const problems = keys
    .filter((key) => after[key] !== before[key])
    .map((key) => invalidValue(`metadata.${key}`, after[key], "field is immutable"));
  if (problems.length > 0) throw invalid(kind, before.name, problems);
}

/** The metadata of a new object. Whatever else the client sent in it is the server's to set. */
export function newMetadata(o: {
  sent: JsonObject;
  name: string;
  namespace: string;
  finalizers: readonly string[];
  generation: boolean;
  manager: string;
  fields: JsonObject;
}): Metadata {
  const { sent, name, namespace, manager, fields } = o;
  const labels = textMapAt(sent, "labels");
  const annotations = textMapAt(sent, "annotations");
  const owners = objectsAt(sent, "ownerReferences").map(ownerOf);
  const finalizers = [...textsAt(sent, "finalizers"), ...o.finalizers];
  const generateName = textAt(sent, "generateName");
  const creationTimestamp = timestamp();
  return {
    name,
    ...(generateName === "" ? {} : { generateName }),
    namespace,
    uid: randomUUID(),
    resourceVersion: "",
    ...(o.generation ? { generation: 1 } : {}),
    creationTimestamp,
    ...(Object.keys(labels).length > 0 ? { labels } : {}),
    ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
    ...(owners.length > 0 ? { ownerReferences: owners } : {}),
    ...(finalizers.length > 0 ? { finalizers } : {}),
    managedFields: [managedFields(manager, { metadata: { labels, annotations }, ...fields })],
  };
}

const ownerOf = (owner: JsonObject): OwnerReference => ({
  ...owner,
  apiVersion: textAt(owner, "apiVersion"),
  kind: textAt(owner, "kind"),
  name: textAt(owner, "name"),
  uid: textAt(owner, "uid"),
});

/** One entry of managedFields: all that `fields` hold, two levels deep; the API server goes to the bottom. */
export function managedFields(manager: string, fields: JsonObject) {
  const names = (object: JsonObject) => Object.fromEntries(Object.keys(object).map((key) => [`f:${key}`, {}]));
  const levels = Object.keys(fields).map((key) => [`f:${key}`, names(objectsOrNothing(fields[key]))]);
  return {
    manager,
    operation: "Update",
    apiVersion: "v1",
    time: timestamp(),
    fieldsType: "FieldsV1",
    fieldsV1: Object.fromEntries(levels),
  };
}

const objectsOrNothing = (value: unknown): JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? Object.fromEntries(Object.entries(value)) : {};
