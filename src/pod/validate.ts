import type { ConnectError } from "@connectrpc/connect";
import { invalid } from "../errors.ts";

/**
 * The checks of Kubernetes' own validation library on names, with its texts, byte for byte (runner-api.md section 4;
 * k8s.io/apimachinery/pkg/util/validation). Lengths are in bytes of UTF-8, as in Go. A function that is named for
 * problems answers every text in order, none when the value is good; callers join them by ", ".
 */

/** Longest piece of the caller's own text in an error message, in UTF-16 units: a message is a line, not a dump. */
const SHOWN_LIMIT = 1024;

const NAME = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const ENV_NAME = /^[-._a-zA-Z][-._a-zA-Z0-9]*$/;
const WORKLOAD_ID = /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32})$/;

const MAX_LABEL_BYTES = 63;
const MAX_SUBDOMAIN_BYTES = 253;

// What Go's unicode.IsSpace calls white space: with U+0085, which JavaScript's trim keeps, without U+FEFF, which it drops.
const SPACES = new Set([
  ..."\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a",
  ..."\u2028\u2029\u202f\u205f\u3000",
]);

/** Without leading and trailing white space as Go sees it. Two scans: a regular expression could take quadratic time. */
export function trim(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && SPACES.has(text.charAt(start))) start++;
  while (end > start && SPACES.has(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

/** Whether nothing is left after `trim`. */
export const blank = (text: string): boolean => trim(text) === "";

const tooLong = (text: string, bytes: number): boolean => Buffer.byteLength(text) > bytes;

const atMost = (bytes: number): string => `must be no more than ${bytes} characters`;

const qualifiedName =
  "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character " +
  "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const subdomain =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and " +
  "end with an alphanumeric character (e.g. 'example.com', regex used for validation is " +
  "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const labelValue =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end " +
  "with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is " +
  "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const dnsLabel =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an " +
  "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const envName =
  "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start " +
  "with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is " +
  "'[-._a-zA-Z][-._a-zA-Z0-9]*')";

// Part by part: one expression for the whole would nest its repetitions, and a request can be 32 MiB long.
const isSubdomain = (text: string): boolean => text.split(".").every((part) => DNS_LABEL.test(part));

function subdomainProblems(text: string): string[] {
  return [
    ...(tooLong(text, MAX_SUBDOMAIN_BYTES) ? [atMost(MAX_SUBDOMAIN_BYTES)] : []),
    ...(isSubdomain(text) ? [] : [subdomain]),
  ];
}

function prefixProblems(prefix: string): string[] {
  return prefix === "" ? ["must be non-empty"] : subdomainProblems(prefix);
}

function nameProblems(name: string): string[] {
  const problems: string[] = [];
  if (name === "") problems.push("must be non-empty");
  else if (tooLong(name, MAX_LABEL_BYTES)) problems.push(atMost(MAX_LABEL_BYTES));
  if (!NAME.test(name)) problems.push(qualifiedName);
  return problems;
}

/** What is wrong with a label's key: an optional DNS subdomain and a slash, then a name. */
export function labelKeyProblems(key: string): string[] {
  const slash = key.indexOf("/");
  if (slash !== key.lastIndexOf("/")) {
    return [
      `a qualified name ${qualifiedName} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`,
    ];
  }
  return [
    ...(slash < 0 ? [] : prefixProblems(key.slice(0, slash)).map((problem) => `prefix part ${problem}`)),
    ...nameProblems(key.slice(slash + 1)).map((problem) => `name part ${problem}`),
  ];
}

/** What is wrong with a label's value; the empty one is good. */
export function labelValueProblems(value: string): string[] {
  return [
    ...(tooLong(value, MAX_LABEL_BYTES) ? [atMost(MAX_LABEL_BYTES)] : []),
    ...(value === "" || NAME.test(value) ? [] : [labelValue]),
  ];
}

/** What is wrong with the name of a container, volume or claim. */
export function dnsLabelProblems(name: string): string[] {
  const problems = tooLong(name, MAX_LABEL_BYTES) ? [atMost(MAX_LABEL_BYTES)] : [];
  if (!DNS_LABEL.test(name)) problems.push(isSubdomain(name) ? "must not contain dots" : dnsLabel);
  return problems;
}

/** What is wrong with the name of an environment variable. */
export function envNameProblems(name: string): string[] {
  const problems = ENV_NAME.test(name) ? [] : [envName];
  if (name === ".") problems.push("must not be '.'");
  else if (name === "..") problems.push("must not be '..'");
  else if (name.startsWith("..")) problems.push("must not start with '..'");
  return problems;
}

// Stricter than Kubernetes' parser, which takes "Gi" for 0 Gi: a number has a digit.
const QUANTITY = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)([eEinumkKMGTP]*[-+]?[0-9]*)$/;
const QUANTITY_SUFFIX = /^([numkMGTPE]?|[KMGTPE]i|[eE][-+]?[0-9]+)$/;

/** What is wrong with a Kubernetes quantity such as `10Gi` (k8s.io/apimachinery/pkg/api/resource); undefined when good. */
export function quantityProblem(text: string): string | undefined {
  const suffix = QUANTITY.exec(text)?.[1];
  if (suffix === undefined) {
    return "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
  }
  return QUANTITY_SUFFIX.test(suffix) ? undefined : "unable to parse quantity's suffix";
}

/** Whether this is a workload id: a lower-case UUID with dashes, or its 32 digits without (ruling 7). */
export const isWorkloadId = (id: string): boolean => WORKLOAD_ID.test(id);

/** Whether a path is absolute and has no `//`, `.`, `..` or trailing slash in it, so that no other text names the same. */
export const isCleanPath = (path: string): boolean =>
  path === "/" ||
  (path.startsWith("/") &&
    path
      .slice(1)
      .split("/")
      .every((part) => part !== "" && part !== "." && part !== ".."));

/** The clean form of an absolute path without `..`: what it names, however it is written. */
export const cleanPath = (path: string): string =>
  `/${path
    .split("/")
    .filter((part) => part !== "" && part !== ".")
    .join("/")}`;

// Where the kernel and the kubelet put what a container trusts; shared memory is the one that callers have reasons to mount.
const KEPT_PATHS = ["/proc", "/sys", "/dev", "/var/run/secrets"];
const OPEN_PATH = "/dev/shm";

const isAtOrUnder = (path: string, parent: string): boolean => path === parent || path.startsWith(`${parent}/`);

/** Whether a volume or file may be mounted at this path (ruling 22). */
export function isMountPath(path: string): boolean {
  if (!path.startsWith("/") || path.includes(":") || path.split("/").includes("..")) return false;
  const clean = cleanPath(path);
  if (clean === "/") return false;
  return isAtOrUnder(clean, OPEN_PATH) || !KEPT_PATHS.some((kept) => isAtOrUnder(clean, kept));
}

/** A piece of the caller's text for a message: bounded, without control characters (logs and terminals show it). */
export function shown(text: string): string {
  const cut = text.length > SHOWN_LIMIT ? `${text.slice(0, SHOWN_LIMIT)}...` : text;
  return cut.replace(/\p{Cc}/gu, " ").toWellFormed();
}

/** INVALID_ARGUMENT `token: detail`, the detail being the caller's text (`shown`). */
export const invalidText = (token: string, text: string): ConnectError => invalid(`${token}: ${shown(text)}`);

/** Throws INVALID_ARGUMENT `token: problems` when there are problems. */
export function requireNone(problems: readonly string[], token: string): void {
  if (problems.length > 0) throw invalid(`${token}: ${problems.join(", ")}`);
}

/** The caller's text in double quotes, for a message. */
export const quoted = (text: string): string => JSON.stringify(shown(text));

/**
 * The entries of a map from the wire by key, in ascending byte order, so that of several bad ones always the same is
 * reported. Keys are data, `__proto__` too: never assign them to a plain object, `Object.fromEntries` is safe.
 */
export const sortedEntries = <Value>(map: { readonly [key: string]: Value }): [string, Value][] =>
  Object.entries(map).sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));

/** Throws INVALID_ARGUMENT `token: cause` unless a Kubernetes object can carry this label (causes of runner-api.md 6.2.2). */
export function requireLabel(key: string, value: string, token: string): void {
  if (key === "") throw invalid(`${token}: empty label key`);
  requireNone(labelKeyProblems(key), `${token}: invalid label key ${quoted(key)}`);
  requireNone(labelValueProblems(value), `${token}: invalid label value for ${quoted(key)}`);
}

/**
 * The labels of FindWorkloadsByLabels, checked: one that no Pod can carry would match nothing for ever.
 * Throws `invalid_label: <cause>` (promises, threat 5). Reserved keys may be looked for.
 */
export function requireSelector(labels: Record<string, string>): Record<string, string> {
  for (const [key, value] of sortedEntries(labels)) requireLabel(key, value, "invalid_label");
  return labels;
}
