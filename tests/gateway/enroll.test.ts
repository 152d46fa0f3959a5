import { expect, test } from "bun:test";
import { Code } from "@connectrpc/connect";
import { NO_CATALOG } from "../../src/catalog.ts";
import { catalogReportOf, reportCatalog } from "../../src/gateway/catalog.ts";
import { Gateway } from "../../src/gateway/client.ts";
import { enroll, parsedIdentity } from "../../src/gateway/enroll.ts";
import { createLog } from "../../src/log.ts";
import { Secret } from "../../src/secret.ts";
import { sleep } from "../../src/time.ts";
import { tlsMaterial } from "../support/cluster/tls.ts";
import { FakeGateway, IDENTITY, KEY_LINE, refused, type Script, SERVICE, TOKEN } from "../support/gateway.ts";

const TEXT = "enroll runner via gateway";

/** A fake gateway, a real client of it, and a log; waits between attempts are a millisecond. */
async function started(script: Script = {}, token = TOKEN) {
  const gateway = await FakeGateway.start(script);
  const client = new Gateway({ address: gateway.address, tls: false, token: new Secret(token) });
  const lines: string[] = [];
  const log = createLog({ level: "debug", stream: { write: (line) => void lines.push(line) } });
  const stop = new AbortController();
  const options = {
    timeoutMs: 20_000,
    wait: (_ms: number, signal?: AbortSignal) => sleep(1, signal),
    signal: stop.signal,
    log,
  };
  return {
    gateway,
    client,
    options,
    stop: (reason?: unknown) => stop.abort(reason),
    text: () => lines.join(""),
    lines: (msg: string) => lines.map((line) => JSON.parse(line)).filter((line) => line.msg === msg),
    enroll: (more: object = {}) => enroll(client, { ...options, ...more }),
    [Symbol.asyncDispose]: async () => {
      client.close();
      await gateway[Symbol.asyncDispose]();
    },
  };
}

/** Throws this code `times` times, then lets the gateway answer. */
const failing = (code: Code, times: number, message = "not now") => {
  let left = times;
  return () => {
    if (left-- > 0) throw refused(message, code);
  };
};

const failureOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => "answered",
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );

test("table 3.2, Call: unary EnrollRunner with the token in the request and no authorization of any kind", async () => {
  await using link = await started();
  await link.enroll();
  expect(link.gateway.enrollments.map(({ serviceToken }) => serviceToken)).toEqual([TOKEN]);
  const names = [...(link.gateway.headers[0]?.keys() ?? [])].filter(
    (name) => !/^(:|content-|te$|user-agent|grpc-)/.test(name),
  );
  expect(names.filter((name) => !["host", "date", "accept-encoding"].includes(name))).toEqual([]);
  expect(link.gateway.headers[0]?.get("content-type")).toStartWith("application/grpc");
});

test("table 3.2, Reply used: identity_json and service_name; identity_id is ignored", async () => {
  await using link = await started({
    enroll: () => ({ identityJson: Buffer.from("{}"), serviceName: "runner-x", identityId: "ignored" }),
  });
  const { identity, service } = await link.enroll();
  expect([identity.reveal(), service]).toEqual(["{}", "runner-x"]);
});

test("table 3.2, Reply used: a reply without a service is no enrollment", async () => {
  await using link = await started({ enroll: () => ({ identityJson: Buffer.from("{}") }) });
  expect(await failureOf(link.enroll())).toBe(`${TEXT}: the reply names no service`);
});

test("table 3.2, Overall limit: counted over all attempts, and each call is told what is left of it", async () => {
  const left: number[] = [];
  await using link = await started({
    enroll: ({ context }) => {
      left.push(context.timeoutMs() ?? Number.NaN);
      throw refused("not now", Code.Unavailable);
    },
  });
  expect(
    await failureOf(link.enroll({ timeoutMs: 300, wait: (_ms: number, signal?: AbortSignal) => sleep(50, signal) })),
  ).toBe(`${TEXT}: context deadline exceeded`);
  expect(left.length).toBeGreaterThan(1);
  expect(left[0]).toBeLessThanOrEqual(300);
  expect(left.every((ms, index) => index === 0 || ms < (left[index - 1] ?? 0))).toBe(true);
});

test("table 3.2, Overall limit: a gateway that never answers is left at its end", async () => {
  await using link = await started({ enroll: () => new Promise(() => {}) });
  expect(await failureOf(link.enroll({ timeoutMs: 100 }))).toBe(`${TEXT}: context deadline exceeded`);
});

test.each([
  ["UNAVAILABLE", Code.Unavailable],
  ["UNKNOWN", Code.Unknown],
])("table 3.2, Retried: %s, and each retry is logged", async (_name, code) => {
  const fail = failing(code, 3);
  await using link = await started({
    enroll: () => {
      fail();
      return { identityJson: Buffer.from("{}"), serviceName: SERVICE };
    },
  });
  expect((await link.enroll()).service).toBe(SERVICE);
  expect(link.gateway.enrollments.length).toBe(4);
  expect(link.lines("operation failed, retrying")).toMatchObject(
    [1, 2, 3].map((attempt) => ({
      level: "warn",
      operation: TEXT,
      attempt,
      error: expect.stringContaining("not now"),
    })),
  );
});

test("table 3.2, Retried: a gateway that is not there yet, and one that goes in the middle of a call", async () => {
  await using link = await started();
  await link.gateway.down();
  const enrolling = link.enroll();
  while (link.lines("operation failed, retrying").length < 3) await new Promise(setImmediate);
  await link.gateway.up();
  expect((await enrolling).service).toBe(SERVICE);
  link.gateway.script.enroll = async ({ count }) => {
    if (count === 2) await link.gateway.down().then(() => link.gateway.up());
    return { identityJson: Buffer.from("{}"), serviceName: SERVICE };
  };
  expect((await link.enroll()).service).toBe(SERVICE);
});

const FINAL = Object.entries(Code).flatMap(([name, code]) =>
  typeof code === "number" && ![Code.Unavailable, Code.Unknown, Code.DeadlineExceeded].includes(code)
    ? [[name, code] as const]
    : [],
);

test.each(FINAL)("table 3.2, Retried: %s ends it at once", async (_name, code) => {
  await using link = await started({
    enroll: () => {
      throw refused("no such token", code);
    },
  });
  expect(await failureOf(link.enroll())).toMatch(/^enroll runner via gateway: \[[a-z_]+\] no such token$/);
  expect(link.gateway.enrollments.length).toBe(1);
});

test("table 3.2, Waits: 1 s, 2 s, 4 s, 8 s, then 15 s each", async () => {
  await using link = await started({
    enroll: ({ count }) => {
      if (count <= 7) throw refused("not now", Code.Unavailable);
      return { identityJson: Buffer.from("{}"), serviceName: SERVICE };
    },
  });
  const waits: number[] = [];
  await link.enroll({ wait: async (ms: number) => void waits.push(ms) });
  expect(waits).toEqual([1, 2, 4, 8, 15, 15, 15].map((seconds) => seconds * 1000));
  expect(link.lines("operation failed, retrying").map(({ backoff }) => backoff)).toEqual([1, 2, 4, 8, 15, 15, 15]);
});

test("table 3.2, When the limit or a signal comes: context canceled, in a call and in a wait", async () => {
  await using calling = await started({ enroll: () => new Promise(() => calling.stop(new Error("told to stop"))) });
  expect(await failureOf(calling.enroll())).toBe(`${TEXT}: context canceled`);
  await using waiting = await started({
    enroll: () => {
      setImmediate(() => waiting.stop());
      throw refused("not now", Code.Unavailable);
    },
  });
  expect(await failureOf(waiting.enroll({ wait: sleep }))).toBe(`${TEXT}: context canceled`);
});

test("table 3.2, Token: it enrolls anew with the same token at every start", async () => {
  await using link = await started();
  await link.enroll();
  await link.enroll();
  expect(link.gateway.enrollments.map(({ serviceToken }) => serviceToken)).toEqual([TOKEN, TOKEN]);
});

test("table 3.2, Storage: token and identity are in no log line and no error, even when the gateway quotes them", async () => {
  await using link = await started({
    enroll: ({ count, request }) => {
      if (count === 1) throw refused(`try later, ${request.serviceToken}`, Code.Unavailable);
      throw refused(`bad token ${request.serviceToken}\nreally\u001b[31m`, Code.Unauthenticated);
    },
  });
  const failure = await failureOf(link.enroll());
  expect(failure).toBe(`${TEXT}: [unauthenticated] bad token [secret] really [31m`);
  expect(failure + link.text()).not.toContain(TOKEN);
  for (const text of [
    `{"ztAPI": ${KEY_LINE}`,
    `"${KEY_LINE}"`,
    `{"ztAPI":"x","id":{"cert":"${KEY_LINE}"}}`,
    `{"id":{}}`,
  ])
    expect(() => parsedIdentity(new Secret(text))).toThrow(/^parse ziti identity: (?!.*canary)/);
});

test("the identity goes on in one line, and the lines of its key are known as secret", () => {
  const { json, secrets } = parsedIdentity(new Secret(JSON.stringify(IDENTITY, undefined, 2)));
  expect(json.reveal()).toBe(JSON.stringify(IDENTITY));
  expect(secrets.map((secret) => secret.reveal())).toEqual([KEY_LINE]);
});

test("GATEWAY_TLS: the same over TLS, and never to a gateway whose certificate does not hold", async () => {
  const { certPem, keyPem, caPem } = tlsMaterial(Date.now());
  await using gateway = await FakeGateway.start({}, { cert: certPem, key: keyPem });
  const limits = { signal: new AbortController().signal, timeoutMs: 10_000 };
  const options = { address: gateway.address, tls: true, token: new Secret(TOKEN) };
  const trusting = new Gateway({ ...options, ca: caPem });
  expect((await trusting.enroll(limits)).serviceName).toBe(SERVICE);
  trusting.close();
  const wary = new Gateway(options);
  expect(await failureOf(wary.enroll(limits))).toStartWith("[unavailable] ");
  wary.close();
  expect(gateway.enrollments.length).toBe(1);
});

const catalog = {
  flavors: [
    {
      name: "b",
      default: true,
      deprecated: false,
      resources: { requestsCpu: "1", requestsMemory: "1Gi", limitsCpu: "2", limitsMemory: "2Gi" },
    },
    {
      name: "a",
      default: false,
      deprecated: true,
      resources: { requestsCpu: "2", requestsMemory: "2Gi", limitsCpu: "4", limitsMemory: "4Gi" },
    },
  ],
  storageClasses: [{ name: "fast", storageClassName: "canary-class", default: true, deprecated: false }],
  capabilities: ["gpu", " docker", "", "gpu"],
};

test("table 4.3, runner_id and service_token: the id stays empty, the token tells who reports", async () => {
  await using link = await started();
  await reportCatalog(link.client, catalogReportOf(NO_CATALOG, undefined), link.options);
  expect(link.gateway.catalogs).toMatchObject([{ runnerId: "", serviceToken: TOKEN }]);
});

test("table 4.3, flavors and storage_classes: as declared, in order, without the Kubernetes mapping", async () => {
  await using link = await started();
  await reportCatalog(link.client, catalogReportOf(catalog, undefined), link.options);
  const [request] = link.gateway.catalogs;
  expect(request?.flavors).toMatchObject(catalog.flavors);
  expect(request?.storageClasses).toMatchObject([{ name: "fast", default: true, deprecated: false }]);
  expect(Bun.inspect(request)).not.toContain("canary-class");
  expect(link.lines("catalog reported")).toMatchObject([
    { level: "info", flavors: 2, storageClasses: 1, capabilities: 2 },
  ]);
});

test("table 4.3, capabilities: trimmed, blank and double ones dropped, docker when it can be done, sorted", () => {
  const capabilities = (names: string[], docker?: "rootless") =>
    catalogReportOf({ ...NO_CATALOG, capabilities: names }, docker).capabilities;
  expect(capabilities(["gpu", " docker", "", "gpu"])).toEqual(["docker", "gpu"]);
  expect(capabilities(["gpu", "a"], "rootless")).toEqual(["a", "docker", "gpu"]);
  expect(capabilities([], "rootless")).toEqual(["docker"]);
  expect(capabilities([])).toEqual([]);
});

test("section 4.3: an empty catalog is reported too, with the retries of enrollment", async () => {
  const fail = failing(Code.Unknown, 2);
  await using link = await started({ catalog: () => fail() });
  await reportCatalog(link.client, catalogReportOf(NO_CATALOG, undefined), link.options);
  expect(link.gateway.catalogs.length).toBe(3);
  expect(link.lines("operation failed, retrying")).toMatchObject([{ operation: "report catalog", attempt: 1 }, {}]);
});

test.each([
  ["UNIMPLEMENTED of an older platform", Code.Unimplemented],
  ["a refusal", Code.InvalidArgument],
])("section 4.3: %s is logged and the runner serves without", async (_name, code) => {
  await using link = await started({ catalog: failing(code, 9, `canary ${TOKEN}`) });
  await reportCatalog(link.client, catalogReportOf(catalog, undefined), link.options);
  expect(link.gateway.catalogs.length).toBe(1);
  expect(link.lines("catalog report failed; serving without it")).toMatchObject([{ level: "error" }]);
  expect(link.text()).not.toContain(TOKEN);
});

test("section 4.3: so is a gateway that does not answer in time", async () => {
  await using link = await started({ catalog: () => new Promise(() => {}) });
  await reportCatalog(link.client, catalogReportOf(catalog, undefined), { ...link.options, timeoutMs: 50 });
  expect(link.lines("catalog report failed; serving without it")).toMatchObject([
    { error: "context deadline exceeded" },
  ]);
});
