import { describe, expect, test } from "bun:test";
import { areTrailers, type Head, headOf } from "../../src/http2/head.ts";
import { HeaderDecoder } from "../../src/http2/hpack.ts";
import { headerBlock } from "../abuse/wire.ts";

/* The sections named here are those of RFC 9113. */

type Pair = readonly [name: string, value: string];

/** As they come from a client. */
const sent = (fields: readonly Pair[]) => new HeaderDecoder().decode(headerBlock(fields)) ?? expect.unreachable();
const read = (...fields: Pair[]) => headOf(sent(fields));

const method: Pair = [":method", "POST"];
const scheme: Pair = [":scheme", "https"];
const authority: Pair = [":authority", "here:443"];
const path: Pair = [":path", "/service/Method?query"];

/** The head of a request with more fields; undefined where it is refused. */
const withFields = (...more: Pair[]) => read(method, scheme, authority, path, ...more);

function headersOf(head: Head | undefined): Record<string, string> | undefined {
  return head === undefined ? undefined : { ...head.headers };
}

test("a head is what HTTP/2 says of a request, and its fields", () => {
  const head = withFields(["content-type", "application/grpc"], ["x", ""]);
  expect<unknown>({ ...head, headers: headersOf(head) }).toEqual({
    method: "POST",
    scheme: "https",
    authority: "here:443",
    path: "/service/Method?query",
    headers: { "content-type": "application/grpc", x: "" },
    contentLength: undefined,
  });
});

test("the order of what HTTP/2 says does not matter, and the authority may be missing", () => {
  expect(read(path, authority, scheme, method)).toEqual(read(method, scheme, authority, path));
  expect(read(method, scheme, path)?.authority).toBe("");
  expect(read(method, scheme, path, [":authority", ""])?.authority).toBe("");
});

test("the authority is what host says where HTTP/2 says nothing of it (8.3.1)", () => {
  const host: Pair = ["host", "there:80"];
  expect(read(method, scheme, path, host)?.authority).toBe("there:80");
  expect(headersOf(read(method, scheme, path, host))).toEqual({ host: "there:80" });
  expect(withFields(host)?.authority).toBe("here:443");
  expect(headersOf(withFields(host))).toEqual({ host: "there:80" });
  expect(read(method, scheme, path, ["host", ""])?.authority).toBe("");
  expect(read(method, scheme, path, ["x-host", "there"])?.authority).toBe("");
});

test("the path begins with a slash or is an asterisk (8.3.1)", () => {
  const pathRead = (value: string) => read(method, scheme, authority, [":path", value])?.path;
  for (const value of ["/", "*", "/*", "//", "/a b", "/?", "/service/Method?a=/b#c"])
    expect(pathRead(value)).toBe(value);
  for (const value of ["", "a", "a/b", "?", "?a=/", "**", "*/", "*?a", "http://here/", "\\", "\xaf"])
    expect([value, pathRead(value)]).toEqual([value, undefined]);
});

describe("names (8.2.1)", () => {
  const ALLOWED = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";

  test("are of the characters of tokens, and in lower case", () => {
    for (let code = 0; code < 256; code++) {
      const character = String.fromCharCode(code);
      const isAllowed = ALLOWED.includes(character);
      // A colon at the begin makes it one of HTTP/2's own.
      for (const name of [`${character}b`, `a${character}b`, `a${character}`, character])
        expect([name, headersOf(withFields([name, "1"]))]).toEqual([name, isAllowed ? { [name]: "1" } : undefined]);
    }
  });

  test("are not empty", () => {
    expect(withFields(["", "1"])).toBeUndefined();
    expect(withFields([":", "1"])).toBeUndefined();
  });
});

test("values have no NUL, CR or LF, and no space around them (8.2.1)", () => {
  const valueRead = (value: string) => withFields(["x", value])?.headers.x;
  for (let code = 0; code < 256; code++) {
    const character = String.fromCharCode(code);
    const [inside, before, after] = [`a${character}b`, `${character}b`, `a${character}`];
    const isAllowed = !"\0\r\n".includes(character);
    expect([code, valueRead(inside)]).toEqual([code, isAllowed ? inside : undefined]);
    const isAllowedOutside = isAllowed && !" \t".includes(character);
    for (const value of [before, after, character])
      expect([code, valueRead(value)]).toEqual([code, isAllowedOutside ? value : undefined]);
  }
  expect(valueRead("several\nlines\n")).toBeUndefined();
  expect(read(method, scheme, authority, [":path", "/a\nb"])).toBeUndefined();
  expect(read(method, scheme, [":authority", " here"], path)).toBeUndefined();
});

describe("what HTTP/2 says of a request (8.3)", () => {
  test("comes before all fields", () => {
    expect(read(method, scheme, ["x", "1"], path)).toBeUndefined();
    expect(withFields(["x", "1"], [":authority", "there"])).toBeUndefined();
  });

  test.each([":status", ":protocol", ":unknown", ":Method", ":path:", "::path"])("has no %s", (name) => {
    expect(read(method, scheme, authority, path, [name, "200"])).toBeUndefined();
    expect(read([name, "200"], method, scheme, authority, path)).toBeUndefined();
  });

  test.each([method, scheme, authority, path])("has no second %s, not even the same", (name, value) => {
    expect(withFields([name, value])).toBeUndefined();
    expect(withFields([name, "other"])).toBeUndefined();
    expect(read([name, ""], method, scheme, authority, path)).toBeUndefined();
  });

  test("has a method, a scheme and a path that are not empty", () => {
    expect(read(scheme, authority, path)).toBeUndefined();
    expect(read(method, authority, path)).toBeUndefined();
    expect(read(method, scheme, authority)).toBeUndefined();
    expect(read([":method", ""], scheme, authority, path)).toBeUndefined();
    expect(read(method, [":scheme", ""], authority, path)).toBeUndefined();
    expect(read(method, scheme, authority, [":path", ""])).toBeUndefined();
    expect(read()).toBeUndefined();
    expect(read([":method", "CONNECT"], authority)).toBeUndefined();
    // Nor do fields of such names make up for one.
    expect(read(scheme, authority, path, ["method", "POST"])).toBeUndefined();
  });
});

describe("fields of a connection (8.2.2)", () => {
  test.each(["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"])(
    "%s is refused",
    (name) => {
      expect(withFields([name, "close"])).toBeUndefined();
      expect(withFields(["x", "1"], [name, ""])).toBeUndefined();
    },
  );

  test("te says nothing but trailers", () => {
    expect(headersOf(withFields(["te", "trailers"]))).toEqual({ te: "trailers" });
    for (const value of ["gzip", "", "trailers, gzip", "trailers;q=1"])
      expect(withFields(["te", value])).toBeUndefined();
    expect(withFields(["te", "trailers"], ["te", "gzip"])).toBeUndefined();
  });
});

test("the length of the content is a number (8.1.1)", () => {
  const lengthOf = (value: string) => withFields(["content-length", value])?.contentLength;
  expect(lengthOf("0")).toBe(0);
  expect(lengthOf("0012")).toBe(12);
  expect(lengthOf("999999999999999")).toBe(999_999_999_999_999);
  expect(withFields()).toHaveProperty("contentLength", undefined);
  for (const value of ["", "-1", "+1", "1.5", "1e3", "0x10", "1 2", "one", "5, 5", "1_000", "²", "9".repeat(16)])
    expect([value, withFields(["content-length", value])]).toEqual([value, undefined]);
  for (const second of ["5", "6"])
    expect(withFields(["content-length", "5"], ["content-length", second])).toBeUndefined();
});

test("fields of one name are one: cookies as one cookie field has them, others as a list", () => {
  const head = withFields(
    ["x", "1"],
    ["cookie", "a=1"],
    ["y", "3"],
    ["x", "2, 3"],
    ["cookie", "b=2"],
    ["x", ""],
    ["cookie", "c=3"],
  );
  expect(headersOf(head)).toEqual({ x: "1, 2, 3, ", cookie: "a=1; b=2; c=3", y: "3" });
});

test("names that objects have of themselves are names like others", () => {
  const odd = ["__proto__", "constructor", "hasownproperty", "valueof", "tostring"];
  const head = withFields(
    ...odd.flatMap((name): Pair[] => [
      [name, "1"],
      [name, "2"],
    ]),
  );
  expect(Object.entries(head?.headers ?? {})).toEqual(odd.map((name) => [name, "1, 2"]));
  expect(Object.getPrototypeOf(head?.headers)).toBeNull();
  const none = withFields();
  for (const name of [...odd, "toString", "hasOwnProperty"]) expect(none?.headers[name]).toBeUndefined();
});

test("trailers are fields, and say nothing of the request", () => {
  const areFine = (...fields: Pair[]) => areTrailers(sent(fields));
  expect(areFine()).toBe(true);
  expect(areFine(["grpc-status", "0"], ["x", ""])).toBe(true);
  expect(areFine(["grpc-status", "0"], [":path", "/"])).toBe(false);
  expect(areFine([":status", "200"])).toBe(false);
  expect(areFine(["Grpc-Status", "0"])).toBe(false);
  expect(areFine(["x", "1\r\n"], ["grpc-status", "0"])).toBe(false);
});
