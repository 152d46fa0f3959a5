import { version as packageVersion } from "../../package.json" with { type: "json" };
import type { Invocation } from "./invocation.ts";

/** Given by `bun build --define`; sources that run as they are have neither. */
declare const BUILD_VERSION: string | undefined;
declare const BUILD_COMMIT: string | undefined;

export interface Version {
  readonly version: string;
  /** Of the sources, in hex; left out where the build was not told. */
  readonly commit?: string;
  /** Version of the Bun that runs this. */
  readonly bun: string;
}

export function versionOfThis(): Version {
  const version = typeof BUILD_VERSION === "undefined" ? packageVersion : BUILD_VERSION;
  const commit = typeof BUILD_COMMIT === "undefined" ? "" : BUILD_COMMIT;
  return { version, ...(commit === "" || commit === "unknown" ? {} : { commit }), bun: Bun.version };
}

export function version(invocation: Invocation): number {
  const { version, commit, bun } = versionOfThis();
  if (invocation.on("json")) console.log(JSON.stringify({ version, commit, bun }));
  else console.log(`k8s-runner ${version}${commit === undefined ? "" : ` (${commit})`}, Bun ${bun}`);
  return 0;
}
