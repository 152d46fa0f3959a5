import { describe, expect, test } from "bun:test";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Link } from "../support/link.ts";
import { logChunks, logText } from "../support/logs.ts";
import { freshId, idling, script, sharedRunner, startRunner } from "../support/runner.ts";
import { refusal, untilInspected, untilPhase } from "../support/wait.ts";

const runner = sharedRunner();
const text = (workloadId: string, more: object = {}) =>
  logText(runner().client, { workloadId, containerName: "main", ...more });

test("what a container wrote to both its outputs is read to a regular end", async () => {
  const { id } = await runner().start({ main: script("echo out; echo err >&2; printf unended") });
  await untilPhase(runner().client, id, "succeeded");
  const log = await text(id); // the two outputs are joined in the order of arrival at the node
  expect([log.length, log.includes("out\n"), log.includes("err\n"), log.includes("unended")]).toEqual([
    15,
    true,
    true,
    true,
  ]);
});

test("follow ends OK when the container ends, with all it wrote, also when it had ended before", async () => {
  const { id } = await runner().start({ main: script("echo one; sleep 1; echo two; printf three; exit 3") });
  expect(await text(id, { follow: true })).toBe("one\ntwo\nthree");
  await untilPhase(runner().client, id, "failed");
  expect(await text(id, { follow: true })).toBe("one\ntwo\nthree");
});

describe("a part of a log", () => {
  let shared: Promise<string> | undefined;
  const ended = async () => {
    shared ??= (async () => {
      const { id } = await runner().start({ main: script("for i in 1 2 3 4; do echo line $i; done") });
      await untilPhase(runner().client, id, "succeeded");
      return id;
    })();
    return await shared;
  };

  test("is its last lines, by tail_lines or the older tail, followed or not", async () => {
    for (const tail of [{ tailLines: 2 }, { tail: 2 }, { tailLines: 2, tail: 1 }, { tailLines: 2, follow: true }])
      expect(await text(await ended(), tail)).toBe("line 3\nline 4\n");
  });

  test("is what was written since a time, by since_time or the older since", async () => {
    const id = await ended();
    const hour = 3_600_000;
    for (const since of [
      { sinceTime: timestampFromMs(Date.now() + hour) },
      { since: BigInt(Math.floor((Date.now() + hour) / 1000)) },
    ])
      expect(await text(id, since)).toBe("");
    for (const since of [{ sinceTime: timestampFromMs(Date.now() - hour) }, { since: 1n }, { since: -5n }])
      expect(await text(id, since)).toBe("line 1\nline 2\nline 3\nline 4\n");
  });

  test("has a timestamp before each line when that is asked for, followed or not", async () => {
    const stamped = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line \d\n){4}$/;
    expect(await text(await ended(), { timestamps: true })).toMatch(stamped);
    expect(await text(await ended(), { timestamps: true, follow: true })).toMatch(stamped);
  });
});

test("sidecars and init containers have logs of their own", async () => {
  const { id } = await runner().run({
    sidecars: [script("echo from the sidecar; sleep 300", { name: "side" })],
    initContainers: [script("echo from init", { name: "setup" })],
  });
  const first = async (containerName: string) => {
    for await (const data of logChunks(runner().client, { workloadId: id, containerName, follow: true }))
      return Buffer.from(data).toString();
    return undefined;
  };
  expect(await first("side")).toBe("from the sidecar\n");
  expect(await first("setup")).toBe("from init\n");
});

test("with follow a container that has not started is waited for", async () => {
  const { id } = await runner().start({
    main: script("echo at last"),
    initContainers: [script("sleep 1", { name: "setup" })],
  });
  expect(await text(id, { follow: true })).toBe("at last\n");
});

test("a container that never started is NOT_FOUND with follow", async () => {
  const { id } = await runner().start({
    main: script("echo never"),
    initContainers: [script("exit 1", { name: "setup" })],
  });
  const following = text(id, { follow: true });
  expect(await refusal(following)).toEqual({ code: "NotFound", message: "container_not_started" });
});

test("without follow a container that waits is INTERNAL in the words of Kubernetes", async () => {
  const { id } = await runner().start({
    main: script("echo never"),
    initContainers: [script("sleep 300", { name: "setup" })],
  });
  await untilInspected(runner().client, id, "initializes", ({ containers }) =>
    containers.some(({ name, reason }) => name === "main" && reason === "PodInitializing"),
  );
  const { code, message } = await refusal(text(id));
  expect({ code, message }).toEqual({
    code: "Internal",
    message: `kubernetes request failed: container "main" in pod "workload-${id}" is waiting to start: PodInitializing`,
  });
});

describe("refused are", () => {
  test("blank arguments, the id before the container, and before anything is looked up", async () => {
    const cases = [
      [{ workloadId: " ", containerName: "" }, "workload_id_required"],
      [{ workloadId: "missing-workload", containerName: " " }, "container_name_required"],
    ] as const;
    for (const [request, message] of cases)
      expect(await refusal(logText(runner().client, request))).toEqual({ code: "InvalidArgument", message });
  });

  test("workloads and containers that are not there", async () => {
    const id = freshId();
    expect(await refusal(text(id))).toEqual({
      code: "NotFound",
      message: `resource not found: pods "workload-${id}" not found`,
    });
    const { id: known } = await runner().start();
    const unknown = logText(runner().client, { workloadId: known, containerName: "nobody" });
    expect(await refusal(unknown)).toEqual({ code: "NotFound", message: "container_not_found" });
  });
});

test("a Pod that is removed while its log is followed ends it UNAVAILABLE", async () => {
  const { id } = await runner().run({ main: script("echo up; sleep 300") });
  const chunks = logChunks(runner().client, { workloadId: id, containerName: "main", follow: true });
  expect(Buffer.from((await chunks.next()).value ?? []).toString()).toBe("up\n");
  await runner().client.removeWorkload({ workloadId: id, force: true });
  expect(await refusal(chunks.next())).toEqual({ code: "Unavailable", message: "pod_deleted" });
});

test("a followed log goes on over lost connections to the API server, without a gap or a repeat (ruling 17)", async () => {
  const link = await Link.to(runner().backend.access.server);
  await using _ = link;
  const { id } = await runner().start({
    main: script("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.01; done"),
  });
  await using behind = await startRunner({ backend: runner().backend, access: ({ access }) => link.access(access) });
  let log = "";
  let cuts = 0;
  for await (const data of logChunks(behind.client, { workloadId: id, containerName: "main", follow: true })) {
    log += Buffer.from(data).toString();
    if (log.length > (cuts + 1) * 600 && cuts < 3) {
      cuts++;
      link.cut();
    }
  }
  expect(cuts).toBe(3);
  expect(log).toBe(Array.from({ length: 300 }, (_, index) => `line ${index}\n`).join(""));
});

test("20,000 lines arrive exactly", async () => {
  const { id } = await runner().start({
    main: script("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; sleep 300"),
  });
  let log = "";
  for await (const data of logChunks(runner().client, { workloadId: id, containerName: "main", follow: true })) {
    log += Buffer.from(data).toString();
    if (log.endsWith("\n19999\n")) break;
  }
  expect(log).toBe(Array.from({ length: 20_000 }, (_, index) => `${index}\n`).join(""));
});

test("a caller that leaves frees the stream, and others go on", async () => {
  const { id } = await runner().run({ main: idling() });
  const abort = new AbortController();
  const quiet = text(id).then(() =>
    logChunks(
      runner().client,
      { workloadId: id, containerName: "main", follow: true },
      { signal: abort.signal },
    ).next(),
  );
  abort.abort();
  expect((await refusal(quiet)).code).toBe("Canceled");
  expect(await text(id)).toBe("");
});
