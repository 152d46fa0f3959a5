import { beforeAll, expect, test } from "bun:test";
import { sharedRunner } from "../support/runner.ts";
import { until } from "../support/wait.ts";
import { program } from "./program.ts";
import { proxy } from "./proxy.ts";

const runner = sharedRunner();
let id = "";
beforeAll(async () => {
  ({ id } = await runner().run({ main: { image: "alpine:3.19", cmd: ["sleep", "600"] } }));
});
const host = () => new URL(runner().baseUrl).host;

/** A terminal of its own with a shell in it that runs the program, as a person would see it. */
function terminal(address: string, words: readonly string[], size = { cols: 80, rows: 24 }) {
  let screen = "";
  const pty = new Bun.Terminal({
    ...size,
    name: "xterm",
    data: (_, data) => {
      screen += Buffer.from(data).toString();
    },
  });
  const cli = program(address);
  // What the terminal was set to before and after is told around the program.
  const script = 'echo "before=$(stty -g)"; "$@"; echo "status=$?"; echo "after=$(stty -g)"';
  const child = Bun.spawn(["setsid", "--ctty", "--wait", "sh", "-c", script, "sh", ...cli.line(words)], {
    terminal: pty,
    env: { ...cli.env, TERM: "xterm" },
  });
  return {
    type: (text: string) => pty.write(text),
    resize: (cols: number, rows: number) => pty.resize(cols, rows),
    screen: () => screen,
    /** Resolves as soon as the text is on the screen. */
    shows: (text: string | RegExp) =>
      until(`the terminal shows ${text}`, () =>
        (typeof text === "string" ? screen.includes(text) : text.test(screen)) ? true : undefined,
      ).catch((error: unknown) => {
        throw new Error(`${error instanceof Error ? error.message : error}: ${JSON.stringify(screen)}`);
      }),
    /** The process id of the program itself. */
    async pid(): Promise<number> {
      const main = cli.line([])[1] ?? "";
      const { stdout } = Bun.spawnSync(["pgrep", "-f", "--", `^[^ ]*bun[^ ]* ${main} ${words.join(" ").slice(0, 60)}`]);
      return Number(stdout.toString().trim().split("\n").at(-1));
    },
    /** The status of the program, once it and the shell around it have ended, and whether the terminal is as it was. */
    async ended(): Promise<{ status: number; restored: boolean }> {
      await child.exited;
      await until("the last line is on the screen", () => (/after=\S+\r\n/.test(screen) ? true : undefined));
      const [, before] = /before=(\S+)/.exec(screen) ?? [];
      const [, after] = /after=(\S+)/.exec(screen) ?? [];
      return { status: Number(/status=(\d+)/.exec(screen)?.[1]), restored: before !== undefined && before === after };
    },
    [Symbol.dispose]() {
      child.kill("SIGKILL");
      pty.close();
    },
  };
}

const session = (...words: string[]) => ["exec", "-it", id, "--", ...words];

test("exec -it is a terminal there: its size, every new size, and the exit code", async () => {
  using tty = terminal(
    host(),
    session(
      "sh",
      "-c",
      // A size may come late, the first one too, and by another way than input.
      "until stty size 2>/dev/null | grep '^31 '; do sleep 0.1; done; read a; until stty size | grep '^40 '; do sleep 0.1; done; " +
        "test -t 0 -a -t 1 && echo both; exit 5",
    ),
    {
      cols: 97,
      rows: 31,
    },
  );
  await tty.shows("31 97");
  tty.resize(120, 40);
  tty.type("\r");
  await tty.shows("40 120");
  await tty.shows("both");
  expect(await tty.ended()).toEqual({ status: 5, restored: true });
});

test("Ctrl-C goes to the command and not to the session", async () => {
  using tty = terminal(host(), session("sh"));
  await tty.shows(/[#$] /);
  tty.type("sleep 300\r");
  await tty.shows("sleep 300\r\n");
  await until("the sleep runs", async () => {
    const { stdout } = await program(host()).run(["exec", id, "--", "sh", "-c", RUNNING]);
    return stdout === "1\n" ? true : undefined;
  });
  tty.type("\u0003");
  tty.type("echo code $?\r");
  await tty.shows("code 130\r\n");
});

/** How many processes of the workload are that sleep. */
const RUNNING = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep -c '^sleep 300 $'";

test("the terminal is raw while the command runs: every byte goes there, and what comes is shown as it is", async () => {
  using tty = terminal(
    host(),
    session("sh", "-c", "stty raw -echo; printf 'ready'; dd bs=1 count=5 2>/dev/null | od -An -tx1; printf 'a\\nb'"),
  );
  await tty.shows("ready");
  tty.type("\u001a\u0011\u0004\u001c\r"); // Ctrl-Z, Ctrl-Q, Ctrl-D, Ctrl-\\, Enter
  await tty.shows("1a 11 04 1c 0d");
  await tty.shows("a\nb"); // a line feed stays alone: full-screen programs move the cursor by it
  expect(await tty.ended()).toEqual({ status: 0, restored: true });
});

test.each([
  ["SIGTERM", 143],
  ["SIGHUP", 129],
  ["SIGINT", 130],
] as const)(
  "%s to the program gives the terminal back as it was, out of the alternate screen: status %i",
  async (signal, status) => {
    const wait = `printf '\\033[?1049h\\033[?25lfull screen'; sleep ${300 + status}`;
    using tty = terminal(host(), session("sh", "-c", wait));
    await tty.shows("full screen");
    process.kill(await tty.pid(), signal);
    expect(await tty.ended()).toEqual({ status, restored: true });
    expect(tty.screen()).toContain("\u001b[0m\u001b[?25h\u001b[?1049l");
    // What is told comes after the terminal was given back: lines end there as they should.
    expect(tty.screen()).toMatch(/k8s-runner: cancelled[^\r\n]*\r\n/);
  },
);

test("a lost connection gives the terminal back as it was, with 126", async () => {
  await using way = await proxy(host());
  using tty = terminal(way.address, session("sh", "-c", "printf '\\033[?1049h\\033[?2004hfull screen'; sleep 300"));
  await tty.shows("full screen");
  way.cut();
  expect(await tty.ended()).toEqual({ status: 126, restored: true });
  expect(tty.screen()).toContain("\u001b[0m\u001b[?2004l\u001b[?1049l");
  expect(tty.screen()).toMatch(/was lost: [^\r\n]*\r\n/);
});

test("a workload that is not there gives the terminal back, with 125", async () => {
  using tty = terminal(host(), ["exec", "-it", crypto.randomUUID(), "--", "sh"]);
  expect(await tty.ended()).toEqual({ status: 125, restored: true });
});

test("without a terminal of the command, Ctrl-C in ours cancels it: status 130", async () => {
  using tty = terminal(host(), ["exec", "--kill", id, "--", "sh", "-c", "echo up; sleep 300"]);
  await tty.shows("up");
  tty.type("\u0003");
  await tty.shows("cancelled and killed");
});
