import { clone, create, type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import fc from "fast-check";
import {
  type StartWorkloadRequest,
  StartWorkloadRequestSchema,
  VolumeKind,
} from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { PlanSettings } from "../../src/pod/spec.ts";
import { type ContainerInit, type StartInit, settings } from "./plans.ts";

// --- Requests that must be planned, and that a cluster must accept.

const space = fc.constantFrom("", "", "", " ", "\t", "\u0085", "\u00a0", "\n");
const padded = (text: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.tuple(space, text, space).map((parts) => parts.join(""));
const dnsLabel = fc.stringMatching(/^[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?$/);
const labelName = fc.stringMatching(/^[A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?$/);
const labelKey = fc.oneof(
  labelName,
  fc.tuple(dnsLabel, labelName).map(([domain, name]) => `${domain}.example.com/${name}`),
  fc.constantFrom("constructor", "toString", "hostNetwork", "workload_key", "agyn.dev.example/x", "agyn.iox/y"),
);
const labelValue = fc.oneof(fc.constantFrom("", "a".repeat(63)), labelName);
const labelMap = fc.dictionary(labelKey, labelValue, { maxKeys: 4 });
/** Any text a container may be given: it is data, whatever it looks like. */
const text = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 20 }),
  fc.constantFrom(
    "",
    " ",
    "$(X)",
    "$$(HOME)",
    "../..",
    '"}],"hostNetwork":true,"a":["',
    "__proto__",
    "a\nb",
    "-1",
    "true",
  ),
);
const pathPart = fc.constantFrom(
  "data",
  "a b",
  "..x",
  "x..",
  "é",
  "😀",
  "proc",
  "sys",
  "dev",
  "workspace",
  "$(A)",
  "a,b",
  "%2e%2e",
);
const mountPath = fc.oneof(
  fc.array(pathPart, { minLength: 1, maxLength: 3 }).map((parts) => `/m/${parts.join("/")}`),
  fc.constantFrom("/dev/shm", "/procx", "/var/run/x"),
);
const capability = fc.constantFrom("NET_ADMIN", " CHOWN ", "SYS_PTRACE", "net_raw", "", "KILL");
const envVar = fc.record({
  name: padded(
    fc.oneof(fc.stringMatching(/^[-_a-zA-Z][-._a-zA-Z0-9]{0,12}$/), fc.constantFrom("DOCKER_HOST", "PATH", ".x")),
  ),
  value: text,
});

const someNames = (prefix: string, max: number): fc.Arbitrary<string[]> =>
  fc.uniqueArray(dnsLabel, { maxLength: max }).map((names) => names.map((name) => `${prefix}-${name}`));

interface Available {
  readonly volumes: readonly string[];
  readonly files: readonly string[];
}

/** A container that mounts what there is, each place once; `files` are all mounted when `all` is true. */
function containerOf(name: string, { volumes, files }: Available, all: boolean): fc.Arbitrary<ContainerInit> {
  const mount = fc.record({
    volume: padded(fc.constantFrom(...(volumes.length > 0 ? volumes : ["none"]))),
    mountPath,
    readOnly: fc.boolean(),
  });
  return fc.record({
    name: padded(fc.constant(name)),
    image: padded(fc.constantFrom("app:1", "registry.example.com:5000/a/b@sha256:0", "busybox")),
    cmd: fc.array(text, { maxLength: 3 }),
    entrypoint: padded(fc.constantFrom("", "/bin/sh", "./run", "é")),
    env: fc.array(envVar, { maxLength: 4 }),
    workingDir: padded(fc.constantFrom("", "/w", "relative", "/a b")),
    mounts:
      volumes.length === 0
        ? fc.constant([])
        : fc.uniqueArray(mount, { maxLength: 4, selector: (one) => one.mountPath }),
    inlineFileMounts: (all ? fc.constant([...files]) : fc.subarray([...files])).chain((paths) =>
      fc.tuple(...paths.map((path) => fc.record({ path: padded(fc.constant(path)) }))),
    ),
    requiredCapabilities: fc.array(capability, { maxLength: 3 }),
    additionalProperties: fc.dictionary(labelName, text, { maxKeys: 2 }),
  });
}

const volume = fc.record({
  kind: fc.constantFrom(VolumeKind.EPHEMERAL, VolumeKind.NAMED),
  persistentName: padded(fc.oneof(fc.constant(""), dnsLabel)),
  labels: labelMap,
  additionalProperties: fc.dictionary(text, text, { maxKeys: 2 }),
});

const inits = (names: string[], available: Available): fc.Arbitrary<ContainerInit[]> =>
  fc.tuple(
    ...names.map((name) =>
      fc.tuple(containerOf(name, available, false), fc.boolean()).map(([container, native]) => ({
        ...container,
        additionalProperties: { ...container.additionalProperties, ...(native ? { restart_policy: "Always" } : {}) },
      })),
    ),
  );

/** Requests that are right: the plan must exist, and a cluster must take it. */
export const validRequest: fc.Arbitrary<StartWorkloadRequest> = fc
  .record({
    volumeNames: someNames("v", 4),
    files: fc.uniqueArray(fc.constantFrom("/etc/f/a", "/etc/f/b c", "/etc/f/é", "/f", "/var/run/f"), { maxLength: 3 }),
    sidecarNames: someNames("s", 3),
    initNames: someNames("i", 3),
  })
  .chain(({ volumeNames, files, sidecarNames, initNames }) => {
    const available = { volumes: volumeNames, files };
    return fc.record({
      workloadId: fc.oneof(
        fc.constant(" "),
        fc.uuid(),
        fc.uuid().map((id) => id.replaceAll("-", "")),
      ),
      main: containerOf("", available, true),
      sidecars: fc.tuple(...sidecarNames.map((name) => containerOf(name, available, false))),
      initContainers: inits(initNames, available),
      volumes: fc.tuple(...volumeNames.map((name) => volume.map((one) => ({ ...one, name })))),
      inlineFiles: fc
        .tuple(...files.map(() => fc.uint8Array({ maxLength: 32 })))
        .map((contents) => Object.fromEntries(files.map((path, index) => [path, contents[index] ?? new Uint8Array()]))),
      imagePullCredentials: fc.array(
        fc.record({
          registry: padded(fc.domain()),
          username: padded(labelName),
          password: text.map((word) => `p${word}`),
        }),
        { maxLength: 3 },
      ),
      dnsConfig: fc.record({
        nameservers: fc.uniqueArray(fc.oneof(fc.ipV4(), fc.constant("fd00::1")), { maxLength: 3 }),
        searches: fc.uniqueArray(fc.constantFrom("cluster.local", "svc.cluster.local", "example.com"), {
          maxLength: 3,
        }),
      }),
      labels: labelMap,
      additionalProperties: fc.dictionary(
        fc.oneof(
          labelKey.map((key) => `label.${key}`),
          fc.constant("label.agyn.dev/managed-by"),
        ),
        labelValue.map((value) => value),
        { maxKeys: 3 },
      ),
    });
  })
  .map((init: StartInit) => {
    const properties = Object.entries(init.additionalProperties ?? {}).map(([key, value]): [string, string] =>
      key === "label.agyn.dev/managed-by" ? [key, "agents-orchestrator"] : [key, value],
    );
    return create(StartWorkloadRequestSchema, { ...init, additionalProperties: Object.fromEntries(properties) });
  });

// --- Requests that may be anything a message can be.

const hostileText = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom("", " ", "v", "w", "main", "a", "b", "/a", "/b", "docker", "app:1", "label.a", "Always"),
  },
  fc.constantFrom(
    ..."../x|/a/../b|//|/proc/self/environ|/dev/net/tun|/|a:b|%2e%2e%2f|?x=1|#|a/b/c|x\u0000y|\ufeff|\u0085|😀|\ud800|__proto__|constructor".split(
      "|",
    ),
    ..."docker-daemon|docker-data|docker-tun|docker-subid-init|inline-files|agyn.io/workload-id|app.kubernetes.io/managed-by".split(
      "|",
    ),
    ..."label.|label.__proto__|label.agyn.dev/managed-by|restart_policy|hostNetwork|privileged|\r\nx: y|\u001b[31m|polluted".split(
      "|",
    ),
    "a".repeat(300),
    "é".repeat(300),
    " ".repeat(300),
  ),
  fc.string({ unit: "binary", maxLength: 12 }),
);
const hostileNumber = fc.constantFrom(0, 1, 2, 3, -1, 2147483647, -2147483648);

/** A message with any content its fields can hold; maps have own keys of any name. */
function anyMessage(desc: DescMessage, main: boolean): fc.Arbitrary<Record<string, unknown>> {
  return fc.record(Object.fromEntries(desc.fields.map((field) => [field.localName, anyField(field, main)])));
}

function anyField(field: DescField, main: boolean): fc.Arbitrary<unknown> {
  if (field.fieldKind === "message") {
    const message = anyMessage(field.message, main);
    return field.localName === "main" && main ? message : fc.option(message, { nil: undefined, freq: 4 });
  }
  if (field.fieldKind === "list") return fc.array(anyItem(field), { maxLength: 3 });
  if (field.fieldKind === "map") {
    return fc
      .array(fc.tuple(hostileText, anyItem(field)), { maxLength: 3 })
      .map((entries) => Object.fromEntries(entries));
  }
  return anyItem(field);
}

function anyItem(field: DescField): fc.Arbitrary<unknown> {
  if (field.message !== undefined) return anyMessage(field.message, false);
  if (field.enum !== undefined) return hostileNumber;
  switch (field.scalar) {
    case ScalarType.STRING:
      return hostileText;
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 8 });
    case ScalarType.BOOL:
      return fc.boolean();
    default:
      throw new Error(`StartWorkloadRequest has a new type of field: ${field.name}`);
  }
}

/** Requests of any content, most of them wrong. */
export const anyRequest: fc.Arbitrary<StartWorkloadRequest> = fc
  .boolean()
  .chain((main) => anyMessage(StartWorkloadRequestSchema, main))
  .map((init) => create(StartWorkloadRequestSchema, init));

/** A right request with one part of it replaced by anything: it gets past the first checks. */
export const spoiledRequest: fc.Arbitrary<StartWorkloadRequest> = fc
  .tuple(
    validRequest,
    anyRequest,
    fc.subarray(
      [
        "main",
        "sidecars",
        "volumes",
        "initContainers",
        "labels",
        "inlineFiles",
        "capabilities",
        "additionalProperties",
        "dnsConfig",
        "imagePullCredentials",
        "workloadId",
      ],
      { minLength: 1, maxLength: 2 },
    ),
  )
  .map(([valid, spoiler, fields]) => {
    const parts = Object.entries(spoiler).filter(([field]) => fields.some((name) => name === field));
    return Object.assign(clone(StartWorkloadRequestSchema, valid), Object.fromEntries(parts));
  });

export const anySettings: fc.Arbitrary<PlanSettings> = fc
  .record({
    docker: fc.constantFrom(undefined, "rootless", "privileged", "kata-qemu", "kata-fc"),
    storageClass: fc.constantFrom(undefined, "standard"),
    allowedLinuxCapabilities: fc.constantFrom(undefined, ["NET_ADMIN"]),
    runtimeDefaultSeccomp: fc.boolean(),
  })
  .map(({ docker, storageClass, allowedLinuxCapabilities, runtimeDefaultSeccomp }) => ({
    ...settings,
    runtimeDefaultSeccomp,
    ...(docker === undefined ? {} : { docker }),
    ...(storageClass === undefined ? {} : { storageClass }),
    ...(allowedLinuxCapabilities === undefined ? {} : { allowedLinuxCapabilities }),
  }));
