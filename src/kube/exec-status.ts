import { fromStatus, isStatus, KubeError, type KubeStatus } from "./error.ts";

/** What the frame on the status channel says; undefined when it cannot be read. */
export function statusOf(data: Uint8Array): KubeStatus | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(data).toString("utf8"));
    // The status frame says no kind: it is a Status by its channel.
    const status: unknown = typeof value === "object" && value !== null ? { ...value, kind: "Status" } : undefined;
    return isStatus(status) ? status : undefined;
  } catch {
    return undefined; // told by outcomeOf
  }
}

/** Success is 0, NonZeroExitCode names the code in its cause `ExitCode`; everything else is a failure of the cluster. */
export function outcomeOf(status: KubeStatus | undefined): { code: number } | { error: KubeError } {
  if (status?.status === "Success") return { code: 0 };
  if (status?.status !== "Failure") return { error: new KubeError(500, "", "the exec status could not be read") };
  if (status.reason !== "NonZeroExitCode") return { error: fromStatus(status, 500) };
  const causes: unknown = status.details?.causes;
  // Checked in depth: whatever were thrown here would be thrown into the socket's event, and end the process.
  const cause = Array.isArray(causes) ? causes.find((each) => each?.reason === "ExitCode") : undefined;
  const code = Number(cause?.message);
  if (Number.isInteger(code) && code > 0 && code <= 255) return { code };
  return { error: new KubeError(500, "", "the exec status names no exit code") };
}
