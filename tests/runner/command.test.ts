import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { ExecStartRequestSchema } from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import { Command } from "../../src/runner/command.ts";
import { holdCommand, killCommand } from "../../src/runner/kill.ts";
import { Marks, type Word } from "../../src/runner/marks.ts";
import { archiveCommand } from "../../src/runner/wrapper.ts";
import { tar } from "../support/tar.ts";
import { until } from "../support/wait.ts";

// The wrapper scripts run here under this machine's own /bin/sh; the end-to-end files run them in containers.
let directory = "";
beforeAll(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), "command-")));
  mkdirSync(join(directory, "a b"));
  writeFileSync(join(directory, "plain"), "no program");
  writeFileSync(join(directory, "show"), `#!/bin/sh\nfor each in "$@"; do printf '%s\\0' "$each"; done\n`);
  chmodSync(join(directory, "show"), 0o755);
});
afterAll(() => rmSync(directory, { recursive: true }));

type Start = MessageInitShape<typeof ExecStartRequestSchema>;

const start = (init: Start) => new Command(create(ExecStartRequestSchema, init));

/** The shells of common images: dash (Debian), busybox (Alpine), bash (Red Hat). Those that this machine has. */
const shells = [["/bin/sh"], ["busybox", "sh"], ["bash", "--posix"]].filter(
  ([program = ""]) => Bun.which(program) !== null,
);

describe.each(shells.map((shell) => [shell.join(" "), shell] as const))("under %s", (_, shell) => {
  /** Runs a command as the cluster would, and tells words from output as the runner does. */
  async function run(init: Start, stdin = "") {
    const id = randomUUID();
    const { argv, lines } = start(init).wrapped(id);
    const child = Bun.spawn([...shell, ...argv.slice(1)], {
      stdin: Buffer.from(lines + stdin),
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, code] = await Promise.all([child.stdout.bytes(), child.stderr.bytes(), child.exited]);
    const [out, err] = [told(id, stdout), told(id, stderr)];
    return { stdout: out.text, stderr: err.text, words: [...out.words, ...err.words], code, url: argv.join("\n") };
  }

  test("any argument, directory and value of env reaches the program byte for byte", async () => {
    const word = fc
      .string({ unit: "binary", maxLength: 20 })
      .filter((text) => !text.includes("\0") && text.isWellFormed());
    await fc.assert(
      fc.asyncProperty(fc.array(word, { maxLength: 5 }), word, async (args, value) => {
        const options = { workdir: join(directory, "a b"), env: [{ name: "X", value }] };
        const shown = await run({ commandArgv: [join(directory, "show"), ...args], options });
        expect(shown.stdout).toBe(args.map((arg) => `${arg}\0`).join(""));
        const env = await run({ commandArgv: ["/bin/sh", "-c", 'printf "%s\\0%s" "$PWD" "$X"'], options });
        expect(env.stdout).toBe(`${join(directory, "a b")}\0${value}`);
        const script = await run({ commandShell: `printf %s '${value.replaceAll("'", "")}' # ${value}` });
        expect(script.stdout.startsWith(value.replaceAll("'", ""))).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  test("values of env and shell text are handed over, short arguments stand in the URL", async () => {
    const env = [{ name: "PASSWORD", value: "hunter2" }];
    const both = await run({ commandArgv: ["sh", "-c", "echo $PASSWORD; cat"], options: { env } }, "its own input");
    expect(both).toMatchObject({ stdout: "hunter2\nits own input", code: 0 });
    expect(both.url).toContain("echo $PASSWORD; cat");
    expect(both.url).not.toContain("hunter2");
    const script = await run({ commandShell: 'echo "$0" hunter2; cat' }, "its own input");
    expect(script).toMatchObject({ stdout: "/bin/sh hunter2\nits own input", code: 0 });
    expect(script.url).not.toContain("hunter2");
    const path = await run({
      commandArgv: ["env"],
      options: { env: [{ name: "PATH", value: `${directory}:/usr/bin` }] },
    });
    expect(path.stdout).toContain(`PATH=${directory}:/usr/bin\n`);
    expect(path.url).not.toContain(directory);
  });

  test("a script of a mebibyte and arguments too long for a URL are read, and nothing of that is left behind", async () => {
    const filler = "x".repeat(1_000_000);
    const script = `set -- '${filler}'\necho "$0 \${#1}"; cat; env | grep -c K8S_RUNNER; set | grep -c K8S_RUNNER_LINE; exit 7`;
    const options = { env: [{ name: "a.b", value: "1" }] };
    const long = await run({ commandShell: script, options }, "input\n");
    expect(long).toMatchObject({ stdout: "/bin/sh 1000000\ninput\n1\n0\n", code: 7 });
    expect(long.url.length).toBeLessThan(8_000);
    const args = Array.from({ length: 20 }, (_, index) => `${index}`.repeat(50_000));
    const many = await run({ commandArgv: [join(directory, "show"), ...args] });
    expect(many.stdout).toBe(args.map((arg) => `${arg}\0`).join(""));
    expect(many.url.length).toBeLessThan(8_000);
  });

  test("env names that are no identifiers, and one that looks like an option, reach a program", async () => {
    const env = [
      { name: "a.b", value: "1" },
      { name: "-c-d", value: "2" },
    ];
    const { stdout } = await run({ commandArgv: ["env"], options: { env } });
    expect(stdout.split("\n")).toEqual(expect.arrayContaining(["a.b=1", "-c-d=2"]));
  });

  test("a program that is not there or cannot be run is told apart from a command's own 127 (ruling 20)", async () => {
    const missing = ["", "no-such-program", join(directory, "no-such"), join(directory, "plain"), directory];
    for (const program of missing) {
      expect(await run({ commandArgv: [program] })).toMatchObject({ words: ["not-run"], code: 127 });
      const options = { workdir: "/", env: [{ name: "X", value: "1" }] };
      expect(await run({ commandArgv: [program], options })).toMatchObject({ words: ["not-run"], code: 127 });
    }
    for (const [commandShell, exit] of [
      ["exit 127", 127],
      ["exit 126", 126],
      ["no-such-program", 127],
    ] as const)
      expect(await run({ commandShell })).toMatchObject({ words: [{ exit }, { exit }], code: exit });
  });

  test("how it ended is told on both streams, and no more: a signal that ended it is not commented", async () => {
    const ends = [
      ["exit 3", 3, ""],
      ["kill -9 $$", 137, ""],
      ["kill -SEGV $$", 139, ""],
      ["echo out; echo err >&2", 0, "err\n"],
    ] as const;
    for (const [commandShell, exit, stderr] of ends)
      expect(await run({ commandShell })).toMatchObject({ words: [{ exit }, { exit }], code: exit, stderr });
  });

  test("a hand-over that is cut starts nothing", async () => {
    const { argv, lines } = start({ commandShell: "echo ran" }).wrapped(randomUUID());
    for (const cut of [0, 1, lines.length - 1]) {
      const stdin = Buffer.from(lines.slice(0, cut));
      const child = Bun.spawn([...shell, ...argv.slice(1)], { stdin, stdout: "pipe" });
      expect(await child.stdout.text()).toBe("");
      expect(await child.exited).toBe(125);
    }
  });

  describe("an archive", () => {
    const files = tar([
      { name: "one", data: new Uint8Array(1000).fill(1) },
      { name: "two", data: new Uint8Array(300_000).fill(2) },
    ]);

    /** Unpacks the first `bytes` of it. */
    async function unpacked(archive: Uint8Array, { bytes = archive.length, name = "" } = {}) {
      const [id, path] = [randomUUID(), join(mkdtempSync(join(directory, "archive-")), name)];
      const child = Bun.spawn([...shell, ...archiveCommand(id, path, archive.length).slice(1)], {
        stdin: archive.subarray(0, bytes),
        stdout: "pipe",
        stderr: "pipe",
      });
      const [stdout, stderr, code] = await Promise.all([child.stdout.bytes(), child.stderr.text(), child.exited]);
      const { text, words } = told(id, stdout);
      expect({ text, last: words.at(-1) }).toEqual({ text: "", last: { exit: code } });
      return { counted: words.slice(0, -1), code, stderr, names: code === 0 ? readdirSync(path).toSorted() : [] };
    }

    test("that is cut between two files counts short, though tar is content", async () => {
      const cut = await unpacked(files, { bytes: 512 + 1024 });
      expect(cut).toMatchObject({ counted: [{ arrived: 0 }], code: 0, names: ["one"] });
    });

    test.each([0, 1, 65_536, 10_000_000])(
      "is counted to its last byte, with %d bytes that tar does not read",
      async (more) => {
        const archive = Buffer.concat([files, Buffer.alloc(more, 7)]);
        const whole = { counted: [{ arrived: archive.length }], code: 0, names: ["one", "two"] };
        expect(await unpacked(archive)).toMatchObject(whole);
        const least = Math.floor((archive.length - 1) / 65_536) * 65_536;
        expect(await unpacked(archive, { bytes: archive.length - 1 })).toMatchObject({ counted: [{ arrived: least }] });
      },
    );

    test("of no bytes is tar's to judge", async () => {
      const { code } = await unpacked(new Uint8Array());
      const alone = Bun.spawn(shell[0] === "busybox" ? ["busybox", "tar", "-x"] : ["tar", "-x"], { stderr: "ignore" });
      expect(code).toBe(await alone.exited);
    });

    test("for a directory that is not there is refused in tar's words, and read to its end", async () => {
      const refused = await unpacked(Buffer.concat([files, new Uint8Array(10_000_000)]), { name: "no such" });
      expect(refused.stderr).toContain("no such");
      expect(refused.code).not.toBe(0);
      expect(refused.counted).toEqual([{ arrived: files.length + 10_000_000 }]);
    });

    test("is unpacked, and not counted, where there is no dd that can", async () => {
      const bin = mkdtempSync(join(directory, "bin-"));
      for (const tool of ["tar", "cat"]) symlinkSync(Bun.which(tool) ?? "", join(bin, tool));
      writeFileSync(join(bin, "dd"), "#!/bin/sh\nexit 1\n");
      chmodSync(join(bin, "dd"), 0o755);
      const [id, path] = [randomUUID(), mkdtempSync(join(directory, "archive-"))];
      const [program = "", ...rest] = [...shell, ...archiveCommand(id, path, files.length).slice(1)];
      const child = Bun.spawn([Bun.which(program) ?? "", ...rest], {
        stdin: files,
        stdout: "pipe",
        env: { PATH: bin },
      });
      // A busybox has a dd of its own.
      const counted = shell[0] === "busybox" ? [{ arrived: files.length }] : [];
      expect(told(id, await child.stdout.bytes()).words).toEqual([...counted, { exit: 0 }]);
      expect(readdirSync(path).toSorted()).toEqual(["one", "two"]);
    });
  });

  test("a program is found on the PATH that env gives", async () => {
    const options = { env: [{ name: "PATH", value: `${directory}:/usr/bin:/bin` }] };
    expect(await run({ commandArgv: ["show", "x"] })).toMatchObject({ words: ["not-run"] });
    expect(await run({ commandArgv: ["show", "x"], options })).toMatchObject({ stdout: "x\0", code: 0 });
  });

  test("a directory that is not there ends the command before it runs, with the shell's status", async () => {
    const { code, stdout, words } = await run({ commandArgv: ["echo", "ran"], options: { workdir: "/no/such" } });
    expect({ stdout, words }).toEqual({ stdout: "", words: [{ exit: code }, { exit: code }] });
    expect(code).not.toBe(0);
  });
});

/** What holds the wrapper of an execution, which it does by now. */
async function held(id: string) {
  const hold = Bun.spawn(holdCommand(id), { stdin: "pipe", stdout: "pipe" });
  const { value } = await hold.stdout.getReader().read();
  expect(Buffer.from(value ?? []).toString()).toBe("held\n");
  return hold;
}

/** The arguments of a process, each with its NUL; undefined when it has ended. */
function commandOf(pid: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return undefined;
  }
}

function told(id: string, data: Uint8Array): { text: string; words: Word[] } {
  const marks = new Marks(id);
  const pieces = [...marks.pieces(Buffer.from(data)), ...marks.end()];
  return {
    text: Buffer.concat(pieces.flatMap((piece) => ("data" in piece ? [piece.data] : []))).toString(),
    words: pieces.flatMap((piece) => ("word" in piece ? [piece.word] : [])),
  };
}

test("words are told from output however the stream is cut", () => {
  const id = randomUUID();
  const word = `\x1e${id}:`;
  const parts = fc.constantFrom(
    "a",
    "\n",
    "\x1e",
    word,
    word.slice(0, 9),
    `${word}exit:3\n`,
    `${word}go\r\n`,
    `${word}exit:3`,
  );
  fc.assert(
    fc.property(fc.array(parts), fc.array(fc.nat(60)), (texts, cuts) => {
      const stream = Buffer.from(texts.join(""));
      const marks = new Marks(id);
      const told = (data: Buffer) => (marks.isClear(data) ? [{ data }] : [...marks.pieces(data)]);
      const pieces = [];
      let at = 0;
      for (const length of cuts) {
        pieces.push(...told(stream.subarray(at, at + length)));
        at += length;
      }
      pieces.push(...told(stream.subarray(at)), ...marks.end());
      const text = Buffer.concat(pieces.flatMap((piece) => ("data" in piece ? [piece.data] : []))).toString();
      const said = new RegExp(`${word}(exit:3|go)\r?\n`, "g");
      expect(text).toBe(stream.toString().replaceAll(said, ""));
      expect(pieces.filter((piece) => "word" in piece).length).toBe([...stream.toString().matchAll(said)].length);
    }),
    { numRuns: 2000 },
  );
});

test("bad commands are refused in the contract's words", () => {
  const env = (name: string) => ({ commandArgv: ["x"], options: { env: [{ name, value: "" }] } });
  expect(() => start({})).toThrow("command required");
  expect(() => start({ commandShell: " \n" })).toThrow("command required");
  expect(() => start({ commandArgv: ["x"], commandShell: "y" })).toThrow(
    "command_argv and command_shell are mutually exclusive",
  );
  expect(() => start(env(" "))).toThrow("env name required");
  expect(() => start(env("1x"))).toThrow("invalid env name: a valid environment variable name must consist of");
});

test.if(process.platform === "linux")(
  "kill ends what was forked, what left its environment, and nothing else",
  async () => {
    const id = randomUUID();
    const [a, b, c, d] = [1, 2, 3, 4].map((n) => `${process.pid}0${n}`); // no other run's
    const tree = `sleep ${a} & (env -i sleep ${b} & wait) & sh -c "sleep ${c} & sleep ${d}" & echo ready; wait`;
    const { argv, lines } = start({ commandShell: tree }).wrapped(id);
    const other = Bun.spawn(["sleep", "1000"]);
    const child = Bun.spawn(argv, { stdin: Buffer.from(lines), stdout: "pipe", stderr: "ignore" });
    for await (const data of child.stdout) if (Buffer.from(data).includes("ready")) break;
    const kill = Bun.spawn(killCommand(id), { stdout: "pipe", stderr: "pipe" });
    expect({ status: await kill.exited, said: await kill.stderr.text() }).toEqual({ status: 0, said: "" });
    await child.exited;
    const left = Bun.spawnSync([
      "/bin/sh",
      "-c",
      "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null",
    ]);
    expect(left.stdout.toString()).not.toMatch(new RegExp(`sleep ${process.pid}0[1234]`));
    expect(other.exitCode).toBeNull();
    other.kill();
    await other.exited;
  },
);

test.if(process.platform === "linux")(
  "kill of an execution that has ended finds nothing, which is proof enough",
  async () => {
    expect(await Bun.spawn(killCommand(randomUUID())).exited).toBe(0);
  },
);

test.each(shells.map((shell) => [shell.join(" "), shell] as const))(
  "under %s a wrapper that is held back stays after its last word until it is released",
  async (_, shell) => {
    const id = randomUUID();
    const end = join(directory, `end-${id}`);
    const { argv } = start({ commandArgv: ["sh", "-c", `while [ ! -e ${end} ]; do sleep 0.05; done; exit 3`] }).wrapped(
      id,
    );
    const child = Bun.spawn([...shell, ...argv.slice(1)], { stdin: "pipe", stdout: "pipe", stderr: "ignore" });
    const children = () => readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").trim().split(" ");
    // Not only forked: only then it has the mark by which its wrapper is found.
    await until("the command runs", () => commandOf(children()[0] ?? "")?.startsWith("sh\x00-c\x00while") || undefined);
    const hold = await held(id);
    writeFileSync(end, "");
    await until("it waits, and nothing else", () => {
      const [only = "", ...rest] = children();
      if (only === "" || rest.length > 0 || child.exitCode !== null) return undefined;
      return commandOf(only) === "sleep\x001\0" || undefined;
    });
    hold.stdin.end();
    expect(await hold.exited).toBe(0);
    expect(await child.exited).toBe(3);
    expect(await child.stdout.text()).toContain("exit:3");
  },
);

test.each(shells.map((shell) => [shell.join(" "), shell] as const))(
  "under %s a wrapper is released also when the command is a part of the shell, which looks the same",
  async (_, shell) => {
    const id = randomUUID();
    const pipe = join(directory, `pipe-${id}`);
    expect(await Bun.spawn(["mkfifo", pipe]).exited).toBe(0);
    const { argv } = start({ commandArgv: ["head", "-c", "1", pipe] }).wrapped(id);
    const child = Bun.spawn([...shell, ...argv.slice(1)], { stdin: "pipe", stdout: "pipe", stderr: "ignore" });
    const writer = await open(pipe, "w"); // waits for the command to open it
    const hold = await held(id);
    await writer.writeFile("x");
    await writer.close();
    const output = child.stdout.getReader();
    let text = "";
    while (!text.includes("exit:0")) text += Buffer.from((await output.read()).value ?? []).toString();
    hold.stdin.end();
    expect(await hold.exited).toBe(0);
    expect(await child.exited).toBe(0);
  },
);
