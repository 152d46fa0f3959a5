import { expect } from "bun:test";
import { parseAllDocuments } from "yaml";

/** The chart as helm renders it. HELM is the program; run.sh installs it. */

export const CHART = `${import.meta.dir}/../../charts/k8s-runner`;
const VALUES = `${import.meta.dir}/values`;
const helm = process.env.HELM ?? "helm";

export interface Rendered {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels: Record<string, string> };
  // biome-ignore lint/suspicious/noExplicitAny: every kind of object, read by path; a wrong path fails the test
  readonly [key: string]: any;
}

/** helm with these arguments: what it said, and whether it went well. `-` as a file of values means `input`, as JSON. */
function helmWith(args: readonly string[], input?: unknown): { ok: boolean; text: string } {
  const stdin = Buffer.from(JSON.stringify(input) ?? "");
  const { success, stdout, stderr } = Bun.spawnSync([helm, ...args], { stdin, stdout: "pipe", stderr: "pipe" });
  return { ok: success, text: success ? stdout.toString() : stderr.toString() };
}
export const run = (...args: string[]) => helmWith(args);

/** The chart with these values above those of `args`. */
export const template = (values: unknown, ...args: string[]) =>
  helmWith(["template", "k8s-runner", CHART, "--namespace", "agyn-platform", ...args, "--values", "-"], values);

export function render(values: unknown = {}, ...args: string[]): Rendered[] {
  const { ok, text } = template(values, ...args);
  if (!ok) throw new Error(text);
  return parseAllDocuments(text)
    .map((document): Rendered => document.toJS())
    .filter((object) => object !== null);
}

export const file = (name: string): string => `${VALUES}/${name}.yaml`;
export const one = (objects: readonly Rendered[], kind: string, name?: string): Rendered => {
  const found = objects.filter((each) => each.kind === kind && (name === undefined || each.metadata.name === name));
  expect(found.length).toBe(1);
  if (found[0] === undefined) throw new Error(`no ${kind}`);
  return found[0];
};
export const kinds = (objects: readonly Rendered[]): string[] =>
  objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`).sort();
export const podOf = (objects: readonly Rendered[]) => one(objects, "Deployment").spec.template;
export const containerOf = (objects: readonly Rendered[]) => podOf(objects).spec.containers[0];
export const envOf = (objects: readonly Rendered[]): Record<string, string> =>
  Object.fromEntries(containerOf(objects).env.map((each: { name: string; value?: string }) => [each.name, each.value]));

export const INTERNAL = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"];
export const internet = (...except: string[]) => ({ to: [{ ipBlock: { cidr: "0.0.0.0/0", except } }] });
export const dns = (namespace: string, labels: Record<string, string>) => ({
  to: [
    {
      namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
      podSelector: { matchLabels: labels },
    },
  ],
  ports: [
    { protocol: "UDP", port: 53 },
    { protocol: "TCP", port: 53 },
  ],
});
