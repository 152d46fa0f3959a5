import { code, table } from "./markdown.ts";

/** A failure that a caller can see. `<…>` in the message stands for what differs from call to call. */
export interface ErrorRow {
  /** The gRPC code. */
  readonly code: string;
  readonly message: string;
  readonly rpcs: string;
  readonly when: string;
}

type Row = readonly [message: string, when: string, rpcs?: string];

const rowsOf = (code: string, rpcs: string, rows: readonly Row[]): ErrorRow[] =>
  rows.map(([message, when, own = rpcs]) => ({ code, message, rpcs: own, when }));

const input = [
  ...rowsOf("INVALID_ARGUMENT", "StartWorkload", [
    ["main_container_required", "`main` is missing"],
    ["main_container_image_required", "`main.image` is blank"],
    ["workload_id_invalid", "`workload_id` is neither a lower-case UUID with dashes nor its 32 hex digits"],
    ["invalid_label: empty label key", "a label without a key", "StartWorkload, FindWorkloadsByLabels"],
    [
      'invalid_label: reserved label key "<key>"',
      "`app.kubernetes.io/managed-by`, or a key under `agyn.io/` or `agyn.dev/`",
    ],
    [
      'invalid_label: invalid label key "<key>": <texts>',
      "Kubernetes does not take the key",
      "StartWorkload, FindWorkloadsByLabels",
    ],
    ['invalid_label: invalid label value for "<key>": <texts>', "or the value", "StartWorkload, FindWorkloadsByLabels"],
    ["capability_required", "a blank entry of `capabilities`"],
    ["unknown_capability: <name>", "one that is not `docker`"],
    ["docker_capability_not_configured", "`docker`, and `CAPABILITY_IMPLEMENTATIONS` does not name it"],
    ["capability_container_name_conflict: <name>", "a container has a name that docker's own one needs"],
    ["capability_volume_name_conflict: <name>", "a volume has"],
    ["image_pull_registry_required", "credentials without `registry`"],
    ["image_pull_username_required", "without `username`"],
    ["image_pull_password_required", "without `password`"],
    ["volume_name_required", "a volume without a name", "StartWorkload, ListWorkloadsByVolume, RemoveVolume"],
    ["invalid_volume_name: <texts>", "a volume's name is no DNS label"],
    ["duplicate_volume_name: <name>", "two volumes have this name"],
    ["volume_kind_required", "a volume is neither ephemeral nor named"],
    ["invalid_pvc_name: <texts>", "`persistent_name` is no DNS label"],
    ["invalid_volume_label: <cause>", "a label of a volume, with the causes of `invalid_label`"],
    ["inline_file_not_defined", "a container mounts inline files, and there are none"],
    ["inline_file_not_defined: <path>", "or none at this path"],
    ["inline_file_path_invalid: <path>", "a path that is not absolute and clean"],
    ["inline_file_not_referenced: <path>", "no container mounts the file"],
    ["invalid_container_name: <texts>", "a container's name is no DNS label"],
    ["duplicate_container_name: <name>", "two containers have this name"],
    ["container_image_required", "the image of a sidecar or init container is blank"],
    ["volume_mount_name_required", "a mount names no volume"],
    ["volume_not_defined: <name>", "or one that the request does not have"],
    ["mount_path_required", "a mount has no path"],
    [
      "mount_path_invalid: <path>",
      "not absolute, with `..` or `:`, `/`, or at or under `/proc`, `/sys`, `/dev` (but `/dev/shm`), `/var/run/secrets`",
    ],
    ["duplicate_mount_path: <path>", "twice in one container, inline files included"],
    ["env_name_required", "a variable without a name"],
    ["invalid_env_name: <texts>", "Kubernetes does not take the name"],
    ["entrypoint_must_be_single_path", "`entrypoint` has white space in it"],
    [
      "linux_capability_not_allowed: <name>",
      "`required_capabilities` asks for one that `ALLOWED_LINUX_CAPABILITIES` does not name",
    ],
    ["unknown_docker_implementation: <name>", "cannot happen by configuration, which is checked at the start"],
  ]),
  ...rowsOf("FAILED_PRECONDITION", "StartWorkload", [
    ["volume_not_managed: <name>", "a claim of this name exists and is not the runner's"],
    ["volume_terminating: <name>", "or is being deleted"],
  ]),
  ...rowsOf("INVALID_ARGUMENT", "", [
    ["workload_id_required", "`workload_id` is blank", "all that name a workload"],
    ["container_name_required", "`container_name` is blank", "StreamWorkloadLogs"],
    ["execution_id_required", "`execution_id` is blank", "CancelExecution"],
    ["workload_id_and_path_required", "either is blank", "PutArchive"],
  ]),
];

const cluster = [
  ...rowsOf("UNAVAILABLE", "all but Ready and CancelExecution", [
    [
      "cluster_unreachable",
      "the API server cannot be reached, answers 429 or 503, or not in time; or the cache has not synced or is not live, so that absence cannot be proven",
    ],
  ]),
  ...rowsOf("NOT_FOUND", "all that name a workload", [
    ['resource not found: pods "<name>" not found', "there is no such workload, or the Pod is not this runner's"],
  ]),
  ...rowsOf("NOT_FOUND", "all that reach the cluster", [
    ["resource not found: <detail>", "what Kubernetes answered: reason `NotFound`, or HTTP 404"],
  ]),
  ...rowsOf("ALREADY_EXISTS", "StartWorkload", [
    ["resource already exists: <detail>", "reason `AlreadyExists`: the workload is there already"],
  ]),
  ...rowsOf("INVALID_ARGUMENT", "StartWorkload", [
    [
      "invalid kubernetes request: <detail>",
      "reason `Invalid`, or HTTP 422: what only the API server can know is wrong",
    ],
  ]),
  ...rowsOf("UNAUTHENTICATED", "all that reach the cluster", [
    ["unauthenticated: <detail>", "reason `Unauthorized`, or HTTP 401: the runner's own token is not taken"],
  ]),
  ...rowsOf("PERMISSION_DENIED", "all that reach the cluster", [
    [
      "permission denied: <detail>",
      "reason `Forbidden`, or HTTP 403: the runner lacks a right, a quota is used up, or Pod Security refuses the Pod",
    ],
  ]),
  ...rowsOf("ABORTED", "all that change something", [
    ["resource conflict: <detail>", "reason `Conflict`, or another HTTP 409"],
  ]),
  ...rowsOf("INTERNAL", "all that reach the cluster", [
    ["kubernetes request failed: <detail>", "anything else that Kubernetes answered"],
    ["pod_missing_containers", "the Pod has no containers", "InspectWorkload, PutArchive"],
    [
      "pvc_cleanup_failed",
      "a volume could not be deleted; the others were tried, the log tells more",
      "RemoveWorkload",
    ],
    [
      "put archive failed: <what tar said>",
      "`tar` failed, is not in the image, or not all bytes arrived",
      "PutArchive",
    ],
    ["create exec: <detail>", "`tar` could not be started", "PutArchive"],
    ["internal error", "a fault of the runner; the log tells more", "all"],
  ]),
];

const streams = [
  ...rowsOf("NOT_FOUND", "StreamWorkloadLogs", [
    ["container_not_found", "the Pod has no container of this name"],
    ["container_not_started", "with `follow`: the Pod ended without starting it"],
  ]),
  ...rowsOf("UNAVAILABLE", "StreamWorkloadLogs", [
    ["pod_deleted", "the Pod went while its log was read"],
    ["logs_gap", "with `follow`: the log was rotated while the connection was lost, so lines are missing"],
  ]),
  ...rowsOf("INTERNAL", "StreamWorkloadLogs", [
    ["logs_stream_error", "without `follow`: the connection was lost in the middle"],
  ]),
];

const transport = [
  ...rowsOf("UNAVAILABLE", "all", [
    ["the runner is shutting down", "the call came, or was still under way, when the process ended"],
  ]),
  ...rowsOf("UNIMPLEMENTED", "all", [
    ["unknown service <name>", "it is not served here"],
    ["unknown method <name> for service <name>", "the service has no such method"],
    ["<method> streams in both directions and needs HTTP/2", "called over HTTP/1.1", "Exec, ServerReflectionInfo"],
    ["application/grpc-web-text is not supported, use application/grpc-web", "gRPC-Web in base64"],
    [
      'unknown compression "<name>": supported encodings are <names>',
      "the request is compressed otherwise than by gzip",
    ],
    ["protocol error: <what> for unary method", "no message, or more than one", "unary ones"],
  ]),
  ...rowsOf("RESOURCE_EXHAUSTED", "all", [
    [
      "message size <bytes> is larger than configured readMaxBytes <limit>",
      "a message above `MAX_MESSAGE_BYTES`, after decompression",
    ],
    ["metadata of <bytes> bytes is larger than the limit of <limit>", "metadata above `MAX_METADATA_BYTES`"],
    [
      "too_many_<what>",
      "`executions`, `log_streams` or `event_streams`: as many are open as `MAX_EXECUTIONS`, `MAX_LOG_STREAMS` or `MAX_EVENT_STREAMS`",
      "Exec, StreamWorkloadLogs, StreamEvents",
    ],
    [
      "too_many_<what>_on_connection",
      "the same of one connection (`MAX_…_PER_CONNECTION`)",
      "Exec, StreamWorkloadLogs, StreamEvents",
    ],
  ]),
  ...rowsOf("DEADLINE_EXCEEDED", "all", [
    ["the operation timed out", "the caller's own deadline is over"],
    ["the request did not arrive in time", "its message took longer than `REQUEST_TIMEOUT`"],
  ]),
  ...rowsOf("INVALID_ARGUMENT", "all", [
    ["protocol error: incomplete envelope", "the request ends inside of a message"],
    ["parse JSON: <cause>", "a message in JSON that is none of this type"],
  ]),
  ...rowsOf("INTERNAL", "all", [
    ["parse binary: <cause>", "a message that is no protobuf of this type"],
    ["received compressed envelope, but do not know how to decompress", "compressed without saying how"],
  ]),
  ...rowsOf("NOT_FOUND", "grpc.health.v1 Check", [["unknown service", "health of a service that is not served here"]]),
  ...rowsOf("INVALID_ARGUMENT", "ServerReflectionInfo", [
    ["invalid message_request", "a request of reflection that asks for nothing"],
  ]),
  ...rowsOf("NOT_FOUND", "ServerReflectionInfo, in its stream", [
    ["unknown file <name>", "it is not among those of the services here"],
    ["unknown symbol <name>", "likewise"],
    ["unknown extension <number> of <type>", "likewise"],
    ["unknown type <name>", "it has no extensions here"],
  ]),
];

/** In order of the document. */
export const sections: Readonly<Record<string, readonly ErrorRow[]>> = {
  "Bad input": input,
  "The cluster": cluster,
  "Streams of logs": streams,
  "The protocol": transport,
};

/** A failure of Exec that is told by an `error` event, on a stream that ends OK. */
export interface ExecErrorRow {
  readonly code: string;
  readonly message: string;
  readonly when: string;
  readonly retryable: string;
}

export const execErrors: readonly ExecErrorRow[] = (
  [
    ["exec_start_required", "exec start required", "the first message is not `start`"],
    ["target_id_required", "target_id required", "`target_id` is blank"],
    ["invalid_command", "command required", "neither `command_argv` nor `command_shell`"],
    ["invalid_command", "command_argv and command_shell are mutually exclusive", "both"],
    ["invalid_command", "env name required", "a variable without a name"],
    ["invalid_command", "invalid env name: <texts>", "Kubernetes would not take the name"],
    ["exec_start_failed", 'pods "<target>" not found', "there is no such workload, or the Pod is not this runner's"],
    ["exec_start_failed", "container not found: <name>", "the Pod has no container of this name"],
    ["exec_start_failed", "rpc error: code = Internal desc = pod_missing_containers", "the Pod has no containers"],
    ["exec_start_failed", "cluster_unreachable", "as of all RPCs, above", "yes"],
    ["exec_already_started", "duplicate exec start received", "a second `start`; the execution goes on"],
  ] as const
).map(([code, message, when, retryable = "no"]) => ({ code, message, when, retryable }));

const HEAD = `# Errors

What a caller can get, by code and message. The messages are stable: programs may compare them, up to the first \`:\` where one has a
part in \`<…>\`. Bad input is found before anything is changed. A failed StartWorkload leaves nothing behind that it created.

\`<texts>\` are those of Kubernetes' own validation, joined by \`, \`; \`<detail>\` is the message that Kubernetes gave, on one line of at most 4,096
characters. No message holds a password, a token or the contents of a file.

By plain HTTP, a Connect call tells the same code in lower case and the message in JSON: \`{"code":"not_found","message":"…"}\`.
`;

const EXEC = `## Exec

Exec tells its failures inside of the stream, which then ends OK: by an \`error\` event, or once it has \`started\`, by its \`exit\`. An RPC that is
cut gets a code as above.

`;

const exits = [
  ["COMPLETED", "0 to 255, 128 + n by signal n", "the command ended by itself"],
  ["TIMEOUT", "-1, or the command's own", "`timeout_ms` was over"],
  ["IDLE_TIMEOUT", "-1, or the command's own", "`idle_timeout_ms` was over"],
  ["CANCELLED", "0, or the command's own", "CancelExecution, or the end of a terminal's input"],
  [
    "RUNNER_ERROR",
    "-1",
    "the program is not there or cannot be run, the connection was lost, or input came after its end",
  ],
] as const;

/** docs/errors.md. */
export function errors(): string {
  const tables = Object.entries(sections).map(([title, rows]) => {
    const cells = rows.map(({ code: status, message, rpcs, when }) => [code(message), status, rpcs, when]);
    return `## ${title}\n\n${table(["Message", "Code", "RPCs", "When"], cells)}\n`;
  });
  const events = execErrors.map((row) => [code(row.code), code(row.message), row.retryable, row.when]);
  const ends = exits.map(([reason, exitCode, when]) => [code(reason), exitCode, when]);
  const exec = `${EXEC}${table(["`error.code`", "`error.message`", "`retryable`", "When"], events)}\n\n${table(["`exit.reason`", "`exit_code`", "When"], ends)}\n`;
  return [HEAD, ...tables, exec].join("\n");
}
