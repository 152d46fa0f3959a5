import { expect, test } from "bun:test";
import type { Pod } from "../../src/kube/types.ts";
import { overTemplate, podTemplateFrom } from "../../src/pod/template.ts";

const pod: Pod = {
  metadata: { name: "workload-x", labels: { team: "ours" }, annotations: { "agyn.io/start-nonce": "n" } },
  spec: {
    restartPolicy: "Never",
    runtimeClassName: "kata-qemu",
    containers: [{ name: "main", image: "a", securityContext: { capabilities: { add: ["NET_ADMIN"] } } }],
    initContainers: [{ name: "init", image: "b", imagePullPolicy: "Always" }],
  },
};

test("a template lies under the Pod: it adds, and what the plan set stays", () => {
  const template = podTemplateFrom({
    metadata: {
      labels: { team: "theirs", tier: "agents" },
      annotations: { "cluster-autoscaler.kubernetes.io/safe-to-evict": "false" },
    },
    spec: {
      nodeSelector: { pool: "agents" },
      runtimeClassName: "gvisor",
      serviceAccountName: "agents",
      containers: [{ imagePullPolicy: "IfNotPresent", resources: { requests: { cpu: "100m" } } }],
    },
  });
  const defaults = { resources: { requests: { cpu: "100m" } } };
  expect(overTemplate(pod, template)).toEqual({
    metadata: {
      name: "workload-x",
      labels: { team: "ours", tier: "agents" },
      annotations: { "cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "agyn.io/start-nonce": "n" },
    },
    spec: {
      restartPolicy: "Never",
      nodeSelector: { pool: "agents" },
      runtimeClassName: "kata-qemu",
      serviceAccountName: "agents",
      containers: [{ ...pod.spec?.containers[0], name: "main", ...defaults, imagePullPolicy: "IfNotPresent" }],
      initContainers: [{ name: "init", image: "b", ...defaults, imagePullPolicy: "Always" }],
    },
  });
});

test("an empty template changes nothing", () => {
  for (const empty of [undefined, null, {}, { spec: null }])
    expect(overTemplate(pod, podTemplateFrom(empty))).toEqual(pod);
});

test.each([
  [[], "the template must be a mapping"],
  [{ sepc: {} }, 'the template has an unknown key "sepc"'],
  [{ spec: { hostPID: true } }, 'spec has an unknown key "hostPID"'],
  [{ spec: { volumes: [] } }, 'spec has an unknown key "volumes"'],
  [{ spec: { containers: [] } }, "spec.containers must have one entry"],
  [{ spec: { containers: [{ securityContext: {} }] } }, 'spec.containers[0] has an unknown key "securityContext"'],
  [{ metadata: { annotations: { a: 1 } } }, 'metadata.annotations: the value of "a" must be a string'],
  [{ metadata: { labels: { "a b": "c" } } }, 'metadata.labels: "a b": name part must consist of'],
  [{ metadata: { labels: { "agyn.io/workload-id": "x" } } }, 'metadata.labels: "agyn.io/workload-id" is ours to set'],
])("%p is refused", (value, message) => {
  expect(() => podTemplateFrom(value)).toThrow(message);
});
