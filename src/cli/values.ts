import { create } from "@bufbuild/protobuf";
import { EnvVarSchema } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { type Invocation, UsageError } from "./invocation.ts";

/** `name=value` of every use of a flag. Throws UsageError. */
export function pairs(invocation: Invocation, flag: string): Record<string, string> {
  return Object.fromEntries(
    invocation.texts(flag).map((text) => {
      const at = text.indexOf("=");
      if (at < 1) throw new UsageError(`--${flag}: "${text}" is not name=value`);
      return [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}

/** `--env NAME=value`, or `--env NAME` for the value that NAME has here. Throws UsageError. */
export function environmentOf(invocation: Invocation) {
  return invocation.texts("env").map((text) => {
    const at = text.indexOf("=");
    const name = at === -1 ? text : text.slice(0, at);
    const value = at === -1 ? invocation.env[name] : text.slice(at + 1);
    if (value === undefined) throw new UsageError(`--env: ${name} is not set here, and no value is given`);
    return create(EnvVarSchema, { name, value });
  });
}

/** `--since`: a time (RFC 3339), or how long ago (`10m`). Undefined when it is not said. Throws UsageError. */
export function sinceDate(invocation: Invocation): Date | undefined {
  const text = invocation.text("since");
  if (text === undefined) return undefined;
  if (/^\d{4}-\d{2}-\d{2}([T ]|$)/.test(text)) {
    const date = new Date(text);
    if (!Number.isNaN(date.getTime())) return date;
    throw new UsageError(`--since: "${text}" is no time`);
  }
  return new Date(Date.now() - (invocation.durationMs("since") ?? 0));
}
