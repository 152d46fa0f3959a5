import {
  ContainerRoleSchema,
  ContainerStatus,
  ContainerStatusSchema,
  type InspectWorkloadResponse,
  type WorkloadContainer,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";

/** The phase, and in brackets what a container waits for or ended badly with. */
export function workloadStatus({ stateStatus, containers }: InspectWorkloadResponse): string {
  const blocked = containers.find(({ status, reason }) => status === ContainerStatus.WAITING && reason);
  const failed = containers.find(({ exitCode }) => exitCode !== undefined && exitCode !== 0);
  const about = failed === undefined ? blocked?.reason : endOf(failed);
  return about === undefined ? stateStatus : `${stateStatus} (${about})`;
}

/** `running`, `waiting (ImagePullBackOff)`, `terminated (Error, exit code 3)`. */
export function containerStatus(container: WorkloadContainer): string {
  const { status, reason, exitCode } = container;
  const word =
    status === ContainerStatus.UNSPECIFIED ? "unknown" : inLowerCase(ContainerStatusSchema.value[status]?.localName);
  const about = exitCode === undefined ? reason : endOf(container);
  return about ? `${word} (${about})` : word;
}

/** `main`, `sidecar`, `init`. */
export const roleName = ({ role }: WorkloadContainer): string =>
  inLowerCase(ContainerRoleSchema.value[role]?.localName);

/** `Error, exit code 3`. */
const endOf = ({ reason, exitCode }: WorkloadContainer): string =>
  [...(reason ? [reason] : []), `exit code ${exitCode}`].join(", ");

/** A newer runner may know values that this one does not. */
const inLowerCase = (name = "unknown"): string => name.toLowerCase();
