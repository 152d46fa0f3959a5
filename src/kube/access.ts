import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import type { KubeConfig, User } from "@kubernetes/client-node";
import { parse } from "yaml";

/** TLS material of one connection: PEM texts; `serverName` when the certificate is to be checked against another name. */
export interface Tls {
  ca?: string;
  cert?: string;
  key?: string;
  rejectUnauthorized?: boolean;
  serverName?: string;
}

export interface Credentials {
  readonly headers: Record<string, string>;
  readonly tls: Tls;
}

/** How to reach the API server (ruling 15). */
export interface Access {
  readonly server: URL;
  /** Where this access comes from, for the start-up log. */
  readonly source: string;
  /** The namespace that the Pod runs in, or that the kubeconfig's context names. */
  readonly namespace?: string;
  /**
   * Headers and TLS material for one request; cheap when nothing changed. `renew` reads everything anew, for use after a
   * 401. Throws an Error that says what cannot be read.
   */
  credentials(options?: { renew?: boolean }): Promise<Credentials>;
}

const SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount";

/** Files are read again when what was read is older: the kubelet rotates tokens long before they expire. */
const REREAD_MS = 5_000;

/**
 * In-cluster (KUBERNETES_SERVICE_HOST and the service account's files), else the files of KUBECONFIG, else
 * ~/.kube/config (ruling 15). Throws an Error with one clear sentence when there is none, or when it is unusable.
 */
export function clusterAccess(
  env: Readonly<Record<string, string | undefined>>,
  {
    serviceAccountDir = SERVICE_ACCOUNT_DIR,
    home = env.HOME ?? homedir(),
  }: { serviceAccountDir?: string; home?: string } = {},
): Access {
  const host = env.KUBERNETES_SERVICE_HOST;
  const port = env.KUBERNETES_SERVICE_PORT;
  if (host && port && existsSync(join(serviceAccountDir, "token"))) return inCluster(host, port, serviceAccountDir);
  const named = (env.KUBECONFIG ?? "").split(delimiter).filter((file) => file !== "");
  if (named.length > 0) return fromKubeconfig(named, "KUBECONFIG");
  const file = join(home, ".kube", "config");
  if (existsSync(file)) return fromKubeconfig([file], "home");
  throw new Error(`no cluster access: not inside a Pod, KUBECONFIG is not set, and there is no ${file}`);
}

function inCluster(host: string, port: string, dir: string): Access {
  const namespaceFile = join(dir, "namespace");
  const read = () => ({
    headers: bearer(readText(join(dir, "token"))),
    tls: { ca: readText(join(dir, "ca.crt")) },
  });
  return {
    server: new URL(`https://${host.includes(":") ? `[${host}]` : host}:${port}`),
    source: `in-cluster (${dir})`,
    ...(existsSync(namespaceFile) ? { namespace: readText(namespaceFile) } : {}),
    credentials: remembered(async () => read()),
  };
}

function fromKubeconfig(files: readonly string[], origin: string): Access {
  const source = `kubeconfig (${origin}: ${files.join(", ")})`;
  try {
    let config = loadKubeconfig(files);
    const cluster = config.getCurrentCluster();
    if (cluster === null) throw new Error(`context "${config.currentContext ?? ""}" names no cluster`);
    if (cluster.proxyUrl) throw new Error("proxy-url is not supported");
    const namespace = config.getContextObject(config.currentContext)?.namespace;
    return {
      server: new URL(cluster.server),
      source,
      ...(namespace ? { namespace } : {}),
      credentials: remembered((renew) => {
        // Tokens of exec plugins and files are remembered inside KubeConfig: only another one asks for them again.
        if (renew) config = loadKubeconfig(files);
        return credentialsOf(config);
      }),
    };
  } catch (error) {
    throw new Error(`${source} cannot be used: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The files merged as kubectl does: of two entries with one name the first counts. */
function loadKubeconfig(files: readonly string[]): KubeConfig {
  // Not a static import: the library costs 28 to 60 MB of memory, and inside a cluster it is not needed.
  const library: typeof import("@kubernetes/client-node") = require("@kubernetes/client-node");
  const present = files.filter((file) => existsSync(file));
  if (present.length === 0) throw new Error("no such file");
  const merged = new library.KubeConfig();
  const add = <T extends { name: string }>(known: T[], more: readonly T[]) =>
    known.push(...more.filter(({ name }) => !known.some((entry) => entry.name === name)));
  for (const file of present) {
    const one = new library.KubeConfig();
    one.loadFromFile(resolve(file));
    one.users = one.users.map((user) => withTokenFile(user, file));
    add(merged.clusters, one.clusters);
    add(merged.users, one.users);
    add(merged.contexts, one.contexts);
    if (!merged.currentContext && one.currentContext) merged.setCurrentContext(one.currentContext);
  }
  return merged;
}

/** `tokenFile`, which the library knows only as its own form of an auth provider. */
function withTokenFile(user: User, file: string): User {
  const document: unknown = parse(readFileSync(file, "utf8"));
  const users: unknown = isRecord(document) ? document.users : undefined;
  const entry = Array.isArray(users) ? users.find((one) => isRecord(one) && one.name === user.name) : undefined;
  const tokenFile = isRecord(entry) && isRecord(entry.user) ? entry.user.tokenFile : undefined;
  if (typeof tokenFile !== "string" || user.token) return user;
  const config = { tokenFile: resolve(dirname(file), tokenFile) };
  return { ...user, authProvider: { name: "tokenFile", config } };
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

async function credentialsOf(config: KubeConfig): Promise<Credentials> {
  const options: import("node:https").RequestOptions = { headers: {} };
  await config.applyToHTTPSOptions(options);
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(options.headers ?? {})) headers[name.toLowerCase()] = String(value);
  if (typeof options.auth === "string") headers.authorization = `Basic ${btoa(options.auth)}`;
  const tls: Tls = {};
  if (options.ca) tls.ca = String(options.ca);
  if (options.cert) tls.cert = String(options.cert);
  if (options.key) tls.key = String(options.key);
  if (options.rejectUnauthorized !== undefined) tls.rejectUnauthorized = options.rejectUnauthorized;
  if (options.servername) tls.serverName = options.servername;
  return { headers, tls };
}

/** `load`, at most once every few seconds and never twice at once; an old answer stands in when a new one cannot be had. */
function remembered(load: (renew: boolean) => Promise<Credentials>): Access["credentials"] {
  let known: { readonly at: number; readonly credentials: Credentials } | undefined;
  let loading: Promise<Credentials> | undefined;
  const reload = async (renew: boolean) => {
    try {
      const credentials = await load(renew);
      known = { at: performance.now(), credentials };
      return credentials;
    } catch (error) {
      if (known === undefined) throw error;
      return known.credentials; // a file in the middle of its rotation: the next request reads it again
    } finally {
      loading = undefined;
    }
  };
  return async ({ renew = false } = {}) => {
    if (!renew && known !== undefined && performance.now() - known.at < REREAD_MS) return known.credentials;
    loading ??= reload(renew);
    return loading;
  };
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

function readText(file: string): string {
  const text = readFileSync(file, "utf8").trim();
  if (text === "") throw new Error(`${file} is empty`);
  return text;
}
