import { afterAll, expect, test } from "bun:test";
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Header, type HeaderData } from "tar/header";
import { Unpacking } from "../../src/cli/unpack.ts";

/** Archives that a hostile workload could send. */

const made = mkdtempSync(join(tmpdir(), "cli-unpack-"));
afterAll(() => rmSync(made, { recursive: true }));

let count = 0;
/** An empty destination with a neighbour that must stay empty. */
function destination() {
  const root = join(made, String(count++));
  mkdirSync(join(root, "into"), { recursive: true });
  return { root, into: join(root, "into") };
}

function member(about: HeaderData, data = ""): Buffer {
  const header = new Header({ mode: 0o644, mtime: new Date(0), type: "File", ...about, size: data.length });
  header.encode();
  return Buffer.concat([
    header.block ?? Buffer.alloc(0),
    Buffer.from(data),
    Buffer.alloc((512 - (data.length % 512)) % 512),
  ]);
}

const END = Buffer.alloc(1024);

async function unpack(into: string, archive: Uint8Array, piece = archive.length): Promise<number> {
  const unpacking = new Unpacking(into);
  for (let at = 0; at < archive.length; at += piece) await unpacking.write(archive.subarray(at, at + piece));
  return await unpacking.end();
}

test.each([
  ["a parent's name", [member({ path: "../out" }, "x")], 'Failure: "../out" in the archive leaves the destination'],
  ["a parent within a name", [member({ path: "a/../../out" }, "x")], "leaves the destination"],
  ["an absolute name", [member({ path: "/tmp/out" }, "x")], "leaves the destination"],
  ["a directory above", [member({ path: "../out/", type: "Directory" })], "leaves the destination"],
  [
    "a hard link to a file outside",
    [member({ path: "a", type: "Link", linkpath: "/etc/passwd" })],
    "by its link to /etc/passwd",
  ],
  [
    "a hard link by a parent's name",
    [member({ path: "a", type: "Link", linkpath: "../../etc/passwd" })],
    "leaves the destination",
  ],
  [
    "a hard link to a symbolic link",
    [
      member({ path: "a", type: "SymbolicLink", linkpath: "/etc/passwd" }),
      member({ path: "b", type: "Link", linkpath: "a" }),
    ],
    "is a link to a, which is no file of the archive",
  ],
  ["a device", [member({ path: "a", type: "CharacterDevice" })], "is a CharacterDevice"],
  ["a fifo", [member({ path: "a", type: "FIFO" })], "is a FIFO"],
  ["the same file twice", [member({ path: "a" }, "x"), member({ path: "a" }, "y")], "EEXIST"],
])("an archive with %s is refused, and nothing is written outside", async (_, members, why) => {
  const { root, into } = destination();
  const refusal = unpack(into, Buffer.concat([...members, END])).catch((error: unknown) => String(error));
  expect(await refusal).toContain(why);
  expect(readdirSync(root)).toEqual(["into"]);
});

test("nothing is written through a symbolic link of the archive", async () => {
  const { root, into } = destination();
  mkdirSync(join(root, "outside"));
  const archive = [
    member({ path: "door", type: "SymbolicLink", linkpath: "../outside" }),
    member({ path: "door/file" }, "x"),
    END,
  ];
  expect(await unpack(into, Buffer.concat(archive)).catch((error: unknown) => String(error))).toContain("EEXIST");
  expect(readdirSync(join(root, "outside"))).toEqual([]);
  expect(lstatSync(join(into, "door")).isDirectory()).toBe(true);
});

test.each([
  ["without its end", (whole: Buffer) => whole.subarray(0, -1024)],
  ["cut between two files", (whole: Buffer) => whole.subarray(0, 1024)],
  ["cut within a file", (whole: Buffer) => whole.subarray(0, 1536 + 100)],
  ["cut within its end", (whole: Buffer) => whole.subarray(0, -600)],
  ["with a header that was changed", (whole: Buffer) => Buffer.from(whole).fill(1, 1024, 1030)],
  ["that is empty", () => Buffer.alloc(0)],
  ["that is none", () => Buffer.from("no such file or directory\n".repeat(100))],
])("an archive %s is a loss of data", async (_, change) => {
  const { into } = destination();
  const whole = Buffer.concat([member({ path: "a" }, "aaa"), member({ path: "b" }, "b".repeat(700)), END]);
  expect(await unpack(into, whole)).toBe(2);
  const refusal = unpack(destination().into, change(whole)).catch((error: unknown) => String(error));
  expect(await refusal).toContain("data_loss");
});

test("an archive is unpacked the same in pieces of any size; setuid is left out", async () => {
  const long = "l".repeat(5000);
  const archive = Buffer.concat([
    member({ path: "./", type: "Directory", mode: 0o700 }),
    member({ path: "./d/", type: "Directory", mode: 0o555 }),
    member({ path: "./d/s", mode: 0o4755 }, long),
    member({ path: "./hard", type: "Link", linkpath: "./d/s" }),
    member({ path: "./soft", type: "SymbolicLink", linkpath: "/nowhere" }),
    END,
  ]);
  for (const piece of [1, 511, 512, 513, 4096, archive.length]) {
    const { into } = destination();
    expect(await unpack(into, archive, piece)).toBe(5);
    expect(readFileSync(join(into, "d", "s"), "utf8")).toBe(long);
    expect(lstatSync(join(into, "d", "s")).mode & 0o7777).toBe(0o755);
    expect(lstatSync(join(into, "d")).mode & 0o7777).toBe(0o555);
    expect(lstatSync(join(into, "hard")).ino).toBe(lstatSync(join(into, "d", "s")).ino);
    expect(existsSync(join(into, "soft"))).toBe(false);
    expect(lstatSync(join(into, "soft")).isSymbolicLink()).toBe(true);
  }
});
