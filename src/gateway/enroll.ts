import { errorText } from "../log.ts";
import { Secret } from "../secret.ts";
import type { Gateway } from "./client.ts";
import { type RetryOptions, retried } from "./retry.ts";

/** The runner's place in the overlay network, new at every start: the platform deletes the one before it (process.md 3.2). */
export interface Enrollment {
  /** OpenZiti identity as JSON text; kept in memory only. */
  readonly identity: Secret;
  /** The OpenZiti service to bind. */
  readonly service: string;
}

/** Enrolls, with retries. Throws `enroll runner via gateway: <cause>`. */
export async function enroll(
  gateway: Pick<Gateway, "enroll">,
  options: Omit<RetryOptions, "operation">,
): Promise<Enrollment> {
  try {
    const operation = "enroll runner via gateway";
    const reply = await retried((limits) => gateway.enroll(limits), { ...options, operation });
    if (reply.serviceName.trim() === "") throw new Error("the reply names no service");
    return { identity: new Secret(new TextDecoder().decode(reply.identityJson)), service: reply.serviceName };
  } catch (error) {
    throw new Error(`enroll runner via gateway: ${errorText(error)}`);
  }
}

/**
 * The identity as it goes to the companion, on one line, and what in it must never be printed: its private key, line by
 * line, as logs have it. Throws `parse ziti identity: <cause>`, with nothing of the identity in it.
 */
export function parsedIdentity(identity: Secret): { json: Secret; secrets: readonly Secret[] } {
  const fail = (cause: string) => new Error(`parse ziti identity: ${cause}`);
  let value: unknown;
  try {
    value = JSON.parse(identity.reveal());
  } catch {
    throw fail("not JSON"); // the parser's own error quotes the text
  }
  if (!isObject(value)) throw fail("not a JSON object");
  const { ztAPI, ztAPIs, id } = value;
  if (typeof ztAPI !== "string" && !Array.isArray(ztAPIs)) throw fail("it has no ztAPI, the controller's address");
  if (!isObject(id) || typeof id.key !== "string") throw fail("it has no id.key, the private key");
  const lines = id.key.split(/\r?\n/).filter((line) => line.length >= KEY_LINE && !line.includes("-----"));
  return { json: new Secret(JSON.stringify(value)), secrets: lines.map((line) => new Secret(line)) };
}

/** Shorter pieces of a key tell nothing, and could be part of any word. */
const KEY_LINE = 12;

const isObject = (value: unknown): value is { readonly [key: string]: unknown } =>
  typeof value === "object" && value !== null && !Array.isArray(value);
