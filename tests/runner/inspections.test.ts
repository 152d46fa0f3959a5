import { expect, test } from "bun:test";
import type { Pod } from "../../src/kube/types.ts";
import { Inspections } from "../../src/runner/inspections.ts";

const pod = (phase: string): Pod => ({
  metadata: { name: "workload-a" },
  spec: { containers: [{ name: "main", image: "alpine" }] },
  status: { phase },
});

test("a Pod's answer is made once, and anew for what replaces it", () => {
  const inspections = new Inspections();
  const pending = pod("Pending");
  const answer = inspections.of(pending, "a");
  expect(answer).toMatchObject({ id: "a", stateRunning: false });
  expect(Object.isFrozen(answer)).toBe(true);
  expect(inspections.of(pending, "a")).toBe(answer);
  expect(inspections.of(pod("Running"), "a")).toMatchObject({ id: "a", stateRunning: true });
});

test("a Pod without containers is an error each time", () => {
  const inspections = new Inspections();
  const empty: Pod = { metadata: { name: "workload-a" }, spec: { containers: [] } };
  for (const _ of [1, 2]) expect(() => inspections.of(empty, "a")).toThrow("pod_missing_containers");
});
