import { expect, test } from "bun:test";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { subidScript } from "../../src/pod/docker.ts";
import { planOf } from "./plans.ts";

/** What the script writes for these maps, run by this machine's /bin/sh. */
async function run(maps: { uid: string; gid: string }, before?: string): Promise<{ subuid: string; subgid: string }> {
  const out = await mkdtemp(join(tmpdir(), "subid-"));
  try {
    const files = { uidMap: join(out, "uid_map"), gidMap: join(out, "gid_map"), out };
    await Promise.all([writeFile(files.uidMap, maps.uid), writeFile(files.gidMap, maps.gid)]);
    if (before !== undefined) await writeFile(join(out, "subuid"), before);
    const shell = Bun.spawn(["/bin/sh", "-c", subidScript(files)], { stdout: "pipe", stderr: "pipe" });
    expect({ code: await shell.exited, stderr: await new Response(shell.stderr).text() }).toEqual({
      code: 0,
      stderr: "",
    });
    return { subuid: await readFile(join(out, "subuid"), "utf8"), subgid: await readFile(join(out, "subgid"), "utf8") };
  } finally {
    await rm(out, { recursive: true });
  }
}

/** A line as the kernel prints it: three right-aligned columns. */
const line = (ids: number, outside = 0): string =>
  `${[0, outside, ids].map((id) => String(id).padStart(10)).join(" ")}\n`;

const rows: [number, string][] = [
  [0, ""],
  [1, ""],
  [2, "rootless:1:1\n"],
  [1000, "rootless:1:999\n"],
  [1001, "rootless:1:999\n"],
  [1002, "rootless:1:999\nrootless:1001:1\n"],
  [65536, "rootless:1:999\nrootless:1001:64535\n"],
  [4294967295, "rootless:1:999\nrootless:1001:4294966294\n"],
];

test.each(rows)("of %d ids the rootless user may give away all but its own and 0", async (ids, expected) => {
  expect(await run({ uid: line(ids, 65536), gid: line(ids) })).toEqual({ subuid: expected, subgid: expected });
});

test("users and groups are counted apart, by the first line of their maps", async () => {
  const maps = { uid: line(1001) + line(65536), gid: line(2) };
  expect(await run(maps)).toEqual({ subuid: "rootless:1:999\n", subgid: "rootless:1:1\n" });
});

test("what a file held before is gone, also when nothing is written", async () => {
  expect(await run({ uid: line(1), gid: "" }, "rootless:0:65536\n")).toEqual({ subuid: "", subgid: "" });
});

test("the init container runs this script on its own maps", () => {
  const { pod } = planOf({ capabilities: ["docker"] }, { docker: "rootless" });
  const script = subidScript({ uidMap: "/proc/self/uid_map", gidMap: "/proc/self/gid_map", out: "/subid" });
  expect(pod.spec?.initContainers?.[0]?.command).toEqual(["/bin/sh", "-c", script]);
});
