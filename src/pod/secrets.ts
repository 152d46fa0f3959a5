import { invalid } from "../errors.ts";
import type {
  ContainerSpec,
  ImagePullCredential,
  StartWorkloadRequest,
} from "../gen/agynio/api/runner/v1/runner_pb.ts";
import type { Secret, Volume } from "../kube/types.ts";
import { ownLabels } from "./labels.ts";
import { INLINE_FILES_VOLUME, inlineFilesSecretName, pullSecretName } from "./names.ts";
import { blank, invalidText, isCleanPath, sortedEntries, trim } from "./validate.ts";

interface Owner {
  readonly namespace: string;
  readonly workloadId: string;
}

const base64 = (data: string | Uint8Array): string => Buffer.from(data).toString("base64");

const secretFor = (name: string, type: string, data: [string, string][], { namespace, workloadId }: Owner) =>
  ({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name, namespace, labels: ownLabels(workloadId) },
    type,
    data: Object.fromEntries(data),
  }) satisfies Secret;

export type NamedSecret = ReturnType<typeof secretFor>;

/** One Secret per credential, in request order, for `imagePullSecrets` (runner-api.md 6.2.4). */
export function pullSecretsFor(credentials: readonly ImagePullCredential[], owner: Owner): NamedSecret[] {
  for (const { registry, username, password } of credentials) {
    if (blank(registry)) throw invalid("image_pull_registry_required");
    if (blank(username)) throw invalid("image_pull_username_required");
    if (password === "") throw invalid("image_pull_password_required");
  }
  return credentials.map((credential, index) => {
    const name = pullSecretName(owner.workloadId, index, credentials.length);
    const data: [string, string][] = [[".dockerconfigjson", base64(dockerConfigFor(credential))]];
    return secretFor(name, "kubernetes.io/dockerconfigjson", data, owner);
  });
}

function dockerConfigFor({ registry, username, password }: ImagePullCredential): string {
  const user = trim(username);
  const auth = { username: user, password, auth: base64(`${user}:${password}`) };
  return JSON.stringify({ auths: Object.fromEntries([[trim(registry), auth]]) });
}

/** The files of a request as one Secret: what containers mount of it. */
export interface InlineFiles {
  readonly secret: NamedSecret;
  readonly volume: Volume;
  /** path to key of the Secret */
  readonly keys: ReadonlyMap<string, string>;
}

/**
 * The inline files of the request; undefined when there are none (runner-api.md 6.2.6). Checked in this order: the files'
 * paths, the mounts of all containers, files that nobody mounts.
 */
export function inlineFilesFor(
  files: StartWorkloadRequest["inlineFiles"],
  containers: readonly ContainerSpec[],
  owner: Owner,
): InlineFiles | undefined {
  const entries = sortedEntries(files);
  const mounts = containers.flatMap(({ inlineFileMounts }) => inlineFileMounts).map(({ path }) => trim(path));
  if (entries.length === 0) {
    if (mounts.length > 0) throw invalid("inline_file_not_defined");
    return undefined;
  }
  requireConsistent(new Set(entries.map(([path]) => path)), mounts);

  const numbered = entries.map(([path, content], index) => ({ path, content, key: `inline-file-${index}` }));
  const name = inlineFilesSecretName(owner.workloadId);
  const data = numbered.map(({ key, content }): [string, string] => [key, base64(content)]);
  return {
    secret: secretFor(name, "Opaque", data, owner),
    volume: { name: INLINE_FILES_VOLUME, secret: { secretName: name } },
    keys: new Map(numbered.map(({ path, key }) => [path, key])),
  };
}

function requireConsistent(paths: ReadonlySet<string>, mounts: readonly string[]): void {
  for (const path of paths) {
    if (!isCleanPath(path)) throw invalidText("inline_file_path_invalid", path);
  }
  for (const path of mounts) {
    if (!isCleanPath(path)) throw invalidText("inline_file_path_invalid", path);
    if (!paths.has(path)) throw invalidText("inline_file_not_defined", path);
  }
  const mounted = new Set(mounts);
  for (const path of paths) {
    if (!mounted.has(path)) throw invalidText("inline_file_not_referenced", path);
  }
}
