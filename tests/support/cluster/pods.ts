/** Pods: the defaults that answers depend on, and the checks of the API server whose words reach our callers. */
import { randomBytes } from "node:crypto";
import { isIP } from "node:net";
import { dnsLabelProblems, envNameProblems } from "../../../src/pod/validate.ts";
import type { Rules } from "./collections.ts";
import { type ApiObject, isPod, type JsonObject, objectAt, objectsAt, textAt, textsAt } from "./objects.ts";
import { duplicate, forbidden, invalid, invalidValue, missing, type Problem, required, unsupported } from "./status.ts";

const TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount";
const FOREVER = { effect: "NoExecute", operator: "Exists", tolerationSeconds: 300 };

export const podRules: Rules = {
  answersObject: true,
  generation: true,
  create(body, problems) {
    const spec = objectAt(body, "spec");
    problems.push(...specProblems(spec));
    return { spec: withDefaults(spec), status: { phase: "Pending", qosClass: "BestEffort", ...gatedStatus(spec) } };
  },
  update(before, after) {
    if (!isPod(before) || !isPod(after)) return after;
    const gates = textsOf(after.spec.schedulingGates);
    const known = new Set(textsOf(before.spec.schedulingGates));
    if (gates.some((gate) => !known.has(gate)))
      throw invalid("Pod", before.metadata.name, [
        forbidden("spec.schedulingGates", "only deletion is allowed, but found new scheduling gate"),
      ]);
    const { schedulingGates: _, ...others } = after.spec;
    const { schedulingGates: __, ...same } = before.spec;
    if (!Bun.deepEquals(others, same))
      throw invalid("Pod", before.metadata.name, [
        forbidden(
          "spec",
          "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations)," +
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ),
      ]);
    const spec = gates.length > 0 ? after.spec : others;
    const updated: ApiObject & { spec: unknown; status: unknown } = { ...after, spec, status: before.status };
    return updated;
  },
  grace(object, requested) {
    if (!isPod(object)) return 0;
    const { phase } = object.status;
    // What does not run on a node has nobody to wait for.
    if (!object.spec.nodeName || phase === "Succeeded" || phase === "Failed") return 0;
    return requested ?? object.spec.terminationGracePeriodSeconds ?? 30;
  },
};

const textsOf = (named: readonly { name: string }[] | undefined): string[] => (named ?? []).map(({ name }) => name);

const gatedStatus = (spec: JsonObject) =>
  objectsAt(spec, "schedulingGates").length === 0
    ? {}
    : {
        conditions: [
          {
            type: "PodScheduled",
            status: "False",
            lastProbeTime: null,
            lastTransitionTime: null,
            reason: "SchedulingGated",
            message: "Scheduling is blocked due to non-empty scheduling gates",
          },
        ],
      };

function withDefaults(spec: JsonObject): JsonObject {
  const token =
    spec.automountServiceAccountToken === false
      ? undefined
      : `kube-api-access-${randomBytes(3).toString("hex").slice(0, 5)}`;
  const containers = (key: string) => objectsAt(spec, key).map((container) => containerDefaults(container, token));
  const initContainers = containers("initContainers");
  const volumes = [
    ...objectsAt(spec, "volumes").map(volumeDefaults),
    ...(token === undefined ? [] : [tokenVolume(token)]),
  ];
  return {
    dnsPolicy: "ClusterFirst",
    enableServiceLinks: true,
    preemptionPolicy: "PreemptLowerPriority",
    priority: 0,
    restartPolicy: "Always",
    schedulerName: "default-scheduler",
    securityContext: {},
    serviceAccount: "default",
    serviceAccountName: "default",
    terminationGracePeriodSeconds: 30,
    tolerations: ["not-ready", "unreachable"].map((key) => ({ key: `node.kubernetes.io/${key}`, ...FOREVER })),
    ...spec,
    ...(volumes.length > 0 ? { volumes } : {}),
    ...(initContainers.length > 0 ? { initContainers } : {}),
    containers: containers("containers"),
  };
}

function containerDefaults(container: JsonObject, token: string | undefined): JsonObject {
  const image = textAt(container, "image").trim();
  const tag = /:([^/:@]+)$/.exec(image)?.[1];
  const mounts = objectsAt(container, "volumeMounts");
  if (token !== undefined) mounts.push({ name: token, readOnly: true, mountPath: TOKEN_PATH });
  const env = objectsAt(container, "env").map(({ value, ...entry }) => (value === "" ? entry : { ...entry, value }));
  return {
    imagePullPolicy: tag === undefined || tag === "latest" ? "Always" : "IfNotPresent",
    resources: {},
    terminationMessagePath: "/dev/termination-log",
    terminationMessagePolicy: "File",
    ...container,
    ...(env.length > 0 ? { env } : {}),
    ...(mounts.length > 0 ? { volumeMounts: mounts.map(withoutFalse) } : {}),
  };
}

/** `readOnly: false` is left out, as Go's `omitempty` does. */
const withoutFalse = ({ readOnly, ...mount }: JsonObject): JsonObject =>
  readOnly === true ? { ...mount, readOnly } : mount;

const volumeDefaults = (volume: JsonObject): JsonObject =>
  volume.secret === undefined ? volume : { ...volume, secret: { defaultMode: 420, ...objectAt(volume, "secret") } };

const tokenVolume = (name: string): JsonObject => ({
  name,
  projected: { defaultMode: 420, sources: [{ serviceAccountToken: { expirationSeconds: 3607, path: "token" } }] },
});

function specProblems(spec: JsonObject): Problem[] {
  const volumes = objectsAt(spec, "volumes").map((volume) => textAt(volume, "name"));
  const containers = objectsAt(spec, "containers");
  const inits = objectsAt(spec, "initContainers");
  const names = new Set<string>();
  return [
    ...volumes.flatMap((name, index) => [
      ...nameProblems(`spec.volumes[${index}].name`, name),
      ...(volumes.indexOf(name) < index ? [duplicate(`spec.volumes[${index}].name`, name)] : []),
    ]),
    ...(containers.length === 0 ? [required("spec.containers")] : []),
    ...containers.flatMap((each, index) =>
      containerProblems(each, `spec.containers[${index}]`, { volumes, names, init: false }),
    ),
    ...inits.flatMap((each, index) =>
      containerProblems(each, `spec.initContainers[${index}]`, { volumes, names, init: true }),
    ),
    ...dnsProblems(spec),
  ];
}

function containerProblems(
  container: JsonObject,
  field: string,
  { volumes, names, init }: { volumes: string[]; names: Set<string>; init: boolean },
): Problem[] {
  const name = textAt(container, "name");
  const repeated = names.has(name);
  names.add(name);
  const mounts = objectsAt(container, "volumeMounts");
  const paths = mounts.map((mount) => textAt(mount, "mountPath"));
  const { restartPolicy } = container;
  return [
    ...nameProblems(`${field}.name`, name),
    ...(repeated ? [duplicate(`${field}.name`, name)] : []),
    ...(textAt(container, "image") === "" ? [required(`${field}.image`)] : []),
    ...objectsAt(container, "env").flatMap((entry, index) =>
      envNameProblems(textAt(entry, "name")).map((text) =>
        invalidValue(`${field}.env[${index}].name`, textAt(entry, "name"), text),
      ),
    ),
    ...mounts.flatMap((mount, index) => [
      ...(volumes.includes(textAt(mount, "name"))
        ? []
        : [missing(`${field}.volumeMounts[${index}].name`, textAt(mount, "name"))]),
      ...(paths.indexOf(paths[index] ?? "") < index
        ? [invalidValue(`${field}.volumeMounts[${index}].mountPath`, paths[index], "must be unique")]
        : []),
    ]),
    ...(restartPolicy === undefined || (init && restartPolicy === "Always")
      ? []
      : init
        ? [unsupported(`${field}.restartPolicy`, restartPolicy, ["Always"])]
        : [forbidden(`${field}.restartPolicy`, "may not be set for non-init containers")]),
  ];
}

const nameProblems = (field: string, name: string): Problem[] =>
  name === "" ? [required(field)] : dnsLabelProblems(name).map((text) => invalidValue(field, name, text));

function dnsProblems(spec: JsonObject): Problem[] {
  const servers = textsAt(objectAt(spec, "dnsConfig"), "nameservers");
  const field = "spec.dnsConfig.nameservers";
  return [
    ...(servers.length > 3 ? [invalidValue(field, servers, "must not have more than 3 nameservers")] : []),
    ...servers.flatMap((server, index) =>
      isIP(server) === 0
        ? [invalidValue(`${field}[${index}]`, server, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
        : [],
    ),
  ];
}
