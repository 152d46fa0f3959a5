/** Bodies of requests: what the API server's decoders refuse, in their words. */
import { isObject, type JsonObject, objectAt, textAt } from "./objects.ts";
import { ApiError, badRequest, invalid, unsupported } from "./status.ts";

/** An object of this kind; `kind` and `apiVersion` may be left out. Throws 400. */
export function parseObject(kind: string, text: string): JsonObject {
  const found = parseJson(text, (cause) => {
    const shown = `couldn't get version/kind; json parse error: ${cause}`;
    return badRequest(`the object provided is unrecognized (must be of type ${kind}): ${shown}`);
  });
  if (!isObject(found)) throw badRequest(`${kind} in version "v1" cannot be handled as a ${kind}`);
  const sentKind = textAt(found, "kind") || kind;
  const version = textAt(found, "apiVersion") || "v1";
  const unhandled = (cause: string) =>
    badRequest(`${sentKind} in version ${JSON.stringify(version)} cannot be handled as a ${kind}: ${cause}`);
  if (version !== "v1")
    throw unhandled(
      `no kind ${JSON.stringify(sentKind)} is registered for version ${JSON.stringify(version)} in scheme "pkg/runtime/scheme.go:110"`,
    );
  if (sentKind !== kind) throw unhandled(`converting (v1.${sentKind}) to (core.${kind}): unknown conversion`);
  const mistake = typeMistake(found);
  if (mistake !== undefined) throw unhandled(mistake);
  return found;
}

/** The maps of metadata whose wrong types a client could really send; Go's decoder knows them all. */
function typeMistake(found: JsonObject): string | undefined {
  const metadata = objectAt(found, "metadata");
  for (const key of ["labels", "annotations"]) {
    const map = metadata[key] ?? {};
    const where = `Go struct field ObjectMeta.metadata.${key}`;
    if (!isObject(map)) return `json: cannot unmarshal ${goType(map)} into ${where} of type map[string]string`;
    const wrong = Object.values(map).find((value) => typeof value !== "string" && value !== null);
    if (wrong !== undefined) return `json: cannot unmarshal ${goType(wrong)} into ${where} of type string`;
  }
  return undefined;
}

const goType = (value: unknown): string =>
  Array.isArray(value) ? "array" : typeof value === "boolean" ? "bool" : typeof value;

/** A merge patch. Throws 400. */
export function parsePatch(text: string): JsonObject {
  const patch = parseJson(text, (cause) => badRequest(`error decoding patch: ${cause}`));
  if (isObject(patch)) return patch;
  throw badRequest(
    `error decoding patch: json: cannot unmarshal ${goType(patch)} into Go value of type map[string]interface {}`,
  );
}

export interface DeleteOptions {
  readonly gracePeriodSeconds: number | undefined;
  readonly uid: string | undefined;
  readonly resourceVersion: string | undefined;
  readonly dryRun: boolean;
}

const PROPAGATION = ["Foreground", "Background", "Orphan"];

/** DeleteOptions from the body, which may be empty, else from the query. Mistakes in the body are 500, as the API server has it. */
export function parseDeleteOptions(text: string, query: URLSearchParams): DeleteOptions {
  const dryRun = query.getAll("dryRun").includes("All");
  if (text.trim() === "") {
    const seconds = query.get("gracePeriodSeconds");
    return {
      gracePeriodSeconds: seconds === null ? undefined : Number(seconds),
      uid: undefined,
      resourceVersion: undefined,
      dryRun,
    };
  }
  const fault = (message: string) => new ApiError(500, "", message);
  const body = parseJson(text, (cause) => fault(`couldn't get version/kind; json parse error: ${cause}`));
  const options = isObject(body) ? body : {};
  const { gracePeriodSeconds: seconds, propagationPolicy } = options;
  if (seconds !== undefined && seconds !== null && typeof seconds !== "number")
    throw fault(
      `json: cannot unmarshal ${goType(seconds)} into Go struct field DeleteOptions.gracePeriodSeconds of type int64`,
    );
  if (typeof propagationPolicy === "string" && !PROPAGATION.includes(propagationPolicy))
    throw invalid("DeleteOptions.meta.k8s.io", "", [
      unsupported("propagationPolicy", propagationPolicy, [...PROPAGATION, "nil"]),
    ]);
  const preconditions = objectAt(options, "preconditions");
  const precondition = (key: string) => {
    const value = preconditions[key];
    return typeof value === "string" ? value : undefined;
  };
  return {
    gracePeriodSeconds: typeof seconds === "number" ? seconds : undefined,
    uid: precondition("uid"),
    resourceVersion: precondition("resourceVersion"),
    dryRun,
  };
}

function parseJson(text: string, refuse: (cause: string) => ApiError): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Go's decoder words it in many ways; this is the usual one, of a body cut short.
    throw refuse("unexpected end of JSON input");
  }
}
