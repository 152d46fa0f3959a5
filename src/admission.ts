import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { RunnerService } from "./gen/agynio/api/runner/v1/runner_pb.ts";
import { connectionKey, type Limits, type Usage } from "./limits.ts";

type Next = Parameters<Interceptor>[0];
type Request = Parameters<Next>[0];

interface Kind {
  readonly resource: "executions" | "logStreams" | "eventStreams";
  /** The limit of each connection. */
  readonly each: keyof Limits;
  /** As a caller is told of it above the limit. */
  readonly what: string;
}

/** Calls that last. */
const KINDS: ReadonlyMap<DescMethod, Kind> = new Map<DescMethod, Kind>([
  [RunnerService.method.exec, { resource: "executions", each: "executionsPerConnection", what: "executions" }],
  [
    RunnerService.method.streamWorkloadLogs,
    { resource: "logStreams", each: "logStreamsPerConnection", what: "log_streams" },
  ],
  [
    RunnerService.method.streamEvents,
    { resource: "eventStreams", each: "eventStreamsPerConnection", what: "event_streams" },
  ],
]);

/** Lets so many executions, followed logs and event streams in at once; one more is RESOURCE_EXHAUSTED, and the others go on. */
export function admission(usage: Usage): Interceptor {
  const connections = new WeakMap<object, Record<Kind["resource"], number>>();
  const admitted = async (request: Request, next: Next, { resource, each, what }: Kind): ReturnType<Next> => {
    const connection = request.contextValues.get(connectionKey) ?? {};
    const used = connections.get(connection) ?? { executions: 0, logStreams: 0, eventStreams: 0 };
    if (used[resource] >= usage.limits[each]) {
      usage.refuse(each);
      throw new ConnectError(`too_many_${what}_on_connection`, Code.ResourceExhausted);
    }
    if (!usage.take(resource)) throw new ConnectError(`too_many_${what}`, Code.ResourceExhausted);
    connections.set(connection, used);
    used[resource] += 1;
    const giveBack = () => {
      usage.give(resource);
      used[resource] -= 1;
    };
    // Not at the end of the answer: a caller that has gone may leave that suspended for ever.
    if (request.signal.aborted) giveBack();
    else request.signal.addEventListener("abort", giveBack, { once: true });
    return next(request);
  };
  return (next) => (request) => {
    const kind = KINDS.get(request.method);
    return kind === undefined ? next(request) : admitted(request, next, kind);
  };
}
