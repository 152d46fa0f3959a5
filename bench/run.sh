#!/usr/bin/env bash
# Measures the runner as it ships, each row beside its baselines in the same run, prints a table as it goes and, once all rows are
# through, and streams apart from the cluster where that can be done (apart.sh), writes docs/performance.md and docs/performance.svg.
# The cluster is found as the runner finds it (inside of a Pod, KUBECONFIG, ~/.kube/config); the workload that is measured
# goes to KUBE_NAMESPACE and is removed at the end. Needs Go, and kubectl (KUBECTL names another one); what is built goes to
# dist/bench.
# Arguments: flags of the load generator (-h lists them), then names of rows; none measures all. With --quick, one round of each
# row is taken and nothing written; with -wire first, the wire alone is measured, without a cluster. With LONG_LOG_BYTES, a log of that
# length is read as well, apart: the kubelet must keep so much in one file (containerLogMaxSize).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:$PATH"

[ -d node_modules ] && [ -d src/gen ] || npx --yes bun@1.4.5 run --silent setup
bun run --silent compile >/dev/null
mkdir -p dist/bench
export GOBIN="$PWD/dist/bench"
(cd bench/load && go install google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc)
bun node_modules/@bufbuild/buf/bin/buf generate --template bench/buf.gen.yaml --path proto/agynio/api/runner
(cd bench/load && go build -o "$GOBIN/load" .)

export BUN_JSC_forceRAMSize=134217728 BUN_JSC_minEdenToOldGenerationRatio=0.15 BUN_JSC_useFTLJIT=0 # as the image has it
if [ "${1:-}" = -wire ]; then exec dist/bench/load "$@"; fi
# Credentials go through the pipe, so that they stand in no file and no argument list.
status=0
bun bench/access.ts | dist/bench/load -json dist/bench/figures.json "$@" || status=$?
if [ $# -eq 0 ]; then
  rm -f dist/bench/apart.json # of an earlier run
  apart=0
  bash bench/apart.sh -json dist/bench/apart.json -long-log-bytes "${LONG_LOG_BYTES:-0}" exec-stdout exec-stdin log-read log-tail || apart=$?
  [ "$apart" -eq 3 ] || [ "$status" -ne 0 ] || status=$apart
  bun bench/report.ts dist/bench/figures.json $([ ! -f dist/bench/apart.json ] || echo dist/bench/apart.json)
fi
exit "$status"
