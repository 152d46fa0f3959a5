import { loadConfig } from "../config.ts";
import { errorText } from "../log.ts";
import type { Environment } from "./invocation.ts";

/** Reads the whole configuration, says what is wrong with it as the process that serves would, and does no more. */
export function checkConfig(env: Environment): number {
  try {
    loadConfig(env);
  } catch (error) {
    console.error(`k8s-runner failed: load config: ${errorText(error)}`);
    return 1;
  }
  console.log("the configuration is good");
  return 0;
}
