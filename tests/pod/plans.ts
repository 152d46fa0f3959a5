import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type ContainerSpecSchema, StartWorkloadRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { type Plan, type PlanSettings, planWorkload } from "../../src/pod/spec.ts";

/** A request as it is written down, not yet a message. */
export type StartInit = Exclude<MessageInitShape<typeof StartWorkloadRequestSchema>, { $typeName: string }>;
export type ContainerInit = Exclude<MessageInitShape<typeof ContainerSpecSchema>, { $typeName: string }>;

export const WORKLOAD_ID = "0c8f2d9e-4a57-4f0b-9d35-6f6c1f8a2b10";

export const settings: PlanSettings = {
  namespace: "workloads",
  newWorkloadId: "5d1b7a52-90e3-4c21-8f64-d2a7c9b3e001",
  nonce: "nonce-1",
  storageSize: "10Gi",
  dockerImages: { rootless: "docker:27-dind-rootless", dind: "docker:27-dind" },
  runtimeDefaultSeccomp: false,
};

/** A plan for a request that has, besides what is given, a main container and a workload id. */
export const planOf = (init: StartInit, changes: Partial<PlanSettings> = {}): Plan =>
  planWorkload(create(StartWorkloadRequestSchema, { workloadId: WORKLOAD_ID, main: { image: "app:1" }, ...init }), {
    ...settings,
    ...changes,
  });

/** The message with which a request is refused, which must be as INVALID_ARGUMENT; undefined when it is planned. */
export function refusalOf(init: StartInit, changes: Partial<PlanSettings> = {}): string | undefined {
  return refusal(() => planOf(init, changes));
}

export function refusal(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof ConnectError && error.code === Code.InvalidArgument) return error.rawMessage;
    throw error;
  }
}
