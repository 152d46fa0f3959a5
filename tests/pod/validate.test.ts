import { describe, expect, test } from "bun:test";
import {
  blank,
  cleanPath,
  dnsLabelProblems,
  envNameProblems,
  isCleanPath,
  isMountPath,
  isWorkloadId,
  labelKeyProblems,
  labelValueProblems,
  quantityProblem,
  requireSelector,
  shown,
  trim,
} from "../../src/pod/validate.ts";
import { refusal } from "./plans.ts";

// Texts of runner-api.md section 4; two spaces before each "or" are real.
const nameRule =
  "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const namePart = `name part ${nameRule}`;
const prefixPart =
  "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const slashes = `a qualified name ${nameRule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`;
const valueRule =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const dnsRule =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const envRule =
  "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')";
const quantityRule = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const max63 = "must be no more than 63 characters";

const a = (count: number): string => "a".repeat(count);
const dotted = (length: number): string => `${"ab.".repeat(length).slice(0, length - 1)}c`;

const tables: [string, (text: string) => string[], [string, string[]][]][] = [
  [
    "label key",
    labelKeyProblems,
    [
      ["a", []],
      ["App.kubernetes-io_x9", []],
      ["example.com/Name", []],
      [a(63), []],
      [`${dotted(253)}/n`, []],
      ["", ["name part must be non-empty", namePart]],
      ["x/", ["name part must be non-empty", namePart]],
      ["/x", ["prefix part must be non-empty"]],
      ["/", ["prefix part must be non-empty", "name part must be non-empty", namePart]],
      [a(64), [`name part ${max63}`]],
      [`-${a(63)}`, [`name part ${max63}`, namePart]],
      ["é".repeat(32), [`name part ${max63}`, namePart]],
      ["a b", [namePart]],
      [" a", [namePart]],
      ["a\n", [namePart]],
      ["a\u0000", [namePart]],
      ["__proto__", [namePart]],
      ["constructor", []],
      ["Example.com/x", [prefixPart]],
      ["a..b/x", [prefixPart]],
      ["a./x", [prefixPart]],
      [`${dotted(254)}/n`, ["prefix part must be no more than 253 characters"]],
      [`${dotted(254)}_/n_`, ["prefix part must be no more than 253 characters", prefixPart, namePart]],
      ["a/b/c", [slashes]],
      ["//", [slashes]],
    ],
  ],
  [
    "label value",
    labelValueProblems,
    [
      ["", []],
      ["x", []],
      ["0_.-Z", []],
      [a(63), []],
      [a(64), [max63]],
      [`${a(63)}-`, [max63, valueRule]],
      ["-a", [valueRule]],
      ["a/b", [valueRule]],
      ["a ", [valueRule]],
      ["ü", [valueRule]],
    ],
  ],
  [
    "DNS label",
    dnsLabelProblems,
    [
      ["a", []],
      ["0-a", []],
      [a(63), []],
      [a(64), [max63]],
      ["a.b", ["must not contain dots"]],
      [`${a(62)}.b`, [max63, "must not contain dots"]],
      ["a..b", [dnsRule]],
      ["", [dnsRule]],
      ["A", [dnsRule]],
      ["-a", [dnsRule]],
      ["a-", [dnsRule]],
      ["a_b", [dnsRule]],
      ["../x", [dnsRule]],
      ["A".repeat(64), [max63, dnsRule]],
    ],
  ],
  [
    "environment variable name",
    envNameProblems,
    [
      ["A", []],
      ["_", []],
      ["-x.y", []],
      [".a", []],
      ["__proto__", []],
      [a(300), []],
      ["", [envRule]],
      ["1A", [envRule]],
      ["A=B", [envRule]],
      ["A B", [envRule]],
      ["Ä", [envRule]],
      [".", ["must not be '.'"]],
      ["..", ["must not be '..'"]],
      ["..a", ["must not start with '..'"]],
      ["..=", [envRule, "must not start with '..'"]],
    ],
  ],
];

for (const [what, problems, rows] of tables) {
  describe(`a ${what}`, () => {
    test.each(rows)("%j", (text, expected) => {
      expect(problems(text)).toEqual(expected);
    });
  });
}

describe("a quantity", () => {
  test.each(["0", "1", "10Gi", "1.5Gi", ".5", "5.", "-1", "+2k", "100m", "1e3", "1E-3", "12Ei", "7E", "007n"])(
    "%s is good",
    (text) => {
      expect(quantityProblem(text)).toBeUndefined();
    },
  );
  test.each(["", "Gi", "ten", "1.2.3", "1 Gi", "1GB", "--1", "1Gi\n", "0x10"])("%j does not match", (text) => {
    expect(quantityProblem(text)).toBe(quantityRule);
  });
  test.each(["1K", "1ki", "1GiGi", "1e", "1ee3", "1i"])("%j has no suffix of a quantity", (text) => {
    expect(quantityProblem(text)).toBe("unable to parse quantity's suffix");
  });
});

describe("trim", () => {
  const spaces = "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000";
  test("takes away what Go calls white space, and only at the ends", () => {
    expect(trim(`${spaces}a${spaces}b${spaces}`)).toBe(`a${spaces}b`);
    expect(blank(spaces)).toBe(true);
    expect(blank("")).toBe(true);
  });
  test.each(["\ufeff", "\u180e", "\u200b", "\u0000"])("keeps %j, which Go does not call white space", (text) => {
    expect(trim(text)).toBe(text);
    expect(blank(text)).toBe(false);
  });
});

describe("a workload id", () => {
  test.each([
    "0c8f2d9e-4a57-4f0b-9d35-6f6c1f8a2b10",
    "0c8f2d9e4a574f0b9d356f6c1f8a2b10",
    "00000000-0000-0000-0000-000000000000",
  ])("%s is one", (id) => expect(isWorkloadId(id)).toBe(true));
  test.each([
    "0C8F2D9E-4A57-4F0B-9D35-6F6C1F8A2B10",
    "0C8F2D9E4A574F0B9D356F6C1F8A2B10",
    "urn:uuid:0c8f2d9e-4a57-4f0b-9d35-6f6c1f8a2b10",
    "{0c8f2d9e-4a57-4f0b-9d35-6f6c1f8a2b10}",
    "0c8f2d9e-4a57-4f0b-9d35-6f6c1f8a2b1",
    "0c8f2d9e-4a574f0b-9d35-6f6c1f8a2b10",
    "0c8f2d9e-4a57-4f0b-9d35-6f6c1f8a2b10\n",
    "../../secrets",
    "workload-0c8f2d9e-4a57-4f0b-9d35-6f6c1f8a2b10",
    "",
  ])("%j is none", (id) => expect(isWorkloadId(id)).toBe(false));
});

describe("paths", () => {
  test.each(["/", "/a", "/a/b", "/a..b", "/..a/b...", "/a b"])("%s is clean", (path) => {
    expect(isCleanPath(path)).toBe(true);
    expect(cleanPath(path)).toBe(path);
  });
  test.each(["", "a", "a/b", "/a/", "//", "//a", "/a//b", "/.", "/./a", "/a/..", "/a/../b", "./a"])(
    "%j is not clean",
    (path) => {
      expect(isCleanPath(path)).toBe(false);
    },
  );
  test("the clean form is what a path names", () => {
    expect(["/a/", "//a", "/./a/.", "/"].map(cleanPath)).toEqual(["/a", "/a", "/a", "/"]);
  });
  test.each([
    "/a",
    "/a/",
    "/proc2",
    "/system",
    "/devices",
    "/dev/shm",
    "/dev/shm/x",
    "/var/run",
    "/var/run/secretsx",
    "/a..b/c",
  ])("%s may be mounted at", (path) => expect(isMountPath(path)).toBe(true));
  test.each([
    "a",
    "./a",
    "/",
    "//",
    "/.",
    "/a/..",
    "/a/../b",
    "/..",
    "/a:b",
    ":",
    "/proc",
    "/proc/",
    "//proc",
    "/./proc/self",
    "/proc/sys/kernel",
    "/sys",
    "/sys/fs/cgroup",
    "/dev",
    "/dev/null",
    "/dev/shmx",
    "/dev//net/tun",
    "/var/run/secrets",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/var//run/./secrets/x",
  ])("%s may not", (path) => expect(isMountPath(path)).toBe(false));
});

describe("the caller's text in a message", () => {
  test("is cut, and holds no control characters or broken surrogates", () => {
    expect(shown(a(1024))).toBe(a(1024));
    expect(shown(a(1025))).toBe(`${a(1024)}...`);
    expect(shown(`${a(1023)}😀`)).toBe(`${a(1023)}\ufffd...`);
    expect(shown("a\u001b[31m\r\n\u0000b\u0085")).toBe("a [31m   b ");
  });
});

describe("a selector", () => {
  test("may hold reserved keys, and comes back as it is", () => {
    const labels = { "agyn.io/workload-id": "x", "app.kubernetes.io/managed-by": "k8s-runner", empty: "" };
    expect(requireSelector(labels)).toBe(labels);
    expect(requireSelector({})).toEqual({});
  });
  const rows: [Record<string, string>, string][] = [
    [{ "": "x" }, "invalid_label: empty label key"],
    [{ "a b": "x" }, `invalid_label: invalid label key "a b": ${namePart}`],
    [{ a: "x y" }, `invalid_label: invalid label value for "a": ${valueRule}`],
    [{ z: "!", b: "!" }, `invalid_label: invalid label value for "b": ${valueRule}`],
    [Object.fromEntries([["__proto__", "x"]]), `invalid_label: invalid label key "__proto__": ${namePart}`],
    [{ 'a",b=c': "x" }, `invalid_label: invalid label key "a\\",b=c": ${namePart}`],
  ];
  test.each(rows)("that no Pod can carry is refused: %j", (labels, message) => {
    expect(refusal(() => requireSelector(labels))).toBe(message);
  });
});

test("megabytes of hostile text are judged at once, without an exception", () => {
  const texts = [
    a(4e6),
    " ".repeat(4e6),
    `${" ".repeat(2e6)}x${" ".repeat(2e6)}y`,
    "a.".repeat(2e6),
    "-".repeat(4e6),
    "a/".repeat(2e6),
  ];
  for (const text of texts) {
    expect(labelKeyProblems(text)).not.toEqual([]);
    expect(labelValueProblems(text)).not.toEqual([]);
    expect(dnsLabelProblems(text)).not.toEqual([]);
    expect(isMountPath(text)).toBe(false);
    expect(trim(text).length).toBeLessThanOrEqual(text.length);
    expect(quantityProblem(text)).toBe(quantityRule);
  }
}, 20_000);
