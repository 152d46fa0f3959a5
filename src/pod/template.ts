import type { Container, Pod } from "../kube/types.ts";
import { MANAGED_BY_LABEL, WORKLOAD_ID_LABEL } from "./names.ts";
import { labelKeyProblems, labelValueProblems } from "./validate.ts";

/**
 * An operator's additions to every workload Pod (ruling 26): a Pod's `metadata` and `spec` as Kubernetes has them, as far as
 * they say where and how a Pod runs. What a workload is made of, its containers, volumes and rights, is not theirs.
 */
export interface PodTemplate {
  readonly metadata: { readonly labels: Record<string, string>; readonly annotations: Record<string, string> };
  readonly spec: Partial<NonNullable<Pod["spec"]>>;
  /** Defaults of every container: the one entry of `spec.containers`. */
  readonly container: Partial<Container>;
}

type Fields = { readonly [key: string]: unknown };

const SPEC_KEYS = [
  "affinity",
  "nodeSelector",
  "priorityClassName",
  "runtimeClassName",
  "schedulerName",
  "securityContext",
  "serviceAccountName",
  "terminationGracePeriodSeconds",
  "tolerations",
  "topologySpreadConstraints",
];
const CONTAINER_KEYS = ["imagePullPolicy", "resources"];

/** A template from parsed YAML. Throws an Error that names what it does not know: a typo must not be a silent nothing. */
export function podTemplateFrom(value: unknown): PodTemplate {
  const template = fields(value, "the template", ["apiVersion", "kind", "metadata", "spec"]);
  const metadata = fields(template.metadata, "metadata", ["labels", "annotations"]);
  const { containers, ...spec } = fields(template.spec, "spec", [...SPEC_KEYS, "containers"]);
  const list = containers ?? [{}];
  if (!Array.isArray(list) || list.length !== 1)
    throw new Error("spec.containers must have one entry, the defaults of every container");
  return {
    metadata: { labels: labelsOf(metadata.labels), annotations: textsOf(metadata.annotations, "metadata.annotations") },
    spec,
    container: fields(list[0], "spec.containers[0]", CONTAINER_KEYS),
  };
}

/** The Pod over the template: what the plan set stays as it is. */
export function overTemplate(pod: Pod, { metadata, spec, container }: PodTemplate): Pod {
  const filled = (each: Container): Container => ({ ...container, ...each });
  const { containers = [], initContainers } = pod.spec ?? {};
  return {
    ...pod,
    metadata: {
      ...pod.metadata,
      labels: { ...metadata.labels, ...pod.metadata?.labels },
      annotations: { ...metadata.annotations, ...pod.metadata?.annotations },
    },
    spec: {
      ...spec,
      ...pod.spec,
      containers: containers.map(filled),
      ...(initContainers === undefined ? {} : { initContainers: initContainers.map(filled) }),
    },
  };
}

function fields(value: unknown, path: string, known: readonly string[]): Fields {
  if (value === undefined || value === null) return {};
  if (!isFields(value)) throw new Error(`${path} must be a mapping`);
  for (const key of Object.keys(value))
    if (!known.includes(key)) throw new Error(`${path} has an unknown key "${key}": known are ${known.join(", ")}`);
  return value;
}

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function textsOf(value: unknown, path: string): Record<string, string> {
  if (value === undefined || value === null) return {};
  if (!isFields(value)) throw new Error(`${path} must be a mapping`);
  return Object.fromEntries(
    Object.entries(value).map(([key, text]) => {
      if (typeof text !== "string") throw new Error(`${path}: the value of "${key}" must be a string`);
      return [key, text];
    }),
  );
}

function labelsOf(value: unknown): Record<string, string> {
  const labels = textsOf(value, "metadata.labels");
  for (const [key, text] of Object.entries(labels)) {
    const problems = [...labelKeyProblems(key), ...labelValueProblems(text)];
    if (problems.length > 0) throw new Error(`metadata.labels: "${key}": ${problems.join(", ")}`);
    if (key === MANAGED_BY_LABEL || key === WORKLOAD_ID_LABEL)
      throw new Error(`metadata.labels: "${key}" is ours to set`);
  }
  return labels;
}
