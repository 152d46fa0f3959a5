import type { Flag } from "./command.ts";

/** How to reach the runner: the same for every command of the client. */
export const CONNECTION: readonly Flag[] = [
  {
    name: "address",
    short: "a",
    value: "host:port",
    env: "RUNNER_ADDRESS",
    help: "the runner; 127.0.0.1:50051 if not said",
  },
  { name: "tls", env: "RUNNER_TLS", help: "speak TLS; implied by the next three and by https:// in the address" },
  {
    name: "cacert",
    value: "file",
    kind: "file",
    env: "RUNNER_CACERT",
    help: "authorities to check the runner's certificate by",
  },
  { name: "cert", value: "file", kind: "file", env: "RUNNER_CERT", help: "our own certificate, with --key" },
  { name: "key", value: "file", kind: "file", env: "RUNNER_KEY", help: "the key of --cert" },
];

/** For commands that wait for answers. */
export const timeout = (help: string): Flag => ({ name: "timeout", value: "duration", help });
export const TIMEOUT = timeout("give up after this long, such as 90s; 30s if not said, 0 for never");
export const STREAM_TIMEOUT = timeout("give up after this long, such as 5m; never if not said");

export const json = (help: string): Flag => ({ name: "json", help });

export const CONTAINER: Flag = {
  name: "container",
  short: "c",
  value: "name",
  help: "a container of the workload; the main one if not said",
};
