#!/usr/bin/env bash
# What an operator's own tools see of a running runner: grpcurl over gRPC, curl over Connect with HTTP/1.1 and HTTP/2. Each
# starts a workload, waits for it, reads its state and log, and removes it, with an error on the way. Besides: grpcurl and
# buf curl without proto files, a probe of gRPC's health service, and the pages of plain HTTP.
# ADDRESS is the runner's host:port; IMAGE an image with a shell (alpine:3.19). Needs Go to install tools, into tests/gen.
# The last line is `smoke: N passed, N failed`; exits 1 when any check failed.
set -uo pipefail
cd "$(dirname "$0")/.."
: "${ADDRESS:?host:port of the runner}"
image=${IMAGE:-alpine:3.19}

. tests/tools.sh

service=agynio.api.runner.v1.RunnerService
script='echo hello from smoke; trap exit TERM; sleep 600 & wait'
spec='{"main": {"image": "'$image'", "entrypoint": "/bin/sh", "cmd": ["-c", "'$script'"]}}'
unknown=6f1d4a6e-0000-4000-8000-000000000000
not_found="resource not found: pods \\\\?\"workload-$unknown\\\\?\" not found"
hello=$(printf 'hello from smoke\n' | base64)
started=()

# The workload's id is the first one of the answer; those of sidecars follow.
id_in() { grep -oE '"id": *"[^"]*"' <<<"$1" | head -n 1 | cut -d'"' -f4; }

grpc() { # rpc, JSON, more flags of grpcurl
  "$grpcurl" -plaintext -max-time 60 -import-path proto -proto agynio/api/runner/v1/runner.proto -d "$2" "${@:3}" \
    "$ADDRESS" "$service/$1" 2>&1
}
http1() { curl -sS --max-time 60 --http1.1 -w ' HTTP %{http_version} %{http_code}' "$@" 2>&1; }
http2() { curl -sS --max-time 60 --http2-prior-knowledge -w ' HTTP %{http_version} %{http_code}' "$@" 2>&1; }
connect() { # http1 or http2, rpc, JSON
  "$1" -H 'Content-Type: application/json' -d "$3" "http://$ADDRESS/$service/$2"
}
# A message of a Connect stream: a byte of flags, four of length (here below 256), then JSON.
connect_stream() { # http1 or http2, rpc, JSON
  { printf '\0\0\0\0' && printf "\\x$(printf %02x "${#3}")" && printf %s "$3"; } |
    "$1" -H 'Content-Type: application/connect+json' --data-binary @- "http://$ADDRESS/$service/$2" | tr '\0' ' '
}

# Asks again, for a minute at most, until the answer holds the expression; the last answer.
until_says() { # expression, command...
  local answer
  for _ in $(seq 120); do
    answer=$("${@:2}")
    grep -aEq -- "$1" <<<"$answer" && break
    sleep 0.5
  done
  echo "$answer"
}

# Workloads that a failed check left behind.
trap 'for id in "${started[@]}"; do grpc RemoveWorkload "{\"workloadId\": \"$id\", \"force\": true}" >/dev/null; done' EXIT

# gRPC -----------------------------------------------------------------------------------------------------------------
check "grpcurl: Ready" '^\{ "status": "ok" \} $' "$(grpc Ready '{}')"
if [ "$failed" -ne 0 ]; then
  echo "smoke: 0 passed, 1 failed"
  exit 1
fi
answer=$(grpc StartWorkload "$spec")
check "grpcurl: StartWorkload" '"status": "WORKLOAD_STATUS_STARTING"' "$answer"
id=$(id_in "$answer")
started+=("$id")
of_id="{\"workloadId\": \"$id\"}"
check "grpcurl: InspectWorkload until it runs" '"role": "CONTAINER_ROLE_MAIN".*"status": "CONTAINER_STATUS_RUNNING"' \
  "$(until_says '"stateRunning": true' grpc InspectWorkload "$of_id")"
check "grpcurl: StreamWorkloadLogs" "\"data\": \"$hello\"" \
  "$(until_says "$hello" grpc StreamWorkloadLogs "${of_id%\}}, \"containerName\": \"main\"}")"
check "grpcurl: Exec" '"stdout": .*"data": "NDIK".*"exitCode": 7, "reason": "EXEC_EXIT_REASON_COMPLETED"' \
  "$(grpc Exec "{\"start\": {\"targetId\": \"workload-$id\", \"commandShell\": \"echo 42; exit 7\"}}")"
check "grpcurl: Exec of what is not there" '"error": .*"code": "exec_start_failed"' \
  "$(grpc Exec "{\"start\": {\"targetId\": \"workload-$unknown\", \"commandShell\": \"true\"}}")"
check "grpcurl: an unknown workload" "Code: NotFound Message: $not_found" \
  "$(grpc InspectWorkload "{\"workloadId\": \"$unknown\"}")"
check "grpcurl: bad input" 'Code: InvalidArgument Message: main_container_required' "$(grpc StartWorkload '{}')"
check "grpcurl: an unknown service" 'Code: Unimplemented Message: unknown service agynio.api.runners.v1.RunnersService' \
  "$(service=agynio.api.runners.v1.RunnersService grpc EnrollRunner '{}' -proto agynio/api/runners/v1/runners.proto)"
check "grpcurl: RemoveWorkload" '^\{ *\} $' "$(grpc RemoveWorkload "${of_id%\}}, \"force\": true}")"

# Connect --------------------------------------------------------------------------------------------------------------
for http in http1 http2; do
  if [ "$http" = http1 ]; then name="curl, HTTP/1.1" version=1.1; else name="curl, HTTP/2" version=2; fi
  check "$name: Ready" "^\{\"status\":\"ok\"\} HTTP $version 200 $" "$(connect "$http" Ready '{}')"
  answer=$(connect "$http" StartWorkload "$spec")
  check "$name: StartWorkload" "\"status\":\"WORKLOAD_STATUS_STARTING\".* HTTP $version 200 $" "$answer"
  id=$(id_in "$answer")
  of_id="{\"workloadId\": \"$id\"}"
  started+=("$id")
  check "$name: InspectWorkload until it runs" '"role":"CONTAINER_ROLE_MAIN".*"status":"CONTAINER_STATUS_RUNNING"' \
    "$(until_says '"stateRunning":true' connect "$http" InspectWorkload "$of_id")"
  check "$name: StreamWorkloadLogs" "\"data\":\"$hello\".*\{\} HTTP $version 200 $" \
    "$(until_says "$hello" connect_stream "$http" StreamWorkloadLogs "${of_id%\}}, \"containerName\": \"main\"}")"
  check "$name: an unknown workload" "^\{\"code\":\"not_found\",\"message\":\"$not_found\"\} HTTP $version 404 $" \
    "$(connect "$http" InspectWorkload "{\"workloadId\": \"$unknown\"}")"
  check "$name: bad input" "^\{\"code\":\"invalid_argument\",\"message\":\"workload_id_required\"\} HTTP $version 400 $" \
    "$(connect "$http" InspectWorkload '{}')"
  check "$name: an unknown log" "\"code\":\"not_found\",\"message\":\"container_not_found\".* HTTP $version 200 $" \
    "$(connect_stream "$http" StreamWorkloadLogs "${of_id%\}}, \"containerName\": \"nope\"}")"
  check "$name: RemoveWorkload" "^\{\} HTTP $version 200 $" \
    "$(connect "$http" RemoveWorkload "${of_id%\}}, \"force\": true}")"
done
check "curl, HTTP/1.1: Exec, which needs HTTP/2" '"code":"unimplemented","message":"Exec streams in both directions' \
  "$(connect_stream http1 Exec '{"start": {}}')"

# Without proto files ---------------------------------------------------------------------------------------------------
reflect() { "$grpcurl" -plaintext -max-time 60 "$@" 2>&1; }
services="$service grpc.health.v1.Health grpc.reflection.v1.ServerReflection grpc.reflection.v1alpha.ServerReflection"
check "grpcurl, reflection: list" "^$services $" "$(reflect "$ADDRESS" list)"
check "grpcurl, reflection: list of a service" "$service.Exec .* $service.TouchWorkload $" \
  "$(reflect "$ADDRESS" list "$service")"
check "grpcurl, reflection: describe" 'rpc Exec \( stream .*ExecRequest \) returns \( stream .*ExecResponse \);' \
  "$(reflect "$ADDRESS" describe "$service")"
check "grpcurl, reflection: describe a message" 'oneof msg \{ .*ExecStartRequest start = 1; .*ExecResize resize = 3;' \
  "$(reflect "$ADDRESS" describe agynio.api.runner.v1.ExecRequest)"
check "grpcurl, reflection: call" '^\{ "status": "ok" \} $' "$(reflect "$ADDRESS" "$service/Ready")"
check "grpcurl, reflection: a name that is not there" 'Symbol not found: agynio.api.nothing' \
  "$(reflect "$ADDRESS" describe agynio.api.nothing)"
check "buf curl: list" "^$services $" "$(buf_curl --list-services "http://$ADDRESS")"
for protocol in grpc grpcweb connect; do
  for version in grpc-v1 grpc-v1alpha; do
    check "buf curl by $protocol, reflection by $version" '^\{ "status": "ok" \} $' \
      "$(buf_curl --protocol "$protocol" --reflect-protocol "$version" -d '{}' "http://$ADDRESS/$service/Ready")"
  done
done

# Health ----------------------------------------------------------------------------------------------------------------
for name in "" "$service"; do
  check "grpc-health-probe: ${name:-the server}" '^status: SERVING $' \
    "$("$probe" -addr "$ADDRESS" -service "$name" 2>&1)"
done
check "grpc-health-probe: an unknown service" 'NotFound' "$("$probe" -addr "$ADDRESS" -service nothing 2>&1)"
for http in http1 http2; do
  if [ "$http" = http1 ]; then version=1.1; else version=2; fi
  for page in healthz readyz; do
    check "curl, HTTP/$version: /$page" "^ok HTTP $version 200 $" "$("$http" "http://$ADDRESS/$page")"
  done
done

echo "smoke: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
