import { expect, spyOn, test } from "bun:test";
import type { ExecChannel } from "../../src/kube/channel.ts";
import type { Kube } from "../../src/kube/client.ts";
import { allOf } from "../../src/source.ts";
import { execServer, type ServerEnd } from "./exec-server.ts";
import { failureOf, statusObject } from "./server.ts";

const SUCCESS = { status: "Success" };
const MEBIBYTE = 1024 * 1024;

const failed = (code: unknown) => ({
  status: "Failure",
  reason: "NonZeroExitCode",
  message: "command terminated with non-zero exit code",
  details: { causes: [{ reason: "ExitCode", message: String(code) }] },
});

interface ExecOptions {
  command?: string[];
  stdin?: boolean;
  tty?: boolean;
  stderr?: boolean;
  signal?: AbortSignal;
}

const exec = (kube: Kube, options: ExecOptions = {}): Promise<ExecChannel> =>
  kube.exec("p", { container: "c", command: ["true"], signal: new AbortController().signal, ...options });

/** Output by its streams; what came of one after the other is joined. */
async function textOf(channel: ExecChannel): Promise<string> {
  let [text, last] = ["", ""];
  for await (const { stream, data } of allOf(channel)) {
    text += `${stream === last ? "" : `;${stream}:`}${Buffer.from(data).toString()}`;
    last = stream;
  }
  return text.slice(1);
}

/** The server's end of the next channel. */
function oneEnd() {
  const { promise, resolve } = Promise.withResolvers<ServerEnd>();
  return { end: promise, serve: resolve };
}

test("the command and what is attached are in the URL, each as it is", async () => {
  await using server = await execServer((end) => end.finish(SUCCESS));
  const kube = server.kube();
  const command = ["sh", "-c", "echo $A && b=1&command=x ä\n", ""];
  await (await exec(kube, { command, stdin: true })).exitCode;
  await (await exec(kube, { stdin: true, tty: true })).exitCode;
  await (await exec(kube, { stderr: false })).exitCode;
  const [first, second, third] = server.handshakes;
  expect(first?.url.pathname).toBe("/api/v1/namespaces/work/pods/p/exec");
  expect(first?.url.searchParams.getAll("command")).toEqual(command);
  expect(first?.headers).toMatchObject({
    authorization: "Bearer token-0",
    "sec-websocket-protocol": "v5.channel.k8s.io",
  });
  const attached = (url: URL | undefined) =>
    ["container", "stdin", "stdout", "stderr", "tty"].map((name) => url?.searchParams.get(name));
  expect(attached(first?.url)).toEqual(["c", "true", "true", "true", null]);
  expect(attached(second?.url)).toEqual(["c", "true", "true", null, "true"]);
  expect(attached(third?.url)).toEqual(["c", null, "true", null, null]);
});

test("output arrives in order and whole, and the exit code after it", async () => {
  await using server = await execServer(async (end) => {
    await end.send(1, "");
    await end.send(1, "a");
    await end.send(2, "b");
    await end.send(1, "c");
    await end.status(failed(42));
    await end.send(1, "after the status");
    await end.finish(SUCCESS); // only the first status counts
  });
  using channel = await exec(server.kube());
  expect(await textOf(channel)).toBe("stdout:a;stderr:b;stdout:cafter the status");
  expect(await channel.exitCode).toBe(42);
});

test("what comes in a burst is gathered, and what comes alone is not held back", async () => {
  const { end, serve } = oneEnd();
  await using server = await execServer(serve);
  using channel = await exec(server.kube());
  const far = await end;
  const pieces = allOf(channel)[Symbol.asyncIterator]();
  let [bytes, largest] = [0, 0];
  // How a burst is cut by the network is not ours to say: that one of them is gathered will do.
  for (let burst = 0; burst < 1_000 && largest <= 1024; burst++) {
    for (let frame = 0; frame < 4; frame++) void far.send(1, new Uint8Array(1024));
    for (; bytes < (burst + 1) * 4096; ) {
      const { value } = await pieces.next();
      bytes += value.data.length;
      largest = Math.max(largest, value.data.length);
    }
  }
  expect(largest).toBeGreaterThan(1024);
  await far.finish(SUCCESS);
  expect((await pieces.next()).done).toBe(true);
});

test("the status frame decides the outcome", async () => {
  const missing = statusObject(500, "InternalError", ' exec: "x": executable file not found in $PATH ');
  const statuses = [
    SUCCESS,
    failed(1),
    failed(255),
    missing,
    failed(0),
    failed(256),
    failed("x"),
    {},
    { status: "Else" },
  ];
  let next = 0;
  await using server = await execServer((end) => end.finish(statuses[next++] ?? {}));
  const kube = server.kube();
  const outcomes: unknown[] = [];
  for (const _ of statuses) {
    using channel = await exec(kube);
    await textOf(channel);
    outcomes.push(await channel.exitCode.catch((error) => [error.status, error.reason, error.message]));
  }
  expect(outcomes).toEqual([
    0,
    1,
    255,
    [500, "InternalError", 'exec: "x": executable file not found in $PATH'],
    ...Array(3).fill([500, "", "the exec status names no exit code"]),
    ...Array(2).fill([500, "", "the exec status could not be read"]),
  ]);
});

test("a connection that ends without a status is lost, however it ends, after all output", async () => {
  const endings: ((end: ServerEnd) => void)[] = [
    ({ socket }) => socket.end(),
    ({ socket }) => socket.resetAndDestroy(),
  ];
  for (const ending of endings) {
    const { end, serve } = oneEnd();
    await using server = await execServer(serve);
    using channel = await exec(server.kube());
    const output = allOf(channel)[Symbol.asyncIterator]();
    const there = await end;
    await there.send(1, "a");
    expect((await output.next()).value?.data.length).toBe(1);
    ending(there);
    expect((await output.next()).done).toBe(true);
    expect(await failureOf(channel.exitCode)).toMatchObject({ name: "KubeError", status: 0, reason: "" });
    expect(await failureOf(channel.write(new Uint8Array(1)))).toMatchObject({ status: 0 });
  }
});

test("stdin, its end and the size of the terminal travel on their channels", async () => {
  const { end, serve } = oneEnd();
  await using server = await execServer(serve);
  using channel = await exec(server.kube(), { stdin: true, tty: true });
  const there = await end;
  channel.resize(70_000, 24);
  const bytes = new Uint8Array(100_000).map((_, index) => index % 251);
  await channel.write(bytes);
  channel.end();
  channel.end();
  await there.until(() => there.received.some(([first]) => first === 255));
  expect(Buffer.from(there.received[0] ?? []).toString()).toBe('\u0004{"Width":4464,"Height":24}');
  expect(there.stdin.equals(bytes)).toBe(true);
  expect(Math.max(...there.received.map(({ length }) => length))).toBeLessThanOrEqual(32 * 1024 + 1);
  expect(there.received.filter(([first]) => first === 255)).toEqual([Buffer.of(255, 0)]);
  expect(await failureOf(channel.write(bytes))).toMatchObject({ status: 0, message: "stdin is closed" });
});

test("a writer waits while the server does not read, and loses nothing", async () => {
  const { end, serve } = oneEnd();
  await using server = await execServer(serve);
  using channel = await exec(server.kube(), { stdin: true });
  const there = await end;
  there.socket.pause();
  const total = 32 * MEBIBYTE;
  let written = 0;
  const writing = (async () => {
    for (; written < total; written += MEBIBYTE) await channel.write(new Uint8Array(MEBIBYTE).fill(written / MEBIBYTE));
  })();
  await standsStill(() => written);
  expect(written).toBeLessThan(total / 2);
  there.socket.resume();
  await writing;
  await there.until(() => there.received.length === total / (32 * 1024));
  expect(there.stdin.every((byte, index) => byte === Math.floor(index / MEBIBYTE))).toBe(true);
});

test("a reader that takes nothing stops the sender, and then gets everything", async () => {
  const total = 64 * MEBIBYTE;
  const chunk = new Uint8Array(64 * 1024).fill(120);
  let sent = 0;
  await using server = await execServer(async (end) => {
    for (; sent < total; sent += chunk.length) await end.send(1, chunk);
    await end.finish(SUCCESS);
  });
  using channel = await exec(server.kube());
  await standsStill(() => sent);
  expect(sent).toBeLessThan(total / 2);
  let read = 0;
  for await (const { data } of allOf(channel)) read += data.length;
  expect(read).toBe(total);
  expect(await channel.exitCode).toBe(0);
});

test("pings are sent, and a server that answers none is lost", async () => {
  const { end, serve } = oneEnd();
  await using server = await execServer(serve);
  using channel = await exec(server.kube({ timing: { pingMs: 5, silenceMs: 60 } }));
  const there = await end;
  await there.until(() => there.pings >= 20); // longer than the silence that is borne
  there.answering = false;
  const lost = "exec connection lost: no answer for 60 ms";
  expect(await failureOf(channel.exitCode)).toMatchObject({ status: 0, message: lost });
  expect(await textOf(channel)).toBe("");
  await there.closed;
});

test("every beat without output is a ping, answered or not", async () => {
  const { end, serve } = oneEnd();
  await using server = await execServer(serve);
  using beats = spyOn(globalThis, "setInterval");
  using channel = await exec(server.kube({ timing: { pingMs: 3_600_000 } }));
  const there = await end;
  const beat = () => {
    for (const [look, ms] of beats.mock.calls) if (ms === 3_600_000) look();
  };
  const output = allOf(channel)[Symbol.asyncIterator]();
  const said = async (text: string) => {
    await there.send(1, text);
    expect((await output.next()).value).toMatchObject({ data: Buffer.from(text) });
  };
  beat();
  await there.until(() => there.pings === 1);
  beat(); // its answer is no output
  await there.until(() => there.pings === 2);
  await said("output");
  beat();
  beat();
  channel.resize(1, 1); // comes behind the pings
  await there.until(() => there.received.length === 1);
  expect(there.pings).toBe(3);
});

test("a slow reader is not taken for a dead server, and nothing is sent to one that may have closed already", async () => {
  const { end, serve } = oneEnd();
  await using server = await execServer(serve);
  using channel = await exec(server.kube({ timing: { pingMs: 5, silenceMs: 60 } }));
  const there = await end;
  there.answering = false; // no pong would be seen anyway while the client does not listen
  void there.send(1, new Uint8Array(MEBIBYTE));
  // A quiet channel beside it tells the time: longer than the silence that is borne.
  const quiet = oneEnd();
  await using other = await execServer(quiet.serve);
  using _ = await exec(other.kube({ timing: { pingMs: 5, silenceMs: 60_000 } }));
  const clock = await quiet.end;
  await clock.until(() => clock.pings >= 10);
  const pings = there.pings; // before the client was full
  await clock.until(() => clock.pings >= 35);
  expect(there.pings).toBe(pings);
  void there.finish(SUCCESS);
  let read = 0;
  for await (const { data } of allOf(channel)) read += data.length;
  expect([read, await channel.exitCode]).toEqual([MEBIBYTE, 0]);
});

test("a process that does not read much stdin silences the server; the connection lives while the API is there", async () => {
  const { end, serve } = oneEnd();
  await using server = await execServer(serve);
  using channel = await exec(server.kube({ timing: { pingMs: 5, silenceMs: 20 } }), { stdin: true });
  const there = await end;
  there.answering = false;
  await channel.write(new Uint8Array(100_000));
  const asked = () => server.plain.filter(({ pathname }) => pathname === "/version").length;
  await there.until(() => asked() >= 2);
  await there.finish(SUCCESS);
  await textOf(channel);
  expect(await channel.exitCode).toBe(0);
});

test("close drops the connection, also of a paused channel", async () => {
  const { end, serve } = oneEnd();
  await using server = await execServer(serve);
  const channel = await exec(server.kube());
  const there = await end;
  void there.send(1, new Uint8Array(8 * MEBIBYTE));
  await allOf(channel)[Symbol.asyncIterator]().next();
  channel.close();
  await there.closed;
  expect(await textOf(channel)).toBe("");
  expect(await failureOf(channel.exitCode)).toMatchObject({
    status: 0,
    message: "the exec connection was closed by us",
  });
});

test("the signal ends a channel, and a handshake, with its reason", async () => {
  const { end, serve } = oneEnd();
  await using server = await execServer(serve);
  const controller = new AbortController();
  const channel = await exec(server.kube(), { signal: controller.signal, stdin: true });
  const reason = new Error("enough");
  controller.abort(reason);
  expect(await textOf(channel)).toBe("");
  expect(await failureOf(channel.exitCode)).toBe(reason);
  await (await end).closed;
  expect(await failureOf(exec(server.kube(), { signal: controller.signal }))).toBe(reason);
  expect(server.handshakes.length).toBe(1);
});

test("a refused handshake tells the Status, learned without the command", async () => {
  const refusals = new Map([
    ["gone", { status: 404, body: statusObject(404, "NotFound", 'pods "p" not found') }],
    ["mine", { status: 403, body: statusObject(403, "Forbidden", "no right") }],
    ["odd", { status: 500, body: { no: "status" } }],
  ]);
  let current = "";
  await using server = await execServer(
    () => undefined,
    () => refusals.get(current) ?? null,
  );
  const outcomes: unknown[] = [];
  for (current of refusals.keys()) {
    const error = await failureOf(exec(server.kube(), { command: ["secret"] }));
    outcomes.push(
      error instanceof Error && "status" in error && "reason" in error && [error.status, error.reason, error.message],
    );
  }
  expect(outcomes).toEqual([
    [404, "NotFound", 'pods "p" not found'],
    [403, "Forbidden", "no right"],
    [500, "", "the Kubernetes API answered HTTP 500 without a Status"],
  ]);
  expect(server.handshakes.length).toBe(3);
  expect(server.plain.every(({ search }) => !search.includes("command"))).toBe(true);
});

test("a refusal that cannot be explained names the HTTP status, and never the command", async () => {
  await using server = await execServer(
    () => undefined,
    (request) => (request.headers.upgrade === undefined ? null : { status: 500, body: {} }),
  );
  const error = await failureOf(exec(server.kube(), { command: ["secret"] }));
  expect(error).toMatchObject({ status: 500, message: "the Kubernetes API refused exec with HTTP 500" });
  expect(Bun.inspect(error)).not.toContain("secret");
});

test("after a 401 the handshake is made once more with new credentials", async () => {
  await using server = await execServer(
    (end) => end.finish(SUCCESS),
    ({ headers }) =>
      headers.authorization === "Bearer token-1"
        ? null
        : { status: 401, body: statusObject(401, "Unauthorized", "Unauthorized") },
  );
  using channel = await exec(server.kube());
  expect(await channel.exitCode).toBe(0);
  expect(server.handshakes.length).toBe(2);
});

test("a handshake whose connection is lost is not made again: the command may have started", async () => {
  await using server = await execServer(
    () => undefined,
    (request) => {
      request.socket.resetAndDestroy();
      return { status: 0, body: {} };
    },
  );
  const error = await failureOf(exec(server.kube(), { command: ["secret"] }));
  expect(error).toMatchObject({ name: "KubeError", status: 0, unreachable: true });
  expect(Bun.inspect(error)).not.toContain("secret");
  expect([server.handshakes.length, server.plain.length]).toEqual([1, 0]);
});

test("a server that does not speak the protocol is refused", async () => {
  await using server = await execServer(() => undefined, undefined, "v4.channel.k8s.io");
  expect(await failureOf(exec(server.kube()))).toMatchObject({ name: "KubeError" });
});

/** Resolves when the value did not change for `ms`. */
async function standsStill(value: () => number, ms = 100): Promise<void> {
  for (let before = Number.NaN; before !== value(); ) {
    before = value();
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
}
