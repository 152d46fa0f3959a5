/* HTTP/1.1 requests that no client library sends, as they go over the wire. */

const READY = "/agynio.api.runner.v1.RunnerService/Ready";
const FIND = "/agynio.api.runner.v1.RunnerService/FindWorkloadsByLabels";

const post = (path: string, body: string | Uint8Array, headers: readonly string[] = []): Buffer => {
  const bytes = Buffer.from(body);
  const lines = [
    `POST ${path} HTTP/1.1`,
    "host: odd",
    "content-type: application/json",
    `content-length: ${bytes.length}`,
    ...headers,
  ];
  return Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), bytes]);
};

const raw = (...lines: string[]) => Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
const get = (path: string, ...headers: string[]) => raw(`GET ${path} HTTP/1.1`, "host: odd", ...headers);

const PATHS = [
  "/",
  "//",
  "///../../etc/passwd",
  "/%00",
  "/%2e%2e/%2e%2e",
  "/\u00ff\u00fe",
  "*",
  "http://other/x",
  "?",
  "/?a=b#c",
  `/${"a".repeat(8_000)}`,
  `${READY}/`,
  `${READY}/../StartWorkload`,
  `/x${READY}`,
  READY.toLowerCase(),
  "/agynio.api.runner.v1.RunnerService/constructor",
  "/__proto__/__proto__",
  "/agynio.api.runner.v1.RunnerService/__proto__",
];

const METHODS = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "FOO", "get"];

const HEADERS: readonly (readonly [string, Buffer])[] = [
  ["two lengths", raw(`POST ${READY} HTTP/1.1`, "host: odd", "content-length: 2", "content-length: 3")],
  [
    "a length and chunks",
    raw(`POST ${READY} HTTP/1.1`, "host: odd", "content-length: 2", "transfer-encoding: chunked"),
  ],
  ["a negative length", raw(`POST ${READY} HTTP/1.1`, "host: odd", "content-length: -1")],
  ["a length that is no number", raw(`POST ${READY} HTTP/1.1`, "host: odd", "content-length: 0x10")],
  ["a length beyond 64 bits", raw(`POST ${READY} HTTP/1.1`, "host: odd", `content-length: ${"9".repeat(30)}`)],
  [
    "chunks of no size",
    Buffer.concat([raw(`POST ${READY} HTTP/1.1`, "host: odd", "transfer-encoding: chunked"), Buffer.from("zz\r\n")]),
  ],
  ["an unknown transfer encoding", raw(`POST ${READY} HTTP/1.1`, "host: odd", "transfer-encoding: bogus")],
  ["a field without a colon", raw(`GET ${READY} HTTP/1.1`, "host: odd", "nothing")],
  ["a field without a name", raw(`GET ${READY} HTTP/1.1`, "host: odd", ": x")],
  ["a folded field", raw(`GET ${READY} HTTP/1.1`, "host: odd", "x: a", " b")],
  ["a NUL in a field", raw(`GET ${READY} HTTP/1.1`, "host: odd", "x: a\0b")],
  ["no host", raw(`POST ${READY} HTTP/1.1`, "content-type: application/json", "content-length: 0")],
  ["two hosts", raw(`GET ${READY} HTTP/1.1`, "host: a", "host: b")],
  [
    "a host that is none",
    raw(`POST ${READY} HTTP/1.1`, "host: a b/c?d", "content-type: application/json", "content-length: 0"),
  ],
  ["1,000 fields", get(READY, ...Array.from({ length: 1_000 }, (_, index) => `x-${index}: y`))],
  ["a field of 100,000 bytes", get(READY, `x: ${"a".repeat(100_000)}`)],
  ["no version", raw(`GET ${READY}`)],
  ["version 9.9", raw(`GET ${READY} HTTP/9.9`, "host: odd")],
  ["version 1.0", raw(`GET ${READY} HTTP/1.0`)],
  [
    "an upgrade to h2c",
    get(READY, "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"),
  ],
  [
    "an upgrade to a WebSocket",
    get(
      READY,
      "connection: upgrade",
      "upgrade: websocket",
      "sec-websocket-version: 13",
      "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
  ],
  ["what is no HTTP", Buffer.concat([Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]), Buffer.alloc(300, 1)])],
  [
    "an expectation",
    raw(
      `POST ${READY} HTTP/1.1`,
      "host: odd",
      "content-type: application/json",
      "content-length: 0",
      "expect: nonsense",
    ),
  ],
  ["a timeout that is none", post(READY, "{}", ["connect-timeout-ms: x"])],
  ["a timeout beyond 31 bits", post(READY, "{}", ["connect-timeout-ms: 9999999999"])],
  ["a timeout below zero", post(READY, "{}", ["connect-timeout-ms: -5"])],
  ["an unknown compression", post(READY, "{}", ["content-encoding: br"])],
  ["gzip that is none", post(READY, "{}", ["content-encoding: gzip"])],
  ["an unknown version of Connect", post(READY, "{}", ["connect-protocol-version: 99"])],
];

const JSONS: readonly (string | Uint8Array)[] = [
  "",
  " ",
  "null",
  "[]",
  '"x"',
  "1",
  "{",
  "{}}",
  "{} {}",
  "NaN",
  "{'a':1}",
  '{"labels":null}',
  '{"labels":[]}',
  '{"labels":{"a":1}}',
  '{"labels":{"a":"b"},"all":"yes"}',
  '{"labels":{"a":"\\ud800"}}',
  '{"labels":{"a":"\\u0000"}}',
  '{"__proto__":{"polluted":true}}',
  '{"constructor":{"prototype":{"polluted":true}}}',
  '{"labels":{"__proto__":"x"}}',
  '{"labels":{"a":{"b":1}}}',
  '{"all":true,"all":false}',
  `{"a":${"1".repeat(10_000)}}`,
  '{"a":1e999999}',
  "[".repeat(100_000),
  `${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)}`,
  `{"labels":{"a":"${"a".repeat(1_000_000)}"}}`,
  Buffer.from([0xff, 0xfe, 0x7b, 0x7d]),
  Buffer.from([0x7b, 0x22, 0xc3, 0x28, 0x22, 0x3a, 0x31, 0x7d]),
  "\ufeff{}",
];

/** Each with its name. */
export const ODDITIES: readonly (readonly [name: string, bytes: Buffer])[] = [
  ...PATHS.map((path) => [`POST ${path.slice(0, 60)}`, post(path, "{}")] as const),
  ...PATHS.map((path) => [`GET ${path.slice(0, 60)}`, get(path)] as const),
  ...METHODS.map((method) => [`${method} of Ready`, raw(`${method} ${READY} HTTP/1.1`, "host: odd")] as const),
  ...HEADERS,
  ...JSONS.map((body) => [`JSON ${body.slice(0, 30)}`, post(FIND, body)] as const),
];
