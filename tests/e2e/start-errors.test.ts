import { describe, expect, test } from "bun:test";
import { freshId, IMAGE, idling, type StartRequest, sharedRunner } from "../support/runner.ts";
import { inspect, refusal } from "../support/wait.ts";

const runner = sharedRunner();

/** Texts of Kubernetes' validation library, runner-api.md section 4. */
const NAME_PART =
  "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const DNS_LABEL =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const ENV_NAME =
  "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')";

const volume = { name: "data", kind: 1 as const };
const credential = { registry: "registry.test", username: "user", password: "pass" };
const mountedAt = (...paths: string[]): StartRequest => ({
  volumes: [volume],
  main: idling({ mounts: paths.map((mountPath) => ({ volume: "data", mountPath })) }),
});
const file = (path: string): StartRequest => ({
  inlineFiles: { [path]: new Uint8Array([1]) },
  main: idling({ inlineFileMounts: [{ path }] }),
});

/** Every refusal that needs no call to Kubernetes: section 6.2's tables in their order, and rulings 7, 8 and 22. */
const rows: readonly (readonly [message: string, request: StartRequest, remark?: string])[] = [
  ["main_container_required", { main: undefined as never }],
  ["main_container_image_required", { main: { image: "" } }],
  ["main_container_image_required", { main: { image: " \t" } }, "blank"],
  ["workload_id_invalid", { workloadId: "missing-workload" }],
  ["workload_id_invalid", { workloadId: freshId().toUpperCase() }, "upper case"],
  ["workload_id_invalid", { workloadId: `{${freshId()}}` }, "braces"],
  ["workload_id_invalid", { workloadId: `urn:uuid:${freshId()}` }, "urn"],
  ["workload_id_invalid", { workloadId: "../../secrets/s?a=" }, "a path"],

  ["invalid_label: empty label key", { additionalProperties: { "label.": "v" } }, "property"],
  ["invalid_label: empty label key", { labels: { "": "v" } }],
  [
    'invalid_label: reserved label key "app.kubernetes.io/managed-by"',
    { labels: { "app.kubernetes.io/managed-by": "k8s-runner" } },
  ],
  ['invalid_label: reserved label key "agyn.io/workload-id"', { labels: { "agyn.io/workload-id": "x" } }],
  ['invalid_label: reserved label key "agyn.io/other"', { additionalProperties: { "label.agyn.io/other": "x" } }],
  ['invalid_label: reserved label key "agyn.dev/other"', { labels: { "agyn.dev/other": "x" } }],
  ['invalid_label: reserved label key "agyn.dev/managed-by"', { labels: { "agyn.dev/managed-by": "me" } }],
  [`invalid_label: invalid label key "a b": ${NAME_PART}`, { labels: { "a b": "v" } }],
  ['invalid_label: invalid label key "/a": prefix part must be non-empty', { labels: { "/a": "v" } }],
  [`invalid_label: invalid label value for "a": ${LABEL_VALUE}`, { labels: { a: "-" } }],
  [
    'invalid_label: invalid label value for "a": must be no more than 63 characters',
    { additionalProperties: { "label.a": "v".repeat(64) } },
  ],

  ["capability_required", { capabilities: ["gpu", " "] }],
  ["unknown_capability: gpu", { capabilities: [" GPU "] }],
  ["docker_capability_not_configured", { capabilities: ["Docker"] }],

  ["image_pull_registry_required", { imagePullCredentials: [{ ...credential, registry: " " }] }],
  ["image_pull_username_required", { imagePullCredentials: [credential, { ...credential, username: "" }] }],
  ["image_pull_password_required", { imagePullCredentials: [{ ...credential, password: "" }] }],

  ["volume_name_required", { volumes: [{ kind: 1, name: " " }] }],
  [`invalid_volume_name: ${DNS_LABEL}`, { volumes: [{ kind: 1, name: "Data" }] }],
  ["invalid_volume_name: must not contain dots", { volumes: [{ kind: 1, name: "a.b" }] }],
  ["invalid_volume_name: must be no more than 63 characters", { volumes: [{ kind: 1, name: "a".repeat(64) }] }],
  ["duplicate_volume_name: data", { volumes: [volume, { ...volume, name: " data " }] }],
  ["volume_kind_required", { volumes: [{ name: "data" }] }],
  ["volume_kind_required", { volumes: [{ name: "data", kind: 7 as never }] }, "a kind unknown to us"],
  [`invalid_pvc_name: ${DNS_LABEL}`, { volumes: [{ name: "data", kind: 2, persistentName: "../x" }] }],
  [
    `invalid_volume_label: invalid label key "a b": ${NAME_PART}`,
    { volumes: [{ name: "data", kind: 2, persistentName: "never-made", labels: { "a b": "" } }] },
  ],
  [
    'invalid_volume_label: reserved label key "agyn.io/workload-id"',
    { volumes: [{ name: "data", kind: 2, persistentName: "never-made", labels: { "agyn.io/workload-id": "" } }] },
  ],

  [`invalid_container_name: ${DNS_LABEL}`, { main: idling({ name: "Main" }) }],
  ["invalid_container_name: must not contain dots", { sidecars: [idling({ name: "side.car" })] }],
  ["container_image_required", { sidecars: [{ image: " " }] }],
  ["container_image_required", { initContainers: [{ name: "setup" }] }, "init"],
  ["volume_mount_name_required", { main: idling({ mounts: [{ volume: "", mountPath: "/data" }] }) }],
  [
    "volume_not_defined: other",
    { volumes: [volume], main: idling({ mounts: [{ volume: "other", mountPath: "/x" }] }) },
  ],
  ["mount_path_required", mountedAt(" ")],
  ["mount_path_invalid: data", mountedAt("data")],
  ["mount_path_invalid: /data/../etc", mountedAt("/data/../etc")],
  ["mount_path_invalid: /a:b", mountedAt("/a:b")],
  ["mount_path_invalid: /", mountedAt("/")],
  ["mount_path_invalid: /proc", mountedAt("/proc")],
  ["mount_path_invalid: /sys/fs", mountedAt("/sys/fs")],
  ["mount_path_invalid: /dev/sda", mountedAt("/dev/sda")],
  ["mount_path_invalid: /var/run/secrets/x", mountedAt("/var/run/secrets/x")],
  ["duplicate_mount_path: /data", mountedAt("/data", "/data")],
  ["env_name_required", { main: idling({ env: [{ name: " ", value: "v" }] }) }],
  [`invalid_env_name: ${ENV_NAME}`, { sidecars: [idling({ env: [{ name: "1A", value: "v" }] })] }],
  ["invalid_env_name: must not be '..'", { main: idling({ env: [{ name: "..", value: "v" }] }) }],
  ["entrypoint_must_be_single_path", { main: idling({ entrypoint: "/bin/sh -c" }) }],
  ["duplicate_container_name: main", { sidecars: [idling({ name: "main" })] }],
  ["duplicate_container_name: sidecar-1", { main: idling({ name: "sidecar-1" }), sidecars: [idling()] }],
  [
    "duplicate_container_name: tool",
    { sidecars: [idling({ name: "tool" })], initContainers: [idling({ name: "tool" })] },
  ],

  ["inline_file_not_defined", { main: idling({ inlineFileMounts: [{ path: "/etc/ca.crt" }] }) }],
  ["inline_file_path_invalid: etc/ca.crt", file("etc/ca.crt")],
  ["inline_file_path_invalid: /etc//ca.crt", file("/etc//ca.crt")],
  ["inline_file_path_invalid: /etc/../ca.crt", file("/etc/../ca.crt")],
  ["inline_file_path_invalid: /etc/ca/", file("/etc/ca/")],
  ["inline_file_path_invalid: ", file("")],
  [
    "inline_file_not_defined: /etc/other",
    { inlineFiles: { "/etc/ca": new Uint8Array() }, main: idling({ inlineFileMounts: [{ path: " /etc/other " }] }) },
  ],
  ["inline_file_not_referenced: /etc/ca", { inlineFiles: { "/etc/ca": new Uint8Array() } }],
  [
    "duplicate_mount_path: /data",
    {
      volumes: [volume],
      inlineFiles: { "/data": new Uint8Array() },
      main: idling({ mounts: [{ volume: "data", mountPath: "/data" }], inlineFileMounts: [{ path: "/data" }] }),
    },
    "a file where a volume is mounted",
  ],
];

describe("StartWorkload refuses, and makes nothing:", () => {
  for (const [message, request, remark] of rows) {
    test(`${message.length > 80 ? `${message.slice(0, 80)}…` : message}${remark ? ` (${remark})` : ""}`, async () => {
      const workloadId = freshId();
      const { ledger } = runner();
      // A credential and a named volume beside the fault: both would be made first by an order that writes before it checks.
      const persistentName = ledger.claimName(workloadId.slice(0, 8));
      const whole: StartRequest = {
        main: { image: IMAGE },
        workloadId,
        imagePullCredentials: [credential],
        ...request,
        volumes: [...(request.volumes ?? []), { name: "witness", kind: 2, persistentName }],
      };
      ledger.workload(workloadId);
      expect(await refusal(runner().client.startWorkload(whole))).toEqual({ code: "InvalidArgument", message });
      expect(await inspect(runner().client, workloadId)).toBeUndefined();
      expect(await runner().claim(persistentName)).toBeUndefined();
      expect(await runner().secrets(workloadId)).toEqual([]);
    });
  }
});

describe("of two faults the earlier check is reported:", () => {
  const pairs: readonly (readonly [string, StartRequest])[] = [
    ["main_container_required", { main: undefined as never, workloadId: "x" }],
    ["workload_id_invalid", { workloadId: "x", labels: { "a b": "" } }],
    ["invalid_label: empty label key", { additionalProperties: { "label.": "" }, labels: { "a b": "" } }],
    ["invalid_label: empty label key", { labels: { "": "" }, capabilities: [""] }],
    ["unknown_capability: gpu", { capabilities: ["gpu"], imagePullCredentials: [{}] }],
    ["image_pull_registry_required", { imagePullCredentials: [{}], volumes: [{}] }],
    ["volume_name_required", { volumes: [{}], main: idling({ name: "Main" }) }],
    ["inline_file_not_defined", { main: idling({ name: "Main", inlineFileMounts: [{ path: "/x" }] }) }],
    ["container_image_required", { sidecars: [{}], initContainers: [{ name: "X" }] }],
    ["mount_path_required", { volumes: [volume], main: idling({ mounts: [{ volume: "data" }], env: [{}] }) }],
    ["env_name_required", { main: idling({ env: [{}], entrypoint: "a b" }) }],
    ["entrypoint_must_be_single_path", { sidecars: [idling({ name: "main", entrypoint: "a b" })] }],
  ];
  for (const [message, request] of pairs)
    test(message, async () => {
      const whole = { main: { image: IMAGE }, ...request };
      expect(await refusal(runner().client.startWorkload(whole))).toEqual({ code: "InvalidArgument", message });
    });
});

describe("with ALLOWED_LINUX_CAPABILITIES", () => {
  const strict = sharedRunner(() => ({
    backend: runner().backend,
    env: { ALLOWED_LINUX_CAPABILITIES: "NET_ADMIN, SYS_PTRACE" },
  }));

  test("a capability that is not in the list is refused by name", async () => {
    const sidecars = [idling({ requiredCapabilities: ["NET_ADMIN", "SYS_ADMIN"] })];
    expect(await refusal(strict().start({ sidecars }))).toEqual({
      code: "InvalidArgument",
      message: "linux_capability_not_allowed: SYS_ADMIN",
    });
  });

  test("one that is in the list is added", async () => {
    const { id } = await strict().start({ main: idling({ requiredCapabilities: ["SYS_PTRACE"] }) });
    const { securityContext } = (await strict().pod(id)).spec?.containers[0] ?? {};
    expect(securityContext).toEqual({ capabilities: { add: ["SYS_PTRACE"] } });
  });
});

test("a mount under /dev/shm is fine", async () => {
  const { id } = await runner().start(mountedAt("/dev/shm/x"));
  expect((await runner().pod(id)).spec?.containers[0]?.volumeMounts).toEqual([
    { name: "data", mountPath: "/dev/shm/x" },
  ]);
});
