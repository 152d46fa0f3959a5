import { expect, test } from "bun:test";
import { createLog } from "../../src/log.ts";
import { type Change, PodWatcher } from "../../src/watcher.ts";
import { PodApi } from "./pods.ts";

const told = ({ type, pod }: Change) => `${type} ${pod.metadata?.name} ${pod.status?.phase}`;

test("a follower gets every Pod as it is now, then every change, until it leaves", async () => {
  const api = new PodApi();
  await using server = await api.start();
  api.put("a");
  api.put("b", { phase: "Pending" });
  const watcher = new PodWatcher({ kube: server.kube(), log: createLog({ level: "silent" }) });
  const stopping = new AbortController();
  const early: string[] = [];
  watcher.follow((change) => void early.push(told(change))); // before anything is known
  const running = watcher.run(stopping.signal);
  await watcher.pods();
  const late: string[] = [];
  const leave = watcher.follow((change) => void late.push(told(change)));
  expect([early, late]).toEqual([
    ["applied workload-a Running", "applied workload-b Pending"],
    ["applied workload-a Running", "applied workload-b Pending"],
  ]);
  const { signal } = new AbortController();
  const phase = (id: string, wanted: string | undefined) =>
    watcher.until(id, (pod) => (pod?.status?.phase === wanted ? true : undefined), signal);
  api.put("a", { phase: "Failed" });
  await phase("a", "Failed");
  api.remove("b");
  await phase("b", undefined);
  leave();
  api.put("a", { phase: "Succeeded" });
  await phase("a", "Succeeded");
  expect(late.slice(2)).toEqual(["applied workload-a Failed", "deleted workload-b Pending"]);
  expect(early.slice(2)).toEqual([...late.slice(2), "applied workload-a Succeeded"]);
  stopping.abort();
  await running;
});
