import { describe, expect, test } from "bun:test";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { PlanSettings } from "../../src/pod/spec.ts";
import { dnsLabelProblems } from "../../src/pod/validate.ts";
import { type ContainerInit, planOf, refusalOf, type StartInit } from "./plans.ts";

const bytes = new TextEncoder().encode("x");
const rootless: Partial<PlanSettings> = { docker: "rootless" };
const ephemeral = (name: string) => ({ name, kind: VolumeKind.EPHEMERAL });
const named = (name: string, rest: { persistentName?: string; labels?: Record<string, string> }) => ({
  name,
  kind: VolumeKind.NAMED,
  ...rest,
});
const credential = { registry: "r.example.com", username: "u", password: "p" };
const main = (rest: ContainerInit): StartInit => ({ main: { image: "app:1", ...rest } });
const docker = (changes: StartInit = {}): StartInit => ({ capabilities: ["docker"], ...changes });
const withFiles = (paths: string[], mounts: string[]): StartInit => ({
  ...main({ inlineFileMounts: mounts.map((path) => ({ path })) }),
  inlineFiles: Object.fromEntries(paths.map((path) => [path, bytes])),
});

// Each fault alone gives its message; with any later one beside it, it is still the one reported (runner-api.md 6.2.1).
const faults: [string, (request: StartInit) => StartInit][] = [
  ["workload_id_invalid", (request) => ({ ...request, workloadId: "x" })],
  [
    'invalid_label: reserved label key "agyn.io/a"',
    (request) => ({ ...request, additionalProperties: { "label.agyn.io/a": "" } }),
  ],
  ['invalid_label: reserved label key "agyn.io/b"', (request) => ({ ...request, labels: { "agyn.io/b": "" } })],
  ["unknown_capability: gpu", (request) => ({ ...request, capabilities: ["gpu"] })],
  ["image_pull_registry_required", (request) => ({ ...request, imagePullCredentials: [{}] })],
  ["volume_kind_required", (request) => ({ ...request, volumes: [{ name: "k" }] })],
  ["inline_file_path_invalid: f", (request) => ({ ...request, inlineFiles: { f: bytes } })],
  [
    "volume_not_defined: gone",
    (request) => ({ ...request, main: { image: "a", mounts: [{ volume: "gone", mountPath: "/" }] } }),
  ],
  ["duplicate_container_name: main", (request) => ({ ...request, sidecars: [{ image: "a", name: "main" }] })],
  ["container_image_required", (request) => ({ ...request, initContainers: [{}] })],
];

const pairs = faults.flatMap(([message, first], index) =>
  faults.slice(index + 1).map(([other, second]): [string, string, StartInit] => [message, other, first(second({}))]),
);

test.each(pairs)("of two faults %s is reported before %s", (message, _other, request) => {
  expect(refusalOf(request)).toBe(message);
});

describe("the order of checks", () => {
  const bad = { volume: "", mountPath: "" };
  const rows: [string, StartInit, string, Partial<PlanSettings>?][] = [
    ["image of main before the id", { main: { image: "" }, workloadId: "x" }, "main_container_image_required"],
    [
      "an empty label key before a reserved one",
      { labels: { "": "", "agyn.io/a": "" } },
      "invalid_label: empty label key",
    ],
    ["a blank capability before any other", { capabilities: ["x", " "] }, "capability_required"],
    ["an unknown capability before docker's settings", { capabilities: ["x", "docker"] }, "unknown_capability: x"],
    [
      "container names before volume names",
      docker({ volumes: [ephemeral("docker-data")], sidecars: [{ name: "docker-subid-init" }] }),
      "capability_container_name_conflict: docker-subid-init",
      rootless,
    ],
    [
      "a conflict before the next capability",
      { capabilities: ["docker", "x"], main: { image: "a", name: "docker-daemon" } },
      "capability_container_name_conflict: docker-daemon",
      rootless,
    ],
    ["registry before username", { imagePullCredentials: [{ password: "p" }] }, "image_pull_registry_required"],
    [
      "the first credential before the second",
      { imagePullCredentials: [{ ...credential, password: "" }, {}] },
      "image_pull_password_required",
    ],
    ["a volume's name before its kind", { volumes: [{ name: "A" }] }, `invalid_volume_name: ${dnsLabelProblems("A")}`],
    [
      "a volume's double name before its kind",
      { volumes: [ephemeral("a"), { name: "a" }] },
      "duplicate_volume_name: a",
    ],
    [
      "the claim's name before its labels",
      { volumes: [named("a", { persistentName: "a.b", labels: { "": "" } })] },
      "invalid_pvc_name: must not contain dots",
    ],
    [
      "all of a volume before the next",
      { volumes: [named("a", { labels: { "": "" } }), ephemeral("")] },
      "invalid_volume_label: empty label key",
    ],
    ["all files before mounts", withFiles(["/a", "b"], ["c"]), "inline_file_path_invalid: b"],
    ["mounts before unreferenced files", withFiles(["/a", "/b"], ["/a", "/c"]), "inline_file_not_defined: /c"],
    [
      "main's inline mounts before those of sidecars and init containers",
      {
        main: { image: "a", inlineFileMounts: [{ path: "/m" }] },
        sidecars: [{ image: "a", inlineFileMounts: [{ path: "s" }] }],
        initContainers: [{ image: "a", inlineFileMounts: [{ path: "i" }] }],
        inlineFiles: { "/a": bytes },
      },
      "inline_file_not_defined: /m",
    ],
    [
      "a container's name before its image",
      { sidecars: [{ name: "x.y", image: "" }] },
      "invalid_container_name: must not contain dots",
    ],
    ["image before mounts", { sidecars: [{ mounts: [bad] }] }, "container_image_required"],
    ["a mount's volume before its path", main({ mounts: [bad] }), "volume_mount_name_required"],
    ["mounts before env", main({ mounts: [bad], env: [{}] }), "volume_mount_name_required"],
    [
      "mount paths before env",
      { volumes: [ephemeral("v")], main: { image: "a", mounts: [{ volume: "v", mountPath: "x" }], env: [{}] } },
      "mount_path_invalid: x",
    ],
    [
      "inline mounts before env",
      { ...withFiles(["/proc/x"], []), main: { image: "a", inlineFileMounts: [{ path: "/proc/x" }], env: [{}] } },
      "mount_path_invalid: /proc/x",
    ],
    ["env before the entrypoint", main({ env: [{}], entrypoint: "a b" }), "env_name_required"],
    [
      "the entrypoint before Linux capabilities",
      main({ entrypoint: "a b", requiredCapabilities: ["X"] }),
      "entrypoint_must_be_single_path",
      { allowedLinuxCapabilities: [] },
    ],
    [
      "everything of a container before its double name",
      { sidecars: [{ name: "main", image: "a", entrypoint: "a b" }] },
      "entrypoint_must_be_single_path",
    ],
    [
      "sidecars before init containers",
      { sidecars: [{ image: "a", entrypoint: "a b" }], initContainers: [{}] },
      "entrypoint_must_be_single_path",
    ],
  ];
  for (const [what, request, message, settings] of rows) {
    test(what, () => expect(refusalOf(request, settings)).toBe(message));
  }
});

test("of several bad entries of a map the first in byte order is reported, however they were written", () => {
  const bad = ["b!", "a!", "é", "😀", "\uffff"];
  for (const keys of [bad, bad.toReversed()]) {
    expect(refusalOf({ labels: Object.fromEntries(keys.map((key) => [key, ""])) })).toStartWith(
      'invalid_label: invalid label key "a!"',
    );
    expect(refusalOf(withFiles(["\uffff", "😀"], []))).toBe("inline_file_path_invalid: \uffff");
  }
});

test("a request is as it was after planning", () => {
  const request: StartInit = { sidecars: [{ image: " a ", cmd: ["x"] }], dnsConfig: { nameservers: ["127.0.0.1"] } };
  const { pod } = planOf(request);
  pod.spec?.containers[1]?.args?.push("y");
  pod.spec?.dnsConfig?.nameservers?.push("8.8.8.8");
  expect(request).toEqual({ sidecars: [{ image: " a ", cmd: ["x"] }], dnsConfig: { nameservers: ["127.0.0.1"] } });
});
