import { Code, ConnectError } from "@connectrpc/connect";
import { snakeCase } from "../naming.ts";

/** What was to be done has failed. */
export const FAILED = 1;

/** A failure with its own exit status; its message is for people. */
export class Failure extends Error {
  override readonly name = "Failure";
  readonly status: number;

  constructor(message: string, status = FAILED, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
  }
}

/** `not_found: resource not found: ...` of what a call threw; the message alone of anything else. */
export function failureText(error: unknown): string {
  if (error instanceof ConnectError) return `${codeName(error.code)}: ${error.rawMessage}`;
  return error instanceof Error ? error.message : String(error);
}

/** `deadline_exceeded` of Code.DeadlineExceeded. */
export const codeName = (code: Code): string => snakeCase(Code[code]);
