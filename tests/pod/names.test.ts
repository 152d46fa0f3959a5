import { describe, expect, test } from "bun:test";
import {
  inlineFilesSecretName,
  isManaged,
  isManagedClaim,
  listAnnotation,
  podName,
  pullSecretName,
  pvcNamesOf,
  secretNamesOf,
  workloadIdOf,
  writeList,
} from "../../src/pod/names.ts";

const ours = { "app.kubernetes.io/managed-by": "k8s-runner" };

test("names of a workload's objects", () => {
  expect(podName("w")).toBe("workload-w");
  expect(pullSecretName("w", 0, 1)).toBe("workload-w-pull");
  expect([0, 1].map((index) => pullSecretName("w", index, 2))).toEqual(["workload-w-pull-0", "workload-w-pull-1"]);
  expect(inlineFilesSecretName("w")).toBe("workload-w-inline-files");
});

describe("managed", () => {
  test("is a Pod with the manager label and a workload id", () => {
    const pod = { metadata: { labels: { ...ours, "agyn.io/workload-id": "w" } } };
    expect(isManaged(pod)).toBe(true);
    expect(workloadIdOf(pod)).toBe("w");
  });
  test.each([
    {},
    { metadata: {} },
    { metadata: { labels: ours } },
    { metadata: { labels: { ...ours, "agyn.io/workload-id": "" } } },
    { metadata: { labels: { "agyn.io/workload-id": "w" } } },
    { metadata: { labels: { "app.kubernetes.io/managed-by": "Helm", "agyn.io/workload-id": "w" } } },
  ])("is not %j", (object) => expect(isManaged(object)).toBe(false));
  test("is a claim with the manager label alone", () => {
    expect(isManagedClaim({ metadata: { labels: ours } })).toBe(true);
    expect(isManagedClaim({ metadata: { labels: { "agyn.io/workload-id": "w" } } })).toBe(false);
  });
});

describe("an annotation with names", () => {
  test("is written with commas alone", () => expect(writeList(["a", "b"])).toBe("a,b"));
  const rows: [string, string[]][] = [
    ["a,b", ["a", "b"]],
    [" a ,, b,\t", ["a", "b"]],
    ["", []],
    [" , ", []],
  ];
  test.each(rows)("%j is read as %j", (text, names) => {
    expect(listAnnotation({ metadata: { annotations: { x: text } } }, "x")).toEqual(names);
    expect(pvcNamesOf({ metadata: { annotations: { "agyn.io/pvc-names": text } } })).toEqual(names);
  });
  test("that is missing names nothing", () => {
    expect(listAnnotation({}, "x")).toEqual([]);
    expect(listAnnotation({ metadata: { annotations: {} } }, "x")).toEqual([]);
  });
});

test("of the Secrets named on a Pod only those of its own workload count", () => {
  const names = [
    "workload-w-pull",
    "workload-w-pull-0",
    "workload-w-pull-12",
    "workload-w-inline-files",
    "workload-w-pull-x",
    "workload-w-pull-",
    "workload-w-inline-files-0",
    "workload-w",
    "workload-w2-pull",
    "workload-v-pull",
    "service-token",
    "../pods/workload-w-pull",
  ];
  const metadata = (labels: Record<string, string>) => ({
    metadata: { labels, annotations: { "agyn.io/pull-secret-names": names.join(",") } },
  });
  expect(secretNamesOf(metadata({ "agyn.io/workload-id": "w" }))).toEqual(names.slice(0, 4));
  expect(secretNamesOf(metadata({ "agyn.io/workload-id": "w.*" }))).toEqual([]);
  expect(secretNamesOf(metadata({}))).toEqual([]);
});
