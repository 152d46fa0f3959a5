import { expect, test } from "bun:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { StreamEventsRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { Gate } from "../support/gate.ts";
import { Link } from "../support/link.ts";
import { freshId, type RunnerClient, sharedRunner, startRunner } from "../support/runner.ts";
import { untilGone } from "../support/wait.ts";

const runner = sharedRunner();

interface Told {
  readonly reason: string;
  readonly involvedObject: { readonly kind: string; readonly name: string };
  readonly [field: string]: unknown;
}

/** Events as they come, until `enough` holds for what came; throws when the stream ends before. There may be thousands. */
async function untilTold(
  client: RunnerClient,
  request: MessageInitShape<typeof StreamEventsRequestSchema>,
  enough: (told: readonly Told[]) => boolean,
): Promise<Told[]> {
  const abort = new AbortController();
  const told: Told[] = [];
  try {
    for await (const { event } of client.streamEvents(request, { signal: abort.signal })) {
      if (event.case !== "data") throw new Error(`an event of kind ${event.case}`);
      if (event.value.ts === undefined || timestampMs(event.value.ts) < 1e12)
        throw new Error("an event without its time");
      told.push(JSON.parse(event.value.json));
      if (enough(told)) return told;
    }
  } finally {
    abort.abort();
  }
  throw new Error("the stream ended");
}

const reasons = (told: readonly Told[]) => told.map(({ reason }) => reason);
const about = (id: string) => [{ key: "involvedObject.name", values: [`workload-${id}`] }];

test("events of a workload that is started afterwards come on a stream opened with an empty request", async () => {
  const workloadId = freshId();
  const telling = untilTold(runner().client, {}, (told) => JSON.stringify(told.at(-1)).includes(workloadId));
  await runner().start({ workloadId });
  expect((await telling).at(-1)?.involvedObject).toMatchObject({ kind: "Pod", name: `workload-${workloadId}` });
});

test("what happened before is told first", async () => {
  const { id } = await runner().run();
  const told = await untilTold(runner().client, { filters: about(id) }, (seen) => reasons(seen).includes("Started"));
  expect(reasons(told)).toEqual(expect.arrayContaining(["Scheduled", "Pulled", "Created", "Started"]));
  expect(told[0]).not.toContainKeys(["kind", "apiVersion"]);
  expect(told[0]).toContainKeys([
    "metadata",
    "involvedObject",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
    "reportingComponent",
    "reportingInstance",
  ]);
});

test("every filter must hold, and one without values is none", async () => {
  const { id } = await runner().run();
  const filters = [
    ...about(id),
    { key: " reason ", values: ["Nothing", "Started"] },
    { key: "involvedObject.kind", values: ["Pod"] },
    { key: "type", values: ["Normal"] },
    { key: "namespace", values: [runner().backend.namespace] },
    { key: "metadata.name", values: [] },
    { key: "no such key", values: [] },
  ];
  expect(reasons(await untilTold(runner().client, { filters }, () => true))).toEqual(["Started"]);
});

test("a filter that matches nothing, a key that is not known and a time to come silence the stream", async () => {
  const { id } = await runner().run();
  const silent = [
    { filters: [...about(id), { key: "reason", values: ["Nothing"] }] },
    { filters: [...about(id), { key: "color", values: ["", "red"] }] },
    { filters: about(id), since: BigInt(Math.floor(Date.now() / 1000) + 3600) },
  ];
  const abort = new AbortController();
  const heard = silent.map(async (request) => {
    for await (const _ of runner().client.streamEvents(request, { signal: abort.signal })) return "told";
    return "ended";
  });
  // Another stream that is opened later tells of a workload started later still: by then the silent ones had their chance.
  const { id: later } = await runner().run();
  await untilTold(runner().client, { filters: about(later) }, (told) => reasons(told).includes("Started"));
  abort.abort();
  expect((await Promise.allSettled(heard)).map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
});

test("events about objects that are not ours are never told (ruling 16)", async () => {
  const names = [`foreign-${freshId()}`, `workload-${freshId()}`];
  for (const name of names) await runner().ledger.foreignPod(name);
  const { id } = await runner().run();
  const told = await untilTold(runner().client, {}, (seen) => {
    const last = seen.at(-1);
    return last?.reason === "Started" && last.involvedObject.name === `workload-${id}`;
  });
  expect(told.filter(({ involvedObject }) => names.includes(involvedObject.name))).toEqual([]);
});

test("the stream goes on over lost connections to the API server, without a gap (ruling 16)", async () => {
  const link = await Link.to(runner().backend.access.server);
  await using _ = link;
  await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  const ids = [freshId(), freshId(), freshId()];
  const seen = new Set<string>();
  let started = 0;
  const next = async () => {
    const workloadId = ids[started++];
    if (workloadId !== undefined) await runner().start({ workloadId });
  };
  await next();
  await untilTold(behind.client, {}, (told) => {
    const last = told.at(-1);
    const id = ids.find((each) => last?.involvedObject.name === `workload-${each}`);
    if (last?.reason !== "Started" || id === undefined || seen.has(id)) return seen.size === ids.length;
    seen.add(id);
    link.cut();
    void next();
    return seen.size === ids.length;
  });
  expect([...seen].toSorted()).toEqual(ids.toSorted());
});

test("however much has happened before, a fixed number of requests finds out whose it was", async () => {
  await using gate = await Gate.over(runner().backend.access);
  await using behind = await startRunner({ backend: runner().backend, access: () => gate.access });
  const gone = [freshId(), freshId(), freshId(), freshId(), freshId(), freshId()];
  for (const workloadId of gone) {
    await runner().run({ workloadId });
    await runner().client.removeWorkload({ workloadId, force: true });
  }
  for (const id of gone) await untilGone(behind.client, id);
  const seen = new Set<string>();
  const opened = gate.requests.length;
  await untilTold(behind.client, {}, (told) => {
    const last = told.at(-1)?.involvedObject.name.replace("workload-", "") ?? "";
    if (gone.includes(last)) seen.add(last);
    return seen.size === gone.length;
  });
  const asked = gate.requests.slice(opened).map((request) => request.replace(/\?.*/, ""));
  expect(asked.filter((request) => /\/pods\/workload-/.test(request))).toEqual([]);
});
