/** Create, get, list, patch and delete: what is the same for all resources. */

import { parseDeleteOptions, parseObject, parsePatch } from "./bodies.ts";
import { managedFields, metadataProblems, nameOf, newMetadata, requireSameIdentity } from "./metadata.ts";
import { type ApiObject, isApiObject, type JsonObject, mergePatch, objectAt, textAt, timestamp } from "./objects.ts";
import { badRequest, conflict, invalid, MODIFIED, type Problem } from "./status.ts";
import { KINDS, type Resource, type Store } from "./store.ts";

/** What differs between resources. Every function may throw ApiError; none changes what it is given. */
export interface Rules {
  /** The fields of a new object beside its metadata, with the defaults that answers depend on; adds to `problems`. */
  create(body: JsonObject, problems: Problem[]): JsonObject;
  /** The object as it is to be after a patch; throws when the patch changes what it may not. */
  update?(before: ApiObject, after: ApiObject): ApiObject;
  /** Seconds until the object may go; undefined when this resource knows no such time. */
  grace?(object: ApiObject, requested: number | undefined): number;
  readonly finalizers?: readonly string[];
  /** Whether metadata.generation is kept. */
  readonly generation?: boolean;
  /** What a delete answers: the object, or a Status. */
  readonly answersObject?: boolean;
}

export interface CallOptions {
  readonly namespace: string;
  readonly query: URLSearchParams;
  /** From User-Agent: who is named in managedFields. */
  readonly manager: string;
}

/** The API server keeps more entries of managedFields: enough to be seen, not to grow. */
const MANAGED_FIELDS_LIMIT = 4;

export class Collection {
  readonly resource: Resource;
  readonly #kind: string;
  readonly #store: Store;
  readonly #rules: Rules;

  constructor(o: { resource: Resource; store: Store; rules: Rules }) {
    this.resource = o.resource;
    this.#kind = KINDS[o.resource];
    this.#store = o.store;
    this.#rules = o.rules;
  }

  get(namespace: string, name: string): ApiObject {
    return this.#store.get(this.resource, namespace, name);
  }

  create(text: string, { namespace, query, manager }: CallOptions): ApiObject {
    const body = parseObject(this.#kind, text);
    const sent = objectAt(body, "metadata");
    if (!["", namespace].includes(textAt(sent, "namespace"))) throw otherNamespace();
    const name = nameOf(sent);
    const problems = metadataProblems(name, sent);
    const fields = this.#rules.create(body, problems);
    if (problems.length > 0) throw invalid(this.#kind, name, problems);
    const { finalizers = [], generation = false } = this.#rules;
    const metadata = newMetadata({ sent, name, namespace, manager, fields, finalizers, generation });
    const object: ApiObject = { apiVersion: "v1", kind: this.#kind, metadata, ...fields };
    const free = this.#store.find(this.resource, namespace, name) === undefined;
    return isDryRun(query) && free ? object : this.#store.create(this.resource, object);
  }

  /** JSON merge patch. */
  patch(name: string, text: string, { namespace, query, manager }: CallOptions): ApiObject {
    const patch = parsePatch(text);
    const before = this.get(namespace, name);
    const after = mergePatch(before, patch);
    if (!isApiObject(after)) throw badRequest(`${this.#kind} in version "v1" cannot be handled as a ${this.#kind}`);
    const { metadata } = after;
    if (metadata.name !== name)
      throw badRequest(`the name of the object (${metadata.name}) does not match the name on the URL (${name})`);
    if (metadata.namespace !== namespace) throw otherNamespace();
    if (metadata.resourceVersion && metadata.resourceVersion !== before.metadata.resourceVersion)
      throw conflict(this.resource, name, MODIFIED);
    requireSameIdentity(this.#kind, before.metadata, metadata);
    const problems = metadataProblems(name, Object.fromEntries(Object.entries(metadata)));
    if (problems.length > 0) throw invalid(this.#kind, name, problems);
    return this.#replace(before, this.#rules.update?.(before, after) ?? after, manager, isDryRun(query));
  }

  /** JSON merge patch of the status alone: what kubelets write. */
  patchStatus(name: string, text: string, { namespace }: CallOptions): ApiObject {
    const before = this.get(namespace, name);
    const { status } = parsePatch(text);
    const after = mergePatch(before, { status });
    if (!isApiObject(after)) throw badRequest(`${this.#kind} in version "v1" cannot be handled as a ${this.#kind}`);
    return this.#store.update(this.resource, after);
  }

  #replace(before: ApiObject, after: ApiObject, manager: string, dryRun: boolean): ApiObject {
    const { creationTimestamp, resourceVersion, managedFields: earlier = [] } = before.metadata;
    const same = {
      ...after,
      metadata: { ...after.metadata, creationTimestamp, resourceVersion, managedFields: earlier },
    };
    // A write that changes nothing is none: the version stays.
    if (Bun.deepEquals(same, { ...before, metadata: { ...before.metadata, managedFields: earlier } })) return before;
    const { labels = {}, annotations = {} } = after.metadata;
    const entries = [...earlier, managedFields(manager, { metadata: { labels, annotations } })];
    const object = { ...same, metadata: { ...same.metadata, managedFields: entries.slice(-MANAGED_FIELDS_LIMIT) } };
    return dryRun ? object : this.settle(this.#store.update(this.resource, object));
  }

  /** One DELETE, with preconditions and grace period. Answers the object or a Status. */
  delete(name: string, text: string, { namespace, query }: CallOptions): unknown {
    const options = parseDeleteOptions(text, query);
    const object = this.get(namespace, name);
    this.#requirePreconditions(object, options);
    const seconds = this.#rules.grace?.(object, options.gracePeriodSeconds);
    const going = markDeleted(object, seconds ?? 0);
    const result = options.dryRun || going === object ? going : this.#carryOut(going, seconds);
    const details = { name, kind: this.resource, uid: object.metadata.uid };
    const status = { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", details };
    return this.#rules.answersObject ? result : status;
  }

  #requirePreconditions(
    { metadata }: ApiObject,
    o: { uid: string | undefined; resourceVersion: string | undefined },
  ): void {
    const { name, uid, resourceVersion } = metadata;
    const refuse = (what: string, wanted: string, found: string, guess: string) => {
      const text = `the ${what} in the precondition (${wanted}) does not match the ${what} in record (${found}). The object might have been ${guess}`;
      return conflict(this.#kind, name, text);
    };
    if (o.uid !== undefined && o.uid !== uid) throw refuse("UID", o.uid, uid, "deleted and then recreated");
    if (o.resourceVersion !== undefined && o.resourceVersion !== resourceVersion)
      throw refuse("ResourceVersion", o.resourceVersion, resourceVersion, "modified");
  }

  #carryOut(going: ApiObject, seconds: number | undefined): ApiObject {
    const { finalizers = [] } = going.metadata;
    // Without a period and finalizers nobody ever sees the object terminating.
    if (seconds === undefined && finalizers.length === 0) return this.#store.remove(this.resource, going);
    return this.settle(this.#store.update(this.resource, going));
  }

  /** Removes an object whose time has come: terminating, no grace period left, no finalizer. */
  settle(object: ApiObject): ApiObject {
    const { deletionTimestamp, deletionGracePeriodSeconds, finalizers = [] } = object.metadata;
    if (deletionTimestamp === undefined || deletionGracePeriodSeconds !== 0 || finalizers.length > 0) return object;
    return this.#store.remove(this.resource, object);
  }
}

/** The object as terminating; the same one when it is and this would not make it go sooner. */
function markDeleted(object: ApiObject, seconds: number): ApiObject {
  const { deletionTimestamp, deletionGracePeriodSeconds: known, generation } = object.metadata;
  if (deletionTimestamp !== undefined && known !== undefined && seconds >= known) return object;
  const grows = generation !== undefined && deletionTimestamp === undefined;
  return {
    ...object,
    metadata: {
      ...object.metadata,
      ...(grows ? { generation: generation + 1 } : {}),
      deletionTimestamp: timestamp(Date.now() + seconds * 1000),
      deletionGracePeriodSeconds: seconds,
    },
  };
}

const otherNamespace = () =>
  badRequest("the namespace of the provided object does not match the namespace sent on the request");

const isDryRun = (query: URLSearchParams): boolean => query.getAll("dryRun").includes("All");
