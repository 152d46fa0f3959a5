import { expect, test } from "bun:test";
import { dirname, join, relative } from "node:path";

const root = join(import.meta.dir, "..", "..");
const transpiler = new Bun.Transpiler({ loader: "ts" });

/** Every file of ours that is loaded with this one, by imports that do not wait to be carried out. */
async function loadedWith(file: string): Promise<string[]> {
  const seen = new Set<string>();
  const visit = async (path: string): Promise<void> => {
    if (seen.has(path)) return;
    seen.add(path);
    const text = await Bun.file(path).text();
    for (const { kind, path: imported } of transpiler.scanImports(text))
      if (kind === "import-statement" && imported.startsWith(".") && imported.endsWith(".ts"))
        await visit(join(dirname(path), imported));
  };
  await visit(join(root, "src", file));
  return [...seen].map((path) => relative(join(root, "src"), path)).sort();
}

test("plain k8s-runner loads nothing of the commands, and the table of commands nothing of the server", async () => {
  expect(await loadedWith("main.ts")).toEqual(["main.ts"]);
  const server = await loadedWith("app.ts");
  expect(server.length).toBeGreaterThan(50);
  expect(server.filter((file) => file.startsWith("cli/"))).toEqual([]);
  const table = await loadedWith("cli/cli.ts");
  expect(table).toContain("cli/client-table.ts");
  expect(table.filter((file) => !file.startsWith("cli/"))).toEqual(["duration.ts"]);
});

test("the client's commands load nothing that talks to Kubernetes", async () => {
  for (const file of ["start", "ps", "inspect", "exec", "logs", "events", "cp", "remove", "complete"]) {
    const loaded = await loadedWith(`cli/${file}.ts`);
    expect(loaded).toContain("cli/connection.ts");
    expect(loaded.filter((path) => /^(kube|runner|pod|watcher|gateway|grpc)\//.test(path))).toEqual([]);
  }
});
