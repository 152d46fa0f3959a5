import { invalid } from "../errors.ts";
import type { DnsConfig, StartWorkloadRequest } from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Claim, Pod, Secret, Volume } from "../kube/types.ts";
import { type Containers, containersFor, namedContainers } from "./containers.ts";
import { type DockerAdditions, type DockerSettings, dockerFor, withDocker } from "./docker.ts";
import { podLabels } from "./labels.ts";
import { PVC_NAMES_ANNOTATION, podName, SECRET_NAMES_ANNOTATION, START_NONCE_ANNOTATION, writeList } from "./names.ts";
import { inlineFilesFor, pullSecretsFor } from "./secrets.ts";
import { overTemplate, type PodTemplate } from "./template.ts";
import { blank, isWorkloadId, trim } from "./validate.ts";
import { type VolumeSettings, volumesFor } from "./volumes.ts";

/** What a plan depends on besides the request: the operator's settings, and what only chance can give. */
export interface PlanSettings extends VolumeSettings, DockerSettings {
  /** The workload id when the request names none. */
  readonly newWorkloadId: string;
  /** Unique to this start: how a Pod is recognised when the answer to its POST was lost. */
  readonly nonce: string;
  /** What the operator adds to every Pod (ruling 26). */
  readonly template?: PodTemplate;
}

/** Everything that one StartWorkload needs in the cluster. */
export interface Plan {
  readonly workloadId: string;
  /** Ready to be created; the gate of ruling 6 is put on by who carries the plan out, for it depends on the cluster. */
  readonly pod: Pod;
  /** Claims of named volumes, to be found or created, each once. */
  readonly claims: readonly Claim[];
  /** Without ownerReferences: those need the Pod's uid. */
  readonly secrets: readonly Secret[];
  /** For the response (runner-api.md 6.2.9). */
  readonly sidecars: readonly { readonly name: string; readonly id: string; readonly status: "starting" }[];
}

/**
 * What StartWorkload will have in the cluster: pure, and the request stays as it is. Every check that needs no API call
 * is made here, in the order of runner-api.md 6.2.1; the first that fails is thrown as INVALID_ARGUMENT.
 */
export function planWorkload(request: StartWorkloadRequest, settings: PlanSettings): Plan {
  const { main } = request;
  if (main === undefined) throw invalid("main_container_required");
  if (blank(main.image)) throw invalid("main_container_image_required");
  const workloadId = workloadIdFor(request.workloadId, settings);
  const owner = { namespace: settings.namespace, workloadId };
  const labels = podLabels(request, workloadId);

  const named = namedContainers({ ...request, main });
  const everyContainer = [named.main, ...named.sidecars, ...named.inits];
  const docker = dockerFor(
    request.capabilities,
    {
      containers: new Set(everyContainer.map(({ name }) => name)),
      volumes: new Set(request.volumes.map(({ name }) => trim(name))),
    },
    settings,
  );

  const pullSecrets = pullSecretsFor(request.imagePullCredentials, owner);
  const hasInlineFiles = Object.keys(request.inlineFiles).length > 0;
  const { volumes, claims } = volumesFor(request.volumes, { labels, inlineFiles: hasInlineFiles, settings });
  const specs = everyContainer.map(({ spec }) => spec);
  const inlineFiles = inlineFilesFor(request.inlineFiles, specs, owner);
  const containers = containersFor(named, {
    volumes: new Set(volumes.map(({ name }) => name)),
    inlineFileKeys: inlineFiles?.keys ?? new Map(),
    settings,
  });
  const added: DockerAdditions =
    docker === undefined
      ? { containers, volumes: [], annotations: {}, spec: {} }
      : withDocker(containers, docker, settings);

  const secrets = [...pullSecrets, ...(inlineFiles === undefined ? [] : [inlineFiles.secret])];
  const metadata = {
    name: podName(workloadId),
    namespace: settings.namespace,
    labels,
    annotations: {
      [START_NONCE_ANNOTATION]: settings.nonce, // with the gate, ruling 6's exception to the annotations of 6.2.8
      ...listed(PVC_NAMES_ANNOTATION, claims),
      ...listed(SECRET_NAMES_ANNOTATION, secrets),
      ...added.annotations,
    },
  };
  const spec = podSpecFor({
    added,
    volumes: [...volumes, ...(inlineFiles === undefined ? [] : [inlineFiles.volume]), ...added.volumes],
    imagePullSecrets: pullSecrets.map(({ metadata: { name } }) => ({ name })),
    dns: request.dnsConfig,
  });
  const pod: Pod = { apiVersion: "v1", kind: "Pod", metadata, spec };
  return {
    workloadId,
    pod: settings.template === undefined ? pod : overTemplate(pod, settings.template),
    claims,
    secrets,
    sidecars: sidecarInstances(metadata.name, added.containers),
  };
}

function workloadIdFor(requested: string, { newWorkloadId }: PlanSettings): string {
  const id = trim(requested);
  if (id === "") return newWorkloadId;
  if (!isWorkloadId(id)) throw invalid("workload_id_invalid");
  return id;
}

const listed = (annotation: string, objects: readonly { metadata: { name: string } }[]): Record<string, string> =>
  objects.length === 0 ? {} : { [annotation]: writeList(objects.map(({ metadata: { name } }) => name)) };

/** The Pod's spec (runner-api.md 6.2.8, ruling 10). What is not named here is left to the cluster's defaults. */
function podSpecFor(parts: {
  added: DockerAdditions;
  volumes: Volume[];
  imagePullSecrets: { name: string }[];
  dns: DnsConfig | undefined;
}): NonNullable<Pod["spec"]> {
  const { added, volumes, imagePullSecrets, dns } = parts;
  const { main, sidecars, inits } = added.containers;
  return {
    restartPolicy: "Never",
    automountServiceAccountToken: false, // what runs in a workload is not ours and gets no identity in the cluster
    enableServiceLinks: false, // nor the addresses of every Service of the namespace in its environment
    ...added.spec,
    ...dnsSpecFor(dns),
    ...(imagePullSecrets.length === 0 ? {} : { imagePullSecrets }),
    ...(inits.length === 0 ? {} : { initContainers: [...inits] }),
    containers: [main, ...sidecars], // main is the first: every other RPC finds it that way
    ...(volumes.length === 0 ? {} : { volumes }),
  };
}

/** Name servers as the caller ordered them, and no other: lookups go through the workload's own sidecar (clients.md 3.3). */
function dnsSpecFor(dns: DnsConfig | undefined): Pick<NonNullable<Pod["spec"]>, "dnsPolicy" | "dnsConfig"> {
  if (dns === undefined || dns.nameservers.length === 0) return {};
  const searches = dns.searches.length === 0 ? {} : { searches: [...dns.searches] };
  return { dnsPolicy: "None", dnsConfig: { nameservers: [...dns.nameservers], ...searches } };
}

const sidecarInstances = (pod: string, { sidecars }: Containers): Plan["sidecars"][number][] =>
  sidecars.map(({ name }) => ({ name, id: `${pod}:${name}`, status: "starting" }));
