import { expect, test } from "bun:test";
import { decode, exec, summary } from "../support/exec.ts";
import { Link } from "../support/link.ts";
import { freshId, sharedRunner, startRunner } from "../support/runner.ts";
import { tar } from "../support/tar.ts";
import { refusal } from "../support/wait.ts";

const runner = sharedRunner();
let shared: Promise<{ id: string; target: string }> | undefined;
const workload = async () => {
  shared ??= runner().run();
  return await shared;
};
/** A directory of the test's own in the container. */
async function directory(): Promise<string> {
  const path = `/tmp/archive-${freshId()}`;
  await shell(`mkdir ${path}`);
  return path;
}
const shell = async (commandShell: string) => {
  const result = await exec(runner().client, { targetId: (await workload()).target, commandShell });
  expect(summary(result)).toMatchObject({ exitCode: 0 });
  return result.stdout;
};
const put = async (path: string, tarPayload: Uint8Array) =>
  runner().client.putArchive({ workloadId: (await workload()).id, path, tarPayload });

test("an archive is unpacked in the main container, every byte and name of it", async () => {
  const path = await directory();
  const data = crypto.getRandomValues(new Uint8Array(65_536));
  await put(` ${path} `, tar([{ name: "a/" }, { name: "a/b c.bin", data }, { name: "empty", data: new Uint8Array() }]));
  expect(Buffer.from(await shell(`cat '${path}/a/b c.bin'`)).equals(data)).toBe(true);
  expect(decode(await shell(`cd ${path}; find . | sort`))).toBe(".\n./a\n./a/b c.bin\n./empty\n");
});

test("two mebibytes arrive whole", async () => {
  const path = await directory();
  const data = Buffer.concat(Array.from({ length: 32 }, () => crypto.getRandomValues(new Uint8Array(65_536))));
  await put(path, tar([{ name: "big", data }]));
  expect(Buffer.from(await shell(`cat ${path}/big`)).equals(data)).toBe(true);
});

test("a directory that is not there is told in tar's words", async () => {
  const { code, message } = await refusal(put("/no/such/directory", tar([{ name: "a", data: new Uint8Array(1) }])));
  expect(code).toBe("Internal");
  expect(message).toMatch(/^put archive failed: .*\/no\/such\/directory/);
});

test("what is no archive is refused, and a path is never an option", async () => {
  for (const path of ["/tmp", "--help"]) {
    const { code, message } = await refusal(put(path, new TextEncoder().encode("x".repeat(2_000))));
    expect(code).toBe("Internal");
    expect(message).toMatch(/^put archive failed: ./);
  }
});

test("blank arguments and workloads that are not there are refused", async () => {
  const id = freshId();
  for (const request of [
    { workloadId: " ", path: "/tmp" },
    { workloadId: id, path: "\t" },
  ])
    expect(await refusal(runner().client.putArchive(request))).toEqual({
      code: "InvalidArgument",
      message: "workload_id_and_path_required",
    });
  expect(await refusal(runner().client.putArchive({ workloadId: id, path: "/tmp" }))).toEqual({
    code: "NotFound",
    message: `resource not found: pods "workload-${id}" not found`,
  });
});

test("an upload that is cut is never OK with another tree, wherever it is cut", async () => {
  const link = await Link.to(runner().backend.access.server);
  await using _ = link;
  await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  const { id } = await workload();
  const members = Array.from({ length: 40 }, (_, index) => ({
    name: `file-${index}`,
    data: crypto.getRandomValues(new Uint8Array(9_000 + 700 * index)),
  }));
  const tarPayload = tar(members);
  const ended = [];
  for (const part of [0.01, 0.2, 0.4, 0.6, 0.8, 0.99]) {
    const path = await directory();
    link.cutAfter(Math.floor(tarPayload.length * part), "runner");
    const ok = await behind.client.putArchive({ workloadId: id, path, tarPayload }).then(
      () => true,
      () => false,
    );
    const whole = decode(await shell(`cd ${path}; ls | wc -l`)).trim() === String(members.length);
    expect({ part, false: ok && !whole }).toEqual({ part, false: false });
    ended.push(ok);
  }
  expect(ended).toContain(false);
});
