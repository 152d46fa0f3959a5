/** meta/v1 Status: the body of every refusal, worded as the API server words it. */

export interface Cause {
  readonly reason: string;
  readonly message: string;
  readonly field: string;
}

export interface StatusDetails {
  readonly name?: string;
  readonly kind?: string;
  readonly causes?: readonly Cause[];
  readonly retryAfterSeconds?: number;
}

/** A refusal: `code` is the HTTP status, `reason` the machine-readable word (meta/v1 StatusReason). */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly code: number;
  readonly reason: string;
  readonly details: StatusDetails | undefined;

  constructor(code: number, reason: string, message: string, details?: StatusDetails) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.details = details;
  }

  /** The Status object; absent parts are left out as Go's `omitempty` does. */
  get status() {
    const { reason, details, message, code } = this;
    return {
      kind: "Status",
      apiVersion: "v1",
      metadata: {},
      status: "Failure",
      message,
      ...(reason === "" ? {} : { reason }),
      ...(details === undefined ? {} : { details }),
      code,
    };
  }
}

export const badRequest = (message: string): ApiError => new ApiError(400, "BadRequest", message);

export const notFound = (resource: string, name: string): ApiError =>
  new ApiError(404, "NotFound", `${resource} "${name}" not found`, { name, kind: resource });

export const alreadyExists = (resource: string, name: string): ApiError =>
  new ApiError(409, "AlreadyExists", `${resource} "${name}" already exists`, { name, kind: resource });

/** A write that does not fit the object as it is now. */
export const conflict = (resource: string, name: string, cause: string): ApiError =>
  new ApiError(409, "Conflict", `Operation cannot be fulfilled on ${resource} "${name}": ${cause}`, {
    name,
    kind: resource,
  });

/** The text of a lost race on resourceVersion. */
export const MODIFIED = "the object has been modified; please apply your changes to the latest version and try again";

export const expired = (message: string): ApiError => new ApiError(410, "Expired", message);

export const methodNotAllowed = (): ApiError =>
  new ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {});

export const unknownPath = (): ApiError =>
  new ApiError(404, "NotFound", "the server could not find the requested resource", {});

/** One broken rule of an object: `field` is its path, `detail` the text after `field: `. */
export interface Problem {
  readonly field: string;
  readonly reason: string;
  readonly detail: string;
}

export const required = (field: string, detail = ""): Problem => ({
  field,
  reason: "FieldValueRequired",
  detail: detail === "" ? "Required value" : `Required value: ${detail}`,
});

/** `value` is shown as Go shows it: strings in quotes, everything else as JSON. */
export const invalidValue = (field: string, value: unknown, detail: string): Problem => ({
  field,
  reason: "FieldValueInvalid",
  detail: `Invalid value: ${JSON.stringify(value)}: ${detail}`,
});

export const duplicate = (field: string, value: string): Problem => ({
  field,
  reason: "FieldValueDuplicate",
  detail: `Duplicate value: ${JSON.stringify(value)}`,
});

export const forbidden = (field: string, detail: string): Problem => ({
  field,
  reason: "FieldValueForbidden",
  detail: `Forbidden: ${detail}`,
});

export const unsupported = (field: string, value: unknown, values: readonly string[]): Problem => ({
  field,
  reason: "FieldValueNotSupported",
  detail: `Unsupported value: ${JSON.stringify(value)}: supported values: ${values.map((each) => JSON.stringify(each)).join(", ")}`,
});

export const tooLong = (field: string, limit: number): Problem => ({
  field,
  reason: "FieldValueTooLong",
  detail: `Too long: may not be more than ${limit} bytes`,
});

export const missing = (field: string, value: string): Problem => ({
  field,
  reason: "FieldValueNotFound",
  detail: `Not found: ${JSON.stringify(value)}`,
});

/** 422 with all problems: alone as it is, several in brackets, as apimachinery's ErrorList aggregates them (no repeats). */
export function invalid(kind: string, name: string, problems: readonly Problem[]): ApiError {
  const texts = [...new Set(problems.map(({ field, detail }) => `${field}: ${detail}`))];
  const list = texts.length === 1 ? texts[0] : `[${texts.join(", ")}]`;
  return new ApiError(422, "Invalid", `${kind} ${JSON.stringify(name)} is invalid: ${list}`, {
    ...(name === "" ? {} : { name }),
    kind,
    causes: problems.map(({ field, reason, detail }) => ({ reason, message: detail, field })),
  });
}
