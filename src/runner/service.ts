import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { ReadyResponseSchema, type RunnerService } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import { MANAGED_SELECTOR, VOLUME_KEY_LABEL, WORKLOAD_KEY_LABEL, workloadIdOf } from "../pod/names.ts";
import { requireSelector } from "../pod/validate.ts";
import { putArchive } from "./archive.ts";
import { streamEvents } from "./events.ts";
import { exec } from "./exec.ts";
import { findPod, nameOf, requireText, requireWorkloadId } from "./find.ts";
import { Inspections } from "./inspections.ts";
import { streamWorkloadLogs } from "./logs.ts";
import { annotate } from "./observe.ts";
import type { Parts } from "./parts.ts";
import { removeVolume, removeWorkload, stopWorkload, touchWorkload } from "./remove.ts";
import { startWorkload } from "./start.ts";

type Service = Required<ServiceImpl<typeof RunnerService>>;
type Lists = Pick<Service, "listWorkloads" | "findWorkloadsByLabels" | "listWorkloadsByVolume" | "listVolumes">;

/** Frozen, by which the wire knows that its bytes may be kept. */
const READY = Object.freeze(create(ReadyResponseSchema, { status: "ok" }));

/** All RPCs of RunnerService in proto order: short ones in full, long ones by name (runner-api.md section 6). */
export const runnerService = (parts: Parts, inspections = new Inspections()): Service => ({
  ready: () => READY,

  async startWorkload(request, context) {
    return parts.underway.carry(startWorkload(request, parts, context), context.signal);
  },

  async stopWorkload({ workloadId, timeoutSec }, context) {
    const id = requireWorkloadId(workloadId);
    annotate(context, { workload_id: id });
    await parts.underway.carry(stopWorkload(id, timeoutSec, parts, context.signal), context.signal);
    return {};
  },

  async removeWorkload({ workloadId, force, removeVolumes }, context) {
    const id = requireWorkloadId(workloadId);
    annotate(context, { workload_id: id });
    await parts.underway.carry(removeWorkload(id, { force, removeVolumes }, parts, context.signal), context.signal);
    return {};
  },

  async inspectWorkload({ workloadId }, context) {
    const id = requireWorkloadId(workloadId);
    annotate(context, { workload_id: id });
    return inspections.of(await findPod(parts, id, context), id);
  },

  async getWorkloadLabels({ workloadId }, context) {
    const id = requireWorkloadId(workloadId);
    annotate(context, { workload_id: id });
    const pod = await findPod(parts, id, context);
    return { labels: pod.metadata?.labels ?? {} };
  },

  ...lists(parts),

  async removeVolume({ volumeName }, context) {
    const name = requireText(volumeName, "volume_name_required");
    annotate(context, { pvc: name });
    await parts.underway.carry(removeVolume(name, parts, context.signal), context.signal);
    return {};
  },

  async touchWorkload({ workloadId }, context) {
    const id = requireWorkloadId(workloadId);
    annotate(context, { workload_id: id });
    await touchWorkload(id, parts, context.signal);
    return {};
  },

  async putArchive(request, context) {
    await putArchive(request, parts, context);
    return {};
  },

  streamWorkloadLogs: (request, context) => streamWorkloadLogs(request, parts, context),
  streamEvents: (request, context) => streamEvents(request, parts, context),
  exec: (requests, context) => exec(requests, parts, context),

  async cancelExecution({ executionId, force }) {
    const id = requireText(executionId, "execution_id_required");
    return { cancelled: parts.executions.cancel(id, force) };
  },
});

const lists = (parts: Parts): Lists => ({
  async listWorkloads(_request, { signal }) {
    const pods = await parts.pods.pods(signal);
    return {
      workloads: pods.flatMap((pod) => {
        const workloadKey = pod.metadata?.labels?.[WORKLOAD_KEY_LABEL];
        return workloadKey === undefined ? [] : [{ instanceId: nameOf(pod), workloadKey }];
      }),
    };
  },

  async findWorkloadsByLabels({ labels, all }, { signal }) {
    const pods = await parts.pods.withLabels(requireSelector(labels), signal);
    return { targetIds: pods.filter((pod) => all || pod.status?.phase === "Running").map(workloadIdOf) };
  },

  async listWorkloadsByVolume({ volumeName }, { signal }) {
    const claim = requireText(volumeName, "volume_name_required");
    return { targetIds: (await parts.pods.withClaim(claim, signal)).map(workloadIdOf) };
  },

  async listVolumes(_request, { signal }) {
    const { items: claims } = await parts.kube.claims.listAll({ labelSelector: MANAGED_SELECTOR, signal });
    return {
      volumes: claims.flatMap((claim) => {
        const volumeKey = claim.metadata?.labels?.[VOLUME_KEY_LABEL];
        return volumeKey === undefined ? [] : [{ instanceId: nameOf(claim), volumeKey }];
      }),
    };
  },
});
