import { expect, test } from "bun:test";
import { Glob } from "bun";
import { variables } from "../../src/environment.ts";
import { contentOf, DOCS, generated } from "./generate.ts";

test.each(Object.entries(generated))("docs/%s says what the code says (else: `bun run docs`)", async (path, make) => {
  expect(await Bun.file(`${DOCS}/${path}`).text()).toBe(contentOf(make));
});

const ROOT = `${import.meta.dir}/../..`;
/** Read where they are used: how the cluster is reached, where a directory can be made, how a client reaches a runner. */
const elsewhere = /^(KUBE(CONFIG|RNETES_SERVICE_(HOST|PORT))|HOME|TMPDIR|PATH|NO_COLOR|(E2E|RUNNER)_\w+)$/;

test("no source reads a variable that is not in the list of them", async () => {
  const unlisted: string[] = [];
  for await (const path of new Glob("src/**/*.ts").scan(ROOT)) {
    const source = await Bun.file(`${ROOT}/${path}`).text();
    for (const [, name = ""] of source.matchAll(/\benv(?:ironment)?(?:\.|\[")([A-Z][A-Z0-9_]+)/g))
      if (!(name in variables) && !elsewhere.test(name)) unlisted.push(`${path}: ${name}`);
  }
  expect(unlisted).toEqual([]);
});

test("every variable of the list is one that some source reads", async () => {
  let sources = "";
  for await (const path of new Glob("src/**/*.ts").scan(ROOT))
    if (path !== "src/environment.ts") sources += await Bun.file(`${ROOT}/${path}`).text();
  expect(Object.keys(variables).filter((name) => !sources.includes(`"${name}"`))).toEqual([]);
});

test("every variable that the chart sets is one that the process reads", async () => {
  const chart = [`${ROOT}/charts/k8s-runner/values.yaml`, `${ROOT}/charts/k8s-runner/templates/_helpers.tpl`];
  const names: string[] = [];
  for (const path of chart)
    for (const [, name = ""] of (await Bun.file(path).text()).matchAll(/(?:- name: |"name" ")([A-Z][A-Z0-9_]+)\b/g))
      names.push(name);
  expect(names).toContain("GRPC_ADDR");
  expect(names).toContain("TLS_CERT_FILE");
  expect(names.filter((name) => !(name in variables))).toEqual([]);
});
