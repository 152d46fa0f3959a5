import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { parse } from "yaml";
import packageJson from "../../package.json";

/** The scripts of devspace.yaml, run by a shell with fakes for kubectl and for what DevSpace gives to its pipelines. */

interface Dev {
  readonly namespace: string;
  readonly labelSelector: Record<string, string>;
  readonly container: string;
  readonly ports?: readonly { readonly port: string }[];
  readonly logs?: { readonly enabled: boolean };
  readonly sync: readonly [
    { readonly path: string; readonly noWatch?: boolean; readonly excludePaths: readonly string[] },
  ];
}
interface DevSpace {
  readonly version: string;
  readonly vars: Record<string, { readonly source: string; readonly default: string }>;
  readonly functions: Record<string, string>;
  readonly pipelines: Record<
    string,
    { readonly run: string; readonly flags?: readonly { readonly name: string; readonly short: string }[] }
  >;
  readonly commands: Record<string, { readonly command: string; readonly appendArgs: boolean }>;
  readonly hooks: readonly { readonly command: string; readonly events: readonly string[] }[];
  readonly dev: Record<"k8s-runner" | "k8s-runner-once", Dev>;
}

const config: DevSpace = parse(readFileSync("devspace.yaml", "utf8"));
const scratch = mkdtempSync(`${tmpdir()}/devspace-`);
afterAll(() => rmSync(scratch, { recursive: true }));
let runs = 0;

interface Run {
  readonly status: number;
  readonly output: string;
  readonly calls: string[];
  readonly patch: Record<string, unknown>[];
  readonly directory: string;
}

/**
 * A script in a directory of its own. DevSpace may run a function of its configuration in the caller's shell or in one of its
 * own; `apart` stands for the second.
 */
function run(script: string, env: Record<string, string> = {}, { apart = false, args = [] as string[] } = {}): Run {
  const directory = `${scratch}/${++runs}`;
  const bin = `${directory}/bin`;
  const work = `${directory}/work`;
  mkdirSync(bin, { recursive: true });
  mkdirSync(`${work}/node_modules/.bin`, { recursive: true });
  for (const name of ["kubectl", "sleep", "get_flag", "start_dev", "stop_dev", "devspace", "npx"])
    symlinkSync(`${import.meta.dir}/fakes.sh`, `${bin}/${name}`);
  symlinkSync(`${import.meta.dir}/fakes.sh`, `${work}/node_modules/.bin/bun`);
  const bodies = Object.entries(config.functions);
  if (apart)
    for (const [name, body] of bodies) {
      writeFileSync(`${bin}/${name}`, `#!/usr/bin/env bash\n${body}\n`);
      chmodSync(`${bin}/${name}`, 0o755);
    }
  const functions = apart ? "" : bodies.map(([name, body]) => `${name}() {\n${body}\n}\n`).join("");
  const { exitCode, stdout, stderr } = Bun.spawnSync(["bash", "-c", functions + script, "devspace", ...args], {
    cwd: work,
    env: {
      PATH: `${bin}:/usr/local/bin:/usr/bin:/bin`,
      CALLS: `${directory}/calls`,
      K8S_RUNNER_NAMESPACE: "platform",
      ...env,
    },
  });
  const text = (path: string) => (existsSync(path) ? readFileSync(path, "utf8") : "");
  return {
    status: exitCode,
    output: stdout.toString() + stderr.toString(),
    calls: text(`${directory}/calls`).split("\n").slice(0, -1),
    patch: JSON.parse(text(`${directory}/calls.patch`) || "[]"),
    directory: work,
  };
}

const pipeline = (name: string): string => config.pipelines[name]?.run ?? "exit 99";
/** The calls in short: what each is about, without its arguments. */
const steps = ({ calls }: Run): string[] =>
  calls
    .filter((call) => !call.startsWith("get_flag") && !call.startsWith("sleep"))
    .map((call) => call.split(" ").slice(0, 3).join(" ").replace(" --namespace", "").replace(" --selector", ""))
    .filter((call, index, all) => call !== all[index - 1]);

const PREPARED = [
  "kubectl get applications.argoproj.io",
  "kubectl patch applications.argoproj.io",
  "kubectl get deployment",
  "kubectl patch deployment",
  "kubectl rollout status",
];

for (const apart of [false, true]) {
  describe(apart ? "with functions in shells of their own" : "with functions in the caller's shell", () => {
    test("devspace dev patches, syncs, waits until the port is open, and ends", () => {
      const ran = run(pipeline("dev"), { HEALTHY_AFTER: "3" }, { apart });
      expect(ran).toMatchObject({ status: 0 });
      expect(ran.output).toBe("Dev environment ready. Stopping dev session.\n");
      expect(steps(ran)).toEqual([
        ...PREPARED,
        "start_dev k8s-runner",
        "kubectl exec deployment/k8s-runner",
        "stop_dev k8s-runner",
      ]);
      expect(ran.calls.filter((call) => call === "sleep 2").length).toBe(3);
    });

    test("devspace dev -w stays attached", () => {
      const ran = run(pipeline("dev"), { WATCH: "true" }, { apart });
      expect(ran).toMatchObject({ status: 0, output: "" });
      expect(steps(ran).slice(PREPARED.length)).toEqual(["start_dev k8s-runner", "kubectl exec deployment/k8s-runner"]);
    });

    test("devspace dev of a runner that never listens fails after 60 tries", () => {
      const ran = run(pipeline("dev"), { HEALTHY_AFTER: "1000" }, { apart });
      expect(ran).toMatchObject({ status: 1, output: "ERROR: k8s-runner did not become healthy within 120s\n" });
      expect(ran.calls.filter((call) => call === "sleep 2").length).toBe(60);
      expect(ran.calls.some((call) => call.startsWith("stop_dev"))).toBe(false);
    });

    test("devspace run deploy syncs once and waits for the rollout and the log", () => {
      const ran = run(pipeline("deploy"), { SERVING_AFTER: "2" }, { apart });
      expect(ran).toMatchObject({ status: 0, output: "" });
      expect(steps(ran)).toEqual([
        ...PREPARED,
        "start_dev k8s-runner-once",
        "stop_dev k8s-runner-once",
        "kubectl rollout status",
        "kubectl logs",
      ]);
      expect(ran.calls.filter((call) => call === "sleep 5").length).toBe(2);
      const logs = ran.calls.find((call) => call.startsWith("kubectl logs"));
      expect(logs).toContain("--selector app.kubernetes.io/name=k8s-runner,app.kubernetes.io/instance=k8s-runner");
      expect(logs).toContain("--tail=200");
      const rollout = "kubectl rollout status deployment/k8s-runner --namespace platform --timeout=120s";
      expect(ran.calls.filter((call) => call === rollout).length).toBe(2);
    });

    test("devspace run deploy of a runner that never serves shows what there is, and fails after 600 s", () => {
      const ran = run(pipeline("deploy"), { SERVING_AFTER: "1000" }, { apart });
      expect(ran.status).toBe(1);
      expect(ran.output).toContain("ERROR: k8s-runner did not log 'gRPC server starting' within 600s");
      expect(ran.calls.filter((call) => call === "sleep 5").length).toBe(120);
      const last = ran.calls.slice(-3);
      expect(last[0]).toStartWith("kubectl get pods");
      expect(last[1]).toStartWith("kubectl logs");
      expect(last[2]).toEndWith("--previous");
    });

    test.each(["patch applications", "get deployment", "patch deployment", "rollout status"])(
      "%s that fails ends it",
      (FAILS) => {
        for (const name of ["dev", "deploy"]) {
          const ran = run(pipeline(name), { FAILS }, { apart });
          expect(ran.status).toBe(1);
          expect(ran.calls.some((call) => call.startsWith("start_dev"))).toBe(false);
        }
      },
    );

    test("a cluster without the Application is only warned of", () => {
      const ran = run(pipeline("deploy"), { APPLICATION: "no" }, { apart });
      expect(ran.status).toBe(0);
      expect(ran.output).toStartWith("WARNING: there is no Argo CD Application k8s-runner in namespace argocd");
      expect(ran.calls.some((call) => call.includes("patch applications"))).toBe(false);
      expect(run(pipeline("restore-argocd"), { APPLICATION: "no" }, { apart }).status).toBe(0);
    });

    test("Argo CD's automatic sync goes off and on", () => {
      const argocd = "kubectl patch applications.argoproj.io k8s-runner --namespace argocd --type merge --patch ";
      expect(run(pipeline("deploy"), {}, { apart }).calls).toContain(
        `${argocd}{"spec":{"syncPolicy":{"automated":null}}}`,
      );
      expect(run(pipeline("restore-argocd"), {}, { apart }).calls).toContain(
        `${argocd}{"spec":{"syncPolicy":{"automated":{"prune":true,"selfHeal":true}}}}`,
      );
    });
  });
}

describe("the patch", () => {
  const container = "/spec/template/spec/containers/0";
  const patched = (NAMES = "KUBE_NAMESPACE SERVICE_TOKEN") => run("patch_deployment", { NAMES }).patch;
  const valueAt = (path: string) => patched().find((operation) => operation.path === path)?.value;

  test("is the contract's", () => {
    expect(valueAt(`${container}/image`)).toBe("ghcr.io/agynio/devcontainer-node:1");
    expect(valueAt(`${container}/workingDir`)).toBe("/opt/app/data");
    expect(valueAt("/spec/template/spec/volumes")).toEqual([{ name: "data", emptyDir: {} }]);
    expect(valueAt(`${container}/volumeMounts`)).toEqual([{ name: "data", mountPath: "/opt/app/data" }]);
    expect(valueAt(`${container}/resources`)).toEqual({
      requests: { cpu: "500m", memory: "1Gi" },
      limits: { cpu: "2", memory: "4Gi" },
    });
    expect(valueAt(`${container}/securityContext`)).toEqual({
      runAsUser: 1000,
      runAsGroup: 1000,
      runAsNonRoot: true,
      readOnlyRootFilesystem: false,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
      seccompProfile: { type: "RuntimeDefault" },
    });
    expect(valueAt("/spec/template/spec/securityContext")).toEqual({ runAsUser: 1000, fsGroup: 1000 });
    expect(valueAt("/spec/template/spec/initContainers")).toEqual([]);
    for (const probe of ["livenessProbe", "readinessProbe"]) expect(valueAt(`${container}/${probe}`)).toBeNull();
  });

  test("adds the development catalog to an environment that stays", () => {
    const value = { name: "CATALOG_PATH", value: "/opt/app/data/tests/devspace/catalog.yaml" };
    const ofEnv = (names?: string) => patched(names).filter(({ path }) => String(path).startsWith(`${container}/env`));
    expect(ofEnv()).toEqual([{ op: "add", path: `${container}/env/-`, value }]);
    expect(ofEnv("A CATALOG_PATH B")).toEqual([{ op: "replace", path: `${container}/env/1`, value }]);
    expect(ofEnv("")).toEqual([{ op: "add", path: `${container}/env`, value: [value] }]);
    expect(existsSync("tests/devspace/catalog.yaml")).toBe(true);
    const catalog = parse(readFileSync("tests/devspace/catalog.yaml", "utf8"));
    expect(catalog.flavors.map(({ name }: { name: string }) => name)).toEqual(["ram-2gb", "ram-4gb"]);
    expect(catalog.storageClasses).toEqual([{ name: "default", default: true }]);
  });

  describe("and its command", () => {
    const command = valueAt(`${container}/command`);
    const script = Array.isArray(command) ? String(command[2]) : "";
    const started = (env: Record<string, string>) => run(script, env);

    test("waits for the files, prepares and starts the service", () => {
      const ran = started({ FILES_AFTER: "3" });
      expect(ran).toMatchObject({ status: 0, output: "" });
      expect(ran.calls.filter((call) => !call.startsWith("sleep"))).toEqual([
        `npx --yes bun@${packageJson.devDependencies.bun} install --frozen-lockfile`,
        `npx --yes bun@${packageJson.devDependencies.bun} run generate`,
        "bun --watch --no-clear-screen src/main.ts",
      ]);
      expect(ran.calls.slice(0, 3)).toEqual(["sleep 1", "sleep 1", "sleep 1"]);
    });

    test("gives up after 120 s without files, and when a step fails", () => {
      const none = started({});
      expect(none).toMatchObject({ status: 1, output: "no files were synced within 120 s\n" });
      expect(none.calls.length).toBe(120);
      const broken = started({ FILES_AFTER: "1", FAILS: "run generate" });
      expect(broken.status).not.toBe(0);
      expect(broken.calls.some((call) => call.startsWith("bun --watch"))).toBe(false);
    });
  });
});

describe("the configuration", () => {
  test("is for DevSpace 6, with one default namespace that the environment replaces", () => {
    expect(config.version).toBe("v2beta1");
    expect(config.vars.K8S_RUNNER_NAMESPACE).toEqual({ source: "env", default: "platform" });
    const everywhere = run(pipeline("deploy"), { K8S_RUNNER_NAMESPACE: "agyn-platform" }).calls;
    for (const call of everywhere.filter((each) => each.startsWith("kubectl") && !each.includes("argocd")))
      expect(call).toContain("--namespace agyn-platform");
  });

  test("devspace run deploy takes -n", () => {
    const { command, appendArgs } = config.commands.deploy ?? { command: "exit 99", appendArgs: true };
    expect(appendArgs).toBe(false);
    const script = `${command}\necho "$K8S_RUNNER_NAMESPACE"`;
    for (const args of [["-n", "x"], ["--namespace", "x"], ["--namespace=x"]])
      expect(run(script, {}, { args })).toMatchObject({
        status: 0,
        output: "x\n",
        calls: ["devspace run-pipeline deploy"],
      });
    expect(run(script)).toMatchObject({ output: "platform\n", calls: ["devspace run-pipeline deploy"] });
    expect(run(script, {}, { args: ["-x"] })).toMatchObject({ status: 1, calls: [] });
  });

  test("the hook gives the Application back after a watched session, and not where the Pod shall stay", () => {
    const [hook] = config.hooks;
    const after = (WATCH: string) => run(`${pipeline("dev")}\n${hook?.command}`, { WATCH }).calls.at(-1);
    expect(after("true")).toBe("devspace run-pipeline restore-argocd");
    expect(after("false")).toBe("stop_dev k8s-runner");
    expect(hook?.events.length).toBeGreaterThan(0);
  });

  test("the Pods are found by their labels, and the sync leaves out what is made in the container", () => {
    const { "k8s-runner": watched, "k8s-runner-once": once } = config.dev;
    for (const dev of [watched, once]) {
      expect(dev.labelSelector).toEqual({
        "app.kubernetes.io/name": "k8s-runner",
        "app.kubernetes.io/instance": "k8s-runner",
      });
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is DevSpace that replaces it
      expect(dev).toMatchObject({ container: "k8s-runner", namespace: "${K8S_RUNNER_NAMESPACE}" });
      expect(dev.sync[0].path).toBe("./:/opt/app/data");
      for (const path of [".git/", ".devspace/", "/tmp/", "node_modules/", "dist/", "src/gen/"])
        expect(dev.sync[0].excludePaths).toContain(path);
    }
    expect(once.sync[0].noWatch).toBe(true);
    expect(once.sync[0].excludePaths).toContain("/bootstrap/");
    expect(watched.ports).toEqual([{ port: "50051:50051" }]);
    expect(watched.logs).toEqual({ enabled: true });
    expect(config.pipelines.dev?.flags).toMatchObject([{ name: "watch", short: "w", type: "bool" }]);
  });
});
