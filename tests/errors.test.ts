import { expect, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { toConnectError } from "../src/errors.ts";
import { KubeError } from "../src/kube/error.ts";

// runner-api.md section 3 as changed by ruling 5: HTTP status, Status.reason, Status.message, and what callers see.
test.each([
  [404, "NotFound", 'pods "x" not found', Code.NotFound, 'resource not found: pods "x" not found'],
  [404, "", "", Code.NotFound, "resource not found"],
  [404, "Strange", "page", Code.NotFound, "resource not found: page"],
  [409, "AlreadyExists", "it", Code.AlreadyExists, "resource already exists: it"],
  [409, "Conflict", "it", Code.Aborted, "resource conflict: it"],
  [409, "", "it", Code.Aborted, "resource conflict: it"],
  [422, "Invalid", "it", Code.InvalidArgument, "invalid kubernetes request: it"],
  [422, "", "it", Code.InvalidArgument, "invalid kubernetes request: it"],
  [401, "Unauthorized", "it", Code.Unauthenticated, "unauthenticated: it"],
  [403, "Forbidden", "it", Code.PermissionDenied, "permission denied: it"],
  [400, "BadRequest", " boom ", Code.Internal, "kubernetes request failed: boom"],
  [500, "InternalError", "", Code.Internal, "kubernetes request failed"],
  [0, "", "connection refused", Code.Unavailable, "cluster_unreachable"],
  [429, "TooManyRequests", "slow down", Code.Unavailable, "cluster_unreachable"],
  [503, "ServiceUnavailable", "it", Code.Unavailable, "cluster_unreachable"],
  [504, "Timeout", "it", Code.Unavailable, "cluster_unreachable"],
])("%d %p %p is told as it should be", (status, reason, message, code, text) => {
  const error = toConnectError(new KubeError(status, reason, message));
  expect({ code: error.code, message: error.rawMessage }).toEqual({ code, message: text });
});

test("a message is one line of at most 4,096 characters", () => {
  const { rawMessage } = toConnectError(new KubeError(422, "Invalid", `a\r\n\u001b[31mb${"c".repeat(10_000)}`));
  expect(rawMessage).toStartWith("invalid kubernetes request: a [31mbc");
  expect(rawMessage.length).toBeLessThan(4_200);
  const { rawMessage: cut } = toConnectError(new KubeError(422, "Invalid", `${"c".repeat(4_095)}\u{1f600}`));
  expect(cut.isWellFormed()).toBe(true); // half of a character could not be sent
});

test("what is not ours to tell is INTERNAL without its text, and keeps its cause for the log", () => {
  const cause = new TypeError("secret");
  const error = toConnectError(cause);
  expect({ code: error.code, message: error.rawMessage, cause: error.cause }).toEqual({
    code: Code.Internal,
    message: "internal error",
    cause,
  });
});

test("a bound of our own that ran out is a cluster that cannot be reached; a Connect error stays what it is", () => {
  expect(toConnectError(new DOMException("timed out", "TimeoutError")).rawMessage).toBe("cluster_unreachable");
  const canceled = new ConnectError("gone", Code.Canceled);
  expect(toConnectError(canceled)).toBe(canceled);
});
