import { create } from "@bufbuild/protobuf";
import { type InspectWorkloadResponse, InspectWorkloadResponseSchema } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Pod } from "../kube/types.ts";
import { inspectionOf } from "../pod/status.ts";

/**
 * InspectWorkload's answers, each made once for a Pod as the cache has it: there a Pod is never changed, but replaced, and its
 * answer goes with it. They are frozen, by which the wire knows that their bytes may be kept as well.
 */
export class Inspections {
  readonly #kept = new WeakMap<Pod, Readonly<InspectWorkloadResponse>>();

  /** As `inspectionOf`; what it throws is thrown each time. */
  of(pod: Pod, id: string): InspectWorkloadResponse {
    const known = this.#kept.get(pod);
    if (known !== undefined) return known;
    const answer = Object.freeze(create(InspectWorkloadResponseSchema, inspectionOf(pod, id)));
    this.#kept.set(pod, answer);
    return answer;
  }
}
