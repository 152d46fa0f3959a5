import { afterAll, describe, expect, test } from "bun:test";
import { textPage } from "../../src/http.ts";
import { createLog } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import { http2Session, rawHttp2, readAll, tcp } from "./harness.ts";

const lines: string[] = [];
const started = Promise.withResolvers<void>();
const server = await startServer({
  address: "127.0.0.1:0",
  maxMessageBytes: 1000,
  log: createLog({ level: "debug", stream: { write: (line) => lines.push(line) } }),
  routes: () => {},
  pages: {
    "/up": () => textPage(200, "süß"),
    "/down": async () => textPage(503, "not ready"),
    "/broken": () => {
      throw new Error("secret cause");
    },
    "/slow": async () => {
      started.resolve();
      await slow.promise;
      return textPage(200, "late");
    },
  },
});
const slow = Promise.withResolvers<void>();
const { port } = server.address;
const baseUrl = `http://127.0.0.1:${port}`;
afterAll(() => server.close(0));

interface Answer {
  readonly status: number;
  readonly type: string | null | undefined;
  readonly length: string | null | undefined;
  readonly allow: string | null | undefined;
  readonly body: string;
}

const clients: [name: string, (method: string, path: string) => Promise<Answer>][] = [
  [
    "HTTP/1.1",
    async (method, path) => {
      const { status, headers, ...answer } = await raw(method, path);
      return { status, ...picked((name) => headers.get(name)), body: answer.body };
    },
  ],
  [
    "HTTP/2",
    async (method, path) => {
      using session = await http2Session(baseUrl);
      const { headers, body } = await rawHttp2(session, { ":method": method, ":path": path }, new Uint8Array());
      return { status: Number(headers[":status"]), ...picked((name) => headers[name]), body: body.toString() };
    },
  ],
];

const picked = (header: (name: string) => string | null | undefined) => ({
  type: header("content-type"),
  length: header("content-length"),
  allow: header("allow"),
});

/** One request of a connection of its own, so that a body after HEAD would be seen. */
async function raw(method: string, path: string): Promise<{ status: number; headers: Headers; body: string }> {
  using socket = await tcp(port);
  socket.write(`${method} ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  const [head = "", ...rest] = Buffer.from(await readAll(socket), "latin1")
    .toString()
    .split("\r\n\r\n");
  const [status = "", ...fields] = head.split("\r\n");
  const headers = new Headers(
    fields.map((field): [string, string] => [field.split(": ")[0] ?? "", field.split(": ")[1] ?? ""]),
  );
  return { status: Number(status.split(" ")[1]), headers, body: rest.join("\r\n\r\n") };
}

describe.each(clients)("a page over %s", (_name, ask) => {
  const type = "text/plain; charset=utf-8";

  test("is answered with its status, type and length", async () => {
    expect(await ask("GET", "/up")).toMatchObject({ status: 200, type, length: "6", body: "süß\n" });
    expect(await ask("GET", "/down")).toMatchObject({ status: 503, type, body: "not ready\n" });
    expect(await ask("GET", "/up?verbose=1")).toMatchObject({ status: 200, body: "süß\n" });
  });

  test("has a head of its own", async () => {
    expect(await ask("HEAD", "/up")).toMatchObject({ status: 200, type, length: "6", body: "" });
    expect(await ask("HEAD", "/down")).toMatchObject({ status: 503, body: "" });
  });

  test("takes no other method", async () => {
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"])
      expect(await ask(method, "/up")).toMatchObject({ status: 405, allow: "GET, HEAD" });
  });

  test("that cannot be made is 500, and the cause goes to the log alone", async () => {
    expect(await ask("GET", "/broken")).toMatchObject({ status: 500, body: "internal error\n" });
    expect(lines.join("")).toContain(`"error":"secret cause","msg":"page failed"`);
  });

  test("does not exist at any other path", async () => {
    for (const path of ["/", "/up/", "/UP", "/constructor", "/__proto__"])
      expect(await ask("GET", path)).toMatchObject({ status: 404, body: "not found\n" });
  });
});

test("a page that is being made is answered while the server closes", async () => {
  const answer = fetch(`${baseUrl}/slow`);
  await started.promise;
  const closed = server.close(3_600_000);
  slow.resolve();
  expect(await (await answer).text()).toBe("late\n");
  await closed;
});
