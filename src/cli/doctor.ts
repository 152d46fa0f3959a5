import { CHECKS } from "../doctor/checks.ts";
import { doctor } from "../doctor/doctor.ts";
import type { Options } from "../doctor/exam.ts";
import { selected } from "../doctor/examine.ts";
import { errorText } from "../log.ts";
import { type Invocation, UsageError } from "./invocation.ts";
import { versionOfThis } from "./version.ts";

/** Of a probe Pod's image: small, with a shell, and pinned. */
const IMAGE = "alpine:3.19";
const TIMEOUT_MS = 60_000;
const TIMEOUT_BOUNDS = { least: 1_000, most: 600_000 };

/** What the flags say. Throws UsageError. */
export function doctorOptions(invocation: Invocation): Options {
  const timeoutMs = invocation.durationMs("timeout") ?? TIMEOUT_MS;
  if (timeoutMs < TIMEOUT_BOUNDS.least || timeoutMs > TIMEOUT_BOUNDS.most)
    throw new UsageError("--timeout must be from 1s to 10m");
  const image = (invocation.text("image") ?? IMAGE).trim();
  if (image === "") throw new UsageError("--image must not be empty");
  const only = invocation.texts("only").flatMap((list) => list.split(",").map((id) => id.trim()));
  const options = { json: invocation.on("json"), volumes: invocation.on("volumes"), image, timeoutMs };
  try {
    return {
      ...options,
      checks: selected(
        CHECKS,
        only.filter((id) => id !== ""),
      ),
    };
  } catch (error) {
    throw new UsageError(`--only: ${errorText(error)}`);
  }
}

/** `k8s-runner doctor`: 0 when nothing failed, else 1. An interruption ends the checks and removes what they made. */
export async function runDoctor(invocation: Invocation): Promise<number> {
  const options = doctorOptions(invocation);
  const interruption = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.on(signal, () => interruption.abort(new Error(`interrupted by ${signal}`)));
  const out = (text: string) => void process.stdout.write(text);
  const { version } = versionOfThis();
  return await doctor({ options, version, env: invocation.env, out, signal: interruption.signal });
}
