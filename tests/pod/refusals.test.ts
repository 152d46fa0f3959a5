import { describe, expect, test } from "bun:test";
import { VolumeKind } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { PlanSettings } from "../../src/pod/spec.ts";
import { dnsLabelProblems, envNameProblems, labelKeyProblems, labelValueProblems } from "../../src/pod/validate.ts";
import { type ContainerInit, refusalOf, type StartInit, WORKLOAD_ID } from "./plans.ts";

// Every message of runner-api.md 6.2's tables and of the rulings about StartWorkload. The library's texts (section 4)
// are spelled out in validate.test.ts.
const own = (key: string, value: string): Record<string, string> => Object.fromEntries([[key, value]]);
const texts = (problems: string[]): string => problems.join(", ");
const bytes = new TextEncoder().encode("x");
const ephemeral = (name: string) => ({ name, kind: VolumeKind.EPHEMERAL });
const named = (name: string, rest: { persistentName?: string; labels?: Record<string, string> } = {}) => ({
  name,
  kind: VolumeKind.NAMED,
  ...rest,
});
const credential = { registry: "r.example.com", username: "u", password: "p" };
const main = (rest: ContainerInit): StartInit => ({ main: { image: "app:1", ...rest } });
const mounting = (mountPath: string): StartInit => ({
  ...main({ mounts: [{ volume: "v", mountPath }] }),
  volumes: [ephemeral("v")],
});
const withFiles = (paths: string[], mounts: string[]): StartInit => ({
  ...main({ inlineFileMounts: mounts.map((path) => ({ path })) }),
  inlineFiles: Object.fromEntries(paths.map((path) => [path, bytes])),
});
const docker = (changes: StartInit = {}): StartInit => ({ capabilities: ["docker"], ...changes });
const rootless: Partial<PlanSettings> = { docker: "rootless" };
const privileged: Partial<PlanSettings> = { docker: "privileged" };

const tables: Record<string, [StartInit, string, Partial<PlanSettings>?][]> = {
  "the request as a whole": [
    [{ main: undefined }, "main_container_required"],
    [{ main: { image: "" } }, "main_container_image_required"],
    [{ main: { image: " \u0085\u00a0\t" } }, "main_container_image_required"],
    [{ workloadId: "x" }, "workload_id_invalid"],
    [{ workloadId: WORKLOAD_ID.toUpperCase() }, "workload_id_invalid"],
    [{ workloadId: `urn:uuid:${WORKLOAD_ID}` }, "workload_id_invalid"],
    [{ workloadId: `{${WORKLOAD_ID}}` }, "workload_id_invalid"],
    [{ workloadId: "../secrets/x" }, "workload_id_invalid"],
    [{ workloadId: `${WORKLOAD_ID}\u0000` }, "workload_id_invalid"],
  ],
  labels: [
    [{ additionalProperties: { "label.": "x" } }, "invalid_label: empty label key"],
    [{ labels: { "": "x" } }, "invalid_label: empty label key"],
    ...["app.kubernetes.io/managed-by", "agyn.io/workload-id", "agyn.io/", "agyn.io/x/y", "agyn.dev/other"].flatMap(
      (key): [StartInit, string][] => [
        [{ labels: { [key]: "k8s-runner" } }, `invalid_label: reserved label key "${key}"`],
        [{ additionalProperties: { [`label.${key}`]: "k8s-runner" } }, `invalid_label: reserved label key "${key}"`],
      ],
    ),
    [{ labels: { "agyn.dev/managed-by": "me" } }, 'invalid_label: reserved label key "agyn.dev/managed-by"'],
    [{ labels: { "agyn.dev/managed-by": "" } }, 'invalid_label: reserved label key "agyn.dev/managed-by"'],
    [{ labels: { "a b": "x" } }, `invalid_label: invalid label key "a b": ${texts(labelKeyProblems("a b"))}`],
    [{ labels: { " a": "x" } }, `invalid_label: invalid label key " a": ${texts(labelKeyProblems(" a"))}`],
    [{ labels: { a: "x y" } }, `invalid_label: invalid label value for "a": ${texts(labelValueProblems("x y"))}`],
    [{ labels: { a: " x" } }, `invalid_label: invalid label value for "a": ${texts(labelValueProblems(" x"))}`],
    [
      { labels: own("__proto__", "x") },
      `invalid_label: invalid label key "__proto__": ${texts(labelKeyProblems("__proto__"))}`,
    ],
    [
      { additionalProperties: { "label.k": "!" }, labels: { k: "good" } },
      `invalid_label: invalid label value for "k": ${texts(labelValueProblems("!"))}`,
    ],
  ],
  capabilities: [
    [{ capabilities: [""] }, "capability_required"],
    [{ capabilities: ["unknown", "\u00a0"] }, "capability_required"],
    [{ capabilities: [" GPU "] }, "unknown_capability: gpu"],
    [{ capabilities: ["__proto__"] }, "unknown_capability: __proto__", rootless],
    [{ capabilities: ["docker", "x"] }, "unknown_capability: x", rootless],
    [docker(), "docker_capability_not_configured"],
    [{ capabilities: ["docker", "x"] }, "docker_capability_not_configured"],
    [docker(), "unknown_docker_implementation: podman", { docker: "podman" as never }], // past the type: cannot happen
    [docker(), "unknown_docker_implementation: constructor", { docker: "constructor" as never }],
    [
      docker({ main: { image: "a", name: " docker-daemon " } }),
      "capability_container_name_conflict: docker-daemon",
      privileged,
    ],
    [
      docker({ sidecars: [{ image: "a", name: "docker-daemon" }] }),
      "capability_container_name_conflict: docker-daemon",
      rootless,
    ],
    [
      docker({ initContainers: [{ name: "docker-daemon" }] }),
      "capability_container_name_conflict: docker-daemon",
      rootless,
    ],
    [
      docker({ sidecars: [{ name: "docker-subid-init" }] }),
      "capability_container_name_conflict: docker-subid-init",
      rootless,
    ],
    [docker({ volumes: [ephemeral(" docker-data")] }), "capability_volume_name_conflict: docker-data", privileged],
    [docker({ volumes: [ephemeral("docker-run")] }), "capability_volume_name_conflict: docker-run", rootless],
    [
      docker({ volumes: [ephemeral("docker-subid"), ephemeral("docker-tun")] }),
      "capability_volume_name_conflict: docker-tun",
      rootless,
    ],
    [docker({ volumes: [ephemeral("docker-subid")] }), "capability_volume_name_conflict: docker-subid", rootless],
  ],
  "image pull credentials": [
    [{ imagePullCredentials: [{ ...credential, registry: " " }] }, "image_pull_registry_required"],
    [{ imagePullCredentials: [credential, { ...credential, username: "\t" }] }, "image_pull_username_required"],
    [{ imagePullCredentials: [{ ...credential, password: "" }] }, "image_pull_password_required"],
  ],
  volumes: [
    [{ volumes: [ephemeral(" ")] }, "volume_name_required"],
    [{ volumes: [ephemeral("A")] }, `invalid_volume_name: ${texts(dnsLabelProblems("A"))}`],
    [{ volumes: [ephemeral("a.b")] }, "invalid_volume_name: must not contain dots"],
    [{ volumes: [ephemeral("a"), named(" a ")] }, "duplicate_volume_name: a"],
    [{ volumes: [{ name: "a" }] }, "volume_kind_required"],
    [{ volumes: [{ name: "a", kind: 7 as VolumeKind }] }, "volume_kind_required"], // a proto3 enum is open
    [{ volumes: [named("a", { persistentName: "B" })] }, `invalid_pvc_name: ${texts(dnsLabelProblems("B"))}`],
    [{ volumes: [named("a", { persistentName: "../x" })] }, `invalid_pvc_name: ${texts(dnsLabelProblems("../x"))}`],
    [{ volumes: [named("a", { labels: { "": "x" } })] }, "invalid_volume_label: empty label key"],
    [
      { volumes: [named("a", { labels: { "app.kubernetes.io/managed-by": "k8s-runner" } })] },
      'invalid_volume_label: reserved label key "app.kubernetes.io/managed-by"',
    ],
    [
      { volumes: [named("a", { labels: { "agyn.io/created-for": "x" } })] },
      'invalid_volume_label: reserved label key "agyn.io/created-for"',
    ],
    [
      { volumes: [named("a", { labels: { "a/b/c": "x" } })] },
      `invalid_volume_label: invalid label key "a/b/c": ${texts(labelKeyProblems("a/b/c"))}`,
    ],
    [
      { volumes: [named("a", { labels: { a: "-" } })] },
      `invalid_volume_label: invalid label value for "a": ${texts(labelValueProblems("-"))}`,
    ],
    [{ ...withFiles(["/f"], ["/f"]), volumes: [ephemeral("inline-files")] }, "duplicate_volume_name: inline-files"],
  ],
  "inline files": [
    [withFiles([], ["/f"]), "inline_file_not_defined"],
    [withFiles([], [""]), "inline_file_not_defined"],
    [withFiles(["f"], ["f"]), "inline_file_path_invalid: f"],
    [withFiles([""], []), "inline_file_path_invalid: "],
    [withFiles(["/a//b"], ["/a//b"]), "inline_file_path_invalid: /a//b"],
    [withFiles(["/a/../b"], ["/a/../b"]), "inline_file_path_invalid: /a/../b"],
    [withFiles(["/a/"], ["/a/"]), "inline_file_path_invalid: /a/"],
    [withFiles([" /a"], ["/a"]), "inline_file_path_invalid:  /a"],
    [{ ...main({}), inlineFiles: Object.fromEntries([["__proto__", bytes]]) }, "inline_file_path_invalid: __proto__"],
    [withFiles(["/a"], ["/a", "/./b"]), "inline_file_path_invalid: /./b"],
    [withFiles(["/a"], ["/a", "/b"]), "inline_file_not_defined: /b"],
    [withFiles(["/a", "/c", "/b"], ["/a"]), "inline_file_not_referenced: /b"],
    [withFiles(["/"], ["/"]), "mount_path_invalid: /"],
    [withFiles(["/proc/x"], ["/proc/x"]), "mount_path_invalid: /proc/x"],
    [withFiles(["/a:b"], ["/a:b"]), "mount_path_invalid: /a:b"],
    [withFiles(["/a"], ["/a", " /a "]), "duplicate_mount_path: /a"],
  ],
  containers: [
    [main({ name: "A" }), `invalid_container_name: ${texts(dnsLabelProblems("A"))}`],
    [{ sidecars: [{ image: "a", name: "x.y" }] }, "invalid_container_name: must not contain dots"],
    [{ sidecars: [{ image: " " }] }, "container_image_required"],
    [{ initContainers: [{ image: "" }] }, "container_image_required"],
    [main({ mounts: [{ volume: " ", mountPath: "/a" }] }), "volume_mount_name_required"],
    [main({ mounts: [{ volume: "nope", mountPath: "/a" }] }), "volume_not_defined: nope"],
    [
      docker(main({ mounts: [{ volume: "docker-data", mountPath: "/a" }] })),
      "volume_not_defined: docker-data",
      privileged,
    ],
    [
      {
        ...withFiles(["/f"], ["/f"]),
        sidecars: [{ image: "a", mounts: [{ volume: "inline-files", mountPath: "/g" }] }],
      },
      "volume_not_defined: inline-files",
    ],
    [mounting(" "), "mount_path_required"],
    [mounting("a"), "mount_path_invalid: a"],
    [mounting(" /a/../b "), "mount_path_invalid: /a/../b"],
    [mounting("/a:b"), "mount_path_invalid: /a:b"],
    [mounting("//"), "mount_path_invalid: //"],
    [mounting("/dev/net/tun"), "mount_path_invalid: /dev/net/tun"],
    [mounting("/sys/../x"), "mount_path_invalid: /sys/../x"],
    [mounting("/var/run/secrets/x"), "mount_path_invalid: /var/run/secrets/x"],
    [
      {
        ...main({
          mounts: [
            { volume: "v", mountPath: "/a" },
            { volume: "v", mountPath: "/a/" },
          ],
        }),
        volumes: [ephemeral("v")],
      },
      "duplicate_mount_path: /a/",
    ],
    [
      {
        ...main({ mounts: ["//a/", "/b", "/a"].map((mountPath) => ({ volume: "v", mountPath })) }),
        volumes: [ephemeral("v")],
      },
      "duplicate_mount_path: /a",
    ],
    [
      {
        main: { image: "a", mounts: [{ volume: "v", mountPath: "/f" }], inlineFileMounts: [{ path: "/f" }] },
        volumes: [ephemeral("v")],
        inlineFiles: { "/f": bytes },
      },
      "duplicate_mount_path: /f",
    ],
    [main({ env: [{ name: "\u0085", value: "x" }] }), "env_name_required"],
    [main({ env: [{ name: "A=B" }] }), `invalid_env_name: ${texts(envNameProblems("A=B"))}`],
    [main({ env: [{ name: ".." }] }), "invalid_env_name: must not be '..'"],
    ...[" ", "\t", "\r", "\n"].map((space): [StartInit, string] => [
      main({ entrypoint: ` /bin/sh${space}-c ` }),
      "entrypoint_must_be_single_path",
    ]),
    [
      main({ requiredCapabilities: [" NET_ADMIN ", "SYS_ADMIN"] }),
      "linux_capability_not_allowed: SYS_ADMIN",
      { allowedLinuxCapabilities: ["NET_ADMIN"] },
    ],
    [
      main({ requiredCapabilities: ["net_admin"] }),
      "linux_capability_not_allowed: net_admin",
      { allowedLinuxCapabilities: ["NET_ADMIN"] },
    ],
    [main({ requiredCapabilities: ["ALL"] }), "linux_capability_not_allowed: ALL", { allowedLinuxCapabilities: [] }],
    [{ sidecars: [{ image: "a", name: "main" }] }, "duplicate_container_name: main"],
    [
      { sidecars: [{ image: "a", name: "x" }], initContainers: [{ image: "a", name: " x " }] },
      "duplicate_container_name: x",
    ],
    [{ sidecars: [{ image: "a", name: "sidecar-2" }, { image: "a" }] }, "duplicate_container_name: sidecar-2"],
  ],
};

for (const [subject, rows] of Object.entries(tables)) {
  describe(`StartWorkload refuses ${subject}`, () => {
    for (const [request, message, settings] of rows) {
      test(`with ${message}: ${JSON.stringify(request)}`, () => expect(refusalOf(request, settings)).toBe(message));
    }
  });
}

test("what is refused at its border is accepted on the other side of it", () => {
  const accepted: [StartInit, Partial<PlanSettings>?][] = [
    [
      {
        labels: { "agyn.dev/managed-by": "agents-orchestrator" },
        additionalProperties: { "label.agyn.dev/managed-by": "agents-orchestrator" },
      },
    ],
    [{ additionalProperties: { label: "x", "labels.a": " ! ", other: "!" } }],
    [{ workloadId: " \u0085 " }],
    [{ workloadId: ` ${WORKLOAD_ID.replaceAll("-", "")}\n` }],
    [{ capabilities: [" Docker", "docker"] }, privileged],
    [docker({ sidecars: [{ image: "a", name: "docker-subid-init" }], volumes: [ephemeral("docker-run")] }), privileged],
    [
      {
        sidecars: [{ image: "a", name: "docker-daemon" }],
        volumes: [ephemeral("docker-data"), ephemeral("inline-files")],
      },
    ],
    [{ imagePullCredentials: [{ ...credential, password: " " }, credential] }],
    [{ volumes: [{ ...ephemeral("a"), persistentName: "!", labels: { "!": "!" } }] }],
    [{ volumes: [named("a", { persistentName: " " }), named("b", { persistentName: "a" })] }],
    [mounting("/dev/shm")],
    [
      main({ entrypoint: " /bin/sh\n", env: [{ name: " A " }, { name: "A" }], requiredCapabilities: ["", " "] }),
      { allowedLinuxCapabilities: [] },
    ],
    [main({ requiredCapabilities: ["SYS_ADMIN", "ALL"] })],
  ];
  for (const [request, settings] of accepted) expect(refusalOf(request, settings)).toBeUndefined();
});
