import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Pod } from "../../src/kube/types.ts";
import { compareVersions, lean, PodCache } from "../../src/watcher/cache.ts";
import { workloadPod } from "./pods.ts";

const ids = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata?.name?.replace("workload-", ""));
const changesOf = (changes: readonly { type: string; pod: Pod }[]) =>
  changes.map(({ type, pod }) => `${type} ${pod.metadata?.uid}@${pod.metadata?.resourceVersion}`);

test("versions compare as numbers of any length", () => {
  expect(compareVersions("9", "10")).toBeLessThan(0);
  expect(compareVersions("9007199254740993", "9007199254740992")).toBeGreaterThan(0);
  expect(compareVersions("7", "7")).toBe(0);
});

test("lean keeps what answers need, and no environment, command, probe or foreign annotation", () => {
  const pod: Pod = {
    kind: "Pod",
    metadata: {
      name: "p",
      managedFields: [{ manager: "m" }],
      annotations: { "agyn.io/touched-at": "now", "kubectl.kubernetes.io/last-applied-configuration": "{}" },
    },
    spec: {
      nodeName: "n",
      containers: [
        {
          name: "main",
          image: "i",
          command: ["c"],
          args: ["a"],
          env: [{ name: "SECRET", value: "s" }],
          envFrom: [{ secretRef: { name: "s" } }],
          livenessProbe: { exec: { command: ["p"] } },
          volumeMounts: [{ name: "v", mountPath: "/v" }],
        },
      ],
      initContainers: [{ name: "init", restartPolicy: "Always", env: [{ name: "SECRET", value: "s" }] }],
    },
    status: { phase: "Running" },
  };
  expect(lean(pod)).toEqual({
    kind: "Pod",
    metadata: { name: "p", annotations: { "agyn.io/touched-at": "now" } },
    spec: {
      nodeName: "n",
      containers: [{ name: "main", image: "i", volumeMounts: [{ name: "v", mountPath: "/v" }] }],
      initContainers: [{ name: "init", restartPolicy: "Always" }],
    },
    status: { phase: "Running" },
  });
});

test("the indexes follow labels and claims as they change", () => {
  const cache = new PodCache();
  cache.replace(
    [
      workloadPod("b", "1", { labels: { team: "x", tier: "1" }, claims: ["c1"] }),
      workloadPod("a", "2", { labels: { team: "x" }, claims: ["c1", "c2"] }),
      workloadPod("foreign", "3", { managed: false, labels: { team: "x" }, claims: ["c1"] }),
    ],
    "3",
  );
  expect(ids(cache.all())).toEqual(["a", "b"]);
  expect(ids(cache.withLabels({ team: "x" }))).toEqual(["a", "b"]);
  expect(ids(cache.withLabels({ team: "x", tier: "1" }))).toEqual(["b"]);
  expect(ids(cache.withLabels({ team: "x", tier: "2" }))).toEqual([]);
  expect(ids(cache.withLabels({}))).toEqual(["a", "b"]);
  expect(ids(cache.withClaim("c1"))).toEqual(["a", "b"]);
  cache.apply("applied", workloadPod("a", "4", { labels: { team: "y" }, claims: ["c2"] }));
  expect(ids(cache.withLabels({ team: "x" }))).toEqual(["b"]);
  expect(ids(cache.withLabels({ team: "y" }))).toEqual(["a"]);
  expect(ids(cache.withClaim("c1"))).toEqual(["b"]);
  cache.apply("deleted", workloadPod("b", "5"));
  expect(ids(cache.withClaim("c1"))).toEqual([]);
  expect(cache.size).toBe(1);
});

test("a search looks at its hits and at no other Pod, however many there are", () => {
  const cache = new PodCache();
  const pods = Array.from({ length: 5_000 }, (_, index) =>
    workloadPod(`${index}`, "1", { labels: { team: `t${index % 500}`, all: "yes" }, claims: [`c${index % 500}`] }),
  );
  cache.replace(pods, "1");
  let looks = 0;
  for (const pod of cache.all()) {
    const { metadata = {} } = pod;
    const get = () => {
      looks++;
      return metadata;
    };
    Object.defineProperty(pod, "metadata", { get });
  }
  const cost = (search: () => readonly Pod[], hits: number): number => {
    looks = 0;
    const { length } = search();
    expect(length).toBe(hits);
    return looks;
  };
  const each = cost(() => cache.withLabels({ team: "t7" }), 10) / 10;
  expect(each).toBeGreaterThan(0);
  expect(cost(() => cache.withLabels({ all: "yes", team: "t7" }), 10)).toBeLessThanOrEqual(2 * each * 10);
  expect(cost(() => cache.withLabels({ team: "none" }), 0)).toBe(0);
  expect(cost(() => cache.withClaim("c7"), 10)).toBe(0);
  expect(cost(() => [cache.get("workload-4999") ?? {}], 1)).toBe(0);
});

test("older and repeated events change nothing", () => {
  const cache = new PodCache();
  cache.replace([workloadPod("a", "10")], "20");
  const told = [
    cache.apply("applied", workloadPod("a", "10")),
    cache.apply("applied", workloadPod("a", "9")),
    cache.apply("applied", workloadPod("b", "20")), // the list would have shown it
    cache.apply("deleted", workloadPod("a", "9")),
  ];
  expect(told).toEqual([[], [], [], []]);
  expect(changesOf(cache.apply("applied", workloadPod("b", "21")))).toEqual(["applied uid-b@21"]);
  expect(changesOf(cache.apply("deleted", workloadPod("b", "23")))).toEqual(["deleted uid-b@21"]);
  expect(cache.apply("applied", workloadPod("b", "22"))).toEqual([]); // it does not rise from the dead
  expect(cache.apply("deleted", workloadPod("b", "23"))).toEqual([]);
  expect(ids(cache.all())).toEqual(["a"]);
});

test("a Pod made again under its name is another Pod", () => {
  const cache = new PodCache();
  cache.replace([workloadPod("a", "10", { uid: "old" })], "10");
  const again = cache.apply("applied", workloadPod("a", "13", { uid: "new" }));
  expect(changesOf(again)).toEqual(["deleted old@10", "applied new@13"]);
  expect(cache.apply("deleted", workloadPod("a", "12", { uid: "old" }))).toEqual([]);
  expect(cache.apply("applied", workloadPod("a", "11", { uid: "old" }))).toEqual([]);
  expect(cache.get("workload-a")?.metadata?.uid).toBe("new");
});

test("a Pod that is no longer managed is gone", () => {
  const cache = new PodCache();
  cache.replace([workloadPod("a", "10")], "10");
  expect(changesOf(cache.apply("applied", workloadPod("a", "11", { managed: false })))).toEqual(["deleted uid-a@10"]);
  expect(cache.apply("applied", workloadPod("a", "10"))).toEqual([]);
});

test("a list replaces everything, also from lower versions, and finds what was deleted", () => {
  const cache = new PodCache();
  cache.replace([workloadPod("a", "100"), workloadPod("b", "101"), workloadPod("c", "102", { uid: "old" })], "110");
  const changes = cache.replace(
    [workloadPod("a", "50"), workloadPod("c", "60", { uid: "new" }), workloadPod("d", "61")],
    "70",
  );
  expect(changesOf(changes)).toEqual([
    "deleted uid-b@101",
    "deleted old@102",
    "applied uid-a@50",
    "applied new@60",
    "applied uid-d@61",
  ]);
  expect(cache.version).toBe("70");
  expect(changesOf(cache.apply("applied", workloadPod("a", "71")))).toEqual(["applied uid-a@71"]);
});

test("whatever is repeated or late, no Pod goes back in time, and the end is the truth", () => {
  const step = fc.record({ id: fc.constantFrom("a", "b", "c"), act: fc.constantFrom("put", "delete", "recreate") });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.infiniteStream(fc.nat(5)), (steps, chance) => {
      const { events, truth } = historyOf(steps);
      const cache = new PodCache();
      cache.replace([], "0");
      const newest = new Map<string, number>();
      const look = (id: string) => {
        const version = Number(cache.get(`workload-${id}`)?.metadata?.resourceVersion ?? newest.get(id) ?? 0);
        expect(version).toBeGreaterThanOrEqual(newest.get(id) ?? 0);
        newest.set(id, version);
      };
      events.forEach((event, index) => {
        cache.apply(event.type, event.pod);
        const late = events[Math.max(0, index - (chance.next().value ?? 0))];
        if (late !== undefined) cache.apply(late.type, late.pod);
        for (const id of ["a", "b", "c"]) look(id);
      });
      expect(cache.all().map(({ metadata }) => `${metadata?.uid}@${metadata?.resourceVersion}`)).toEqual(truth);
    }),
  );
});

/** The events of these steps in the order of their versions, and the Pods at the end. */
function historyOf(steps: readonly { id: string; act: string }[]) {
  const events: { type: "applied" | "deleted"; pod: Pod }[] = [];
  const pods = new Map<string, Pod>();
  let version = 0;
  const uids = new Map<string, number>();
  const put = (id: string) => {
    const pod = workloadPod(id, String(++version), { uid: `${id}-${uids.get(id) ?? 0}` });
    pods.set(id, pod);
    events.push({ type: "applied", pod });
  };
  const remove = (id: string) => {
    if (!pods.delete(id)) return;
    events.push({ type: "deleted", pod: workloadPod(id, String(++version), { uid: `${id}-${uids.get(id) ?? 0}` }) });
    uids.set(id, (uids.get(id) ?? 0) + 1);
  };
  for (const { id, act } of steps) {
    if (act !== "put") remove(id);
    if (act !== "delete") put(id);
  }
  const truth = [...pods.entries()].sort(([left], [right]) => (left < right ? -1 : 1));
  return { events, truth: truth.map(([, { metadata }]) => `${metadata?.uid}@${metadata?.resourceVersion}`) };
}
