import { expect, test } from "bun:test";
import { fail, ok } from "../../src/doctor/check.ts";
import { CHECKS } from "../../src/doctor/checks.ts";
import { selectsWorkloads } from "../../src/doctor/cluster.ts";
import { selected } from "../../src/doctor/examine.ts";
import { factsIn, rootless } from "../../src/doctor/extras.ts";
import { linesFor } from "../../src/doctor/report.ts";
import type { NetworkPolicy } from "../../src/kube/cluster.ts";

const whole = "user/max_user_namespaces 96365\nkernel/unprivileged_userns_clone 1\nids 65536\ntun yes\n";

test.each([
  ["all is there", whole, "ok", "user namespaces and /dev/net/tun; other nodes may differ"],
  ["a kernel without the switch", "user/max_user_namespaces 1\nids 65536\ntun yes\n", "ok", "other nodes may differ"],
  ["no user namespace", whole.replace("65536", "4294967295"), "FAIL", "hostUsers: false has no effect"],
  ["none is allowed", whole.replace("96365", "0"), "FAIL", "allows no user namespaces"],
  ["only root's", whole.replace("clone 1", "clone 0"), "FAIL", "to root alone"],
  ["no device", whole.replace("tun yes\n", ""), "FAIL", "no /dev/net/tun"],
  [
    "AppArmor's own switch",
    `${whole}kernel/apparmor_restrict_unprivileged_userns 1\n`,
    "warn",
    "without an AppArmor profile",
  ],
] as const)("what a node is for rootless docker: %s", (_, said, status, seen) => {
  expect(rootless(factsIn(said), "node n")).toMatchObject({ status, seen: expect.stringContaining(seen) });
});

test("what a check needs stands before it, and is made when only that check is asked for", () => {
  const known = new Set<string>();
  for (const { id, needs } of CHECKS) {
    for (const need of needs) expect([id, need, known.has(need)]).toEqual([id, need, true]);
    expect(known.has(id)).toBe(false);
    known.add(id);
  }
  expect(selected(CHECKS, ["exec"]).map(({ id }) => id)).toEqual([
    "config",
    "access",
    "api",
    "identity",
    "namespace",
    "pod",
    "exec",
  ]);
  expect(selected(CHECKS, ["rbac"]).filter(({ id }) => id.startsWith("rbac."))).toHaveLength(7);
  expect(selected(CHECKS, [])).toEqual([...CHECKS]);
});

test("a line is one line, whatever the cluster says", () => {
  expect(linesFor({ id: "x", ...fail("a\nb\x1b[2J", "do c") })).toBe("FAIL  x: a b [2J\n        do c\n");
  expect(linesFor({ id: "x", ...ok("y".repeat(5000)) }).length).toBeLessThan(1600);
});

type Selector = NonNullable<NonNullable<NetworkPolicy["spec"]>["podSelector"]>;

const CHART_LABELS = { "app.kubernetes.io/managed-by": "k8s-runner" };
const PLATFORM_LABELS = { "agyn.dev/managed-by": "agents-orchestrator" };

const selectors: [string, Selector, boolean][] = [
  ["the chart's ingress policy", { matchLabels: CHART_LABELS }, true],
  ["the platform's egress policy", { matchLabels: PLATFORM_LABELS }, true],
  ["all Pods", {}, true],
  ["an expression", { matchExpressions: [{ key: "agyn.io/workload-id", operator: "Exists" }] }, true],
  ["a list of values", { matchExpressions: [{ key: "agyn.dev/managed-by", operator: "In", values: ["a"] }] }, false],
  ["other Pods", { matchLabels: { app: "web" } }, false],
  ["some workloads", { matchLabels: { ...CHART_LABELS, workload_key: "x" } }, false],
  ["what is not a workload", { matchExpressions: [{ key: "agyn.io/workload-id", operator: "DoesNotExist" }] }, false],
];

test.each(selectors)("whether a NetworkPolicy holds every workload: %s", (_, podSelector, holds) => {
  expect(selectsWorkloads({ spec: { podSelector } })).toBe(holds);
});
