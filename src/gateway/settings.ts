import { readFileSync } from "node:fs";
import { durationMs, durationProblem } from "../duration.ts";
import { Secret } from "../secret.ts";
import { fileProblem, type Variables } from "../variables.ts";

/** What the platform link needs to know (process.md section 1, ruling 24). */
export interface PlatformSettings {
  /** GATEWAY_ADDRESS: `host:port`. */
  readonly gatewayAddress: string;
  /** GATEWAY_TLS. */
  readonly gatewayTls: boolean;
  /** SERVICE_TOKEN, or the contents of SERVICE_TOKEN_FILE. */
  readonly serviceToken: Secret;
  /** ZITI_ENROLLMENT_TIMEOUT in ms: for all attempts to enroll together, and once more for the catalog. */
  readonly enrollmentTimeoutMs: number;
  /** ZITI_COMPANION: the program that speaks OpenZiti, a path or a name to be found in PATH. */
  readonly companion: string;
  /** ZITI_SOCKET_DIR: where a private directory can be made; undefined: the first temporary directory that is writable. */
  readonly socketDir: string | undefined;
}

/** Undefined when ZITI_ENABLED is false: then no other variable of the link is even looked at. */
export function platformFrom(variables: Variables): PlatformSettings | undefined {
  if (!variables.flag("ZITI_ENABLED")) return undefined;
  return {
    serviceToken: serviceToken(variables),
    gatewayAddress: gatewayAddress(variables),
    gatewayTls: variables.flag("GATEWAY_TLS"),
    enrollmentTimeoutMs: enrollmentTimeoutMs(variables),
    companion: variables.nonBlank("ZITI_COMPANION"),
    socketDir: variables.nonBlank("ZITI_SOCKET_DIR"),
  };
}

function serviceToken(variables: Variables): Secret {
  const token = variables.nonBlank("SERVICE_TOKEN");
  const path = variables.nonBlank("SERVICE_TOKEN_FILE");
  const both = "SERVICE_TOKEN_FILE is set beside SERVICE_TOKEN";
  if (token !== undefined && path !== undefined) variables.wrong("SERVICE_TOKEN_FILE", both, "set one of the two");
  if (token !== undefined) return new Secret(token);
  const required = "SERVICE_TOKEN is required when ZITI_ENABLED is true";
  if (path === undefined) variables.wrong("SERVICE_TOKEN", required, "set it or SERVICE_TOKEN_FILE");
  return new Secret(path === undefined ? "" : tokenIn(path, variables));
}

function tokenIn(path: string, variables: Variables): string {
  const right = "name a file that holds the token and nothing else";
  try {
    const token = readFileSync(path, "utf8").trim();
    if (token === "") variables.wrong("SERVICE_TOKEN_FILE", `${path} is empty`, right);
    return token;
  } catch (error) {
    variables.wrong("SERVICE_TOKEN_FILE", `read ${path}: ${fileProblem(error)}`, right);
    return "";
  }
}

function gatewayAddress(variables: Variables): string {
  const address = variables.nonBlank("GATEWAY_ADDRESS");
  const port = Number(/^(?:\[[\da-fA-F:.]+\]|[^\s:/?#@[\]]+):(\d{1,5})$/.exec(address)?.[1] ?? Number.NaN);
  if (!(port >= 1 && port <= 65_535))
    variables.wrong("GATEWAY_ADDRESS", `invalid GATEWAY_ADDRESS: "${address}"`, "set host:port, without a scheme");
  return address;
}

function enrollmentTimeoutMs(variables: Variables): number {
  const key = "ZITI_ENROLLMENT_TIMEOUT";
  const right = "set a duration such as 90s, 2m or 1h30m";
  const text = variables.text(key);
  const problem = durationProblem(text);
  const ms = durationMs(text) ?? Number.NaN;
  if (text === "") variables.wrong(key, `${key} must be a duration`, right);
  else if (problem !== undefined) variables.wrong(key, `invalid ${key}: ${problem}`, right);
  else if (!(ms > 0)) variables.wrong(key, `${key} must be greater than 0`, right);
  return ms;
}
