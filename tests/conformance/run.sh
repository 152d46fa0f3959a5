#!/usr/bin/env bash
# Runs connectrpc's conformance suite against the runner's listener and adapter (server.ts). Needs Go; what it installs
# and compiles goes to tests/gen, which is not committed. Arguments are passed on to the suite (`--run`, `--trace`, `-v`).
# The last line is `conformance: N passed, N failed`; exits 1 when any case failed or the suite could not run.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=v1.0.7
gen=tests/gen/conformance-$version
suite=$gen/connectconformance
export PATH="$PWD/node_modules/.bin:$PATH"

if [ ! -x "$suite" ] || [ ! -f "$gen/protos.binpb" ]; then
  mkdir -p "$gen"
  GOBIN="$PWD/$gen" go install "connectrpc.com/conformance/cmd/connectconformance@$version"
  # The suite's .proto files lie in the module that was just installed.
  module=$(cd / && go mod download -json "connectrpc.com/conformance@$version" | bun -p 'JSON.parse(await Bun.stdin.text()).Dir')
  bun node_modules/@bufbuild/buf/bin/buf build "$module/proto" --as-file-descriptor-set -o "$gen/protos.binpb"
fi

status=0
"$suite" --mode server --conf tests/conformance/config.yaml --known-failing @tests/conformance/known-failing.txt "$@" -- \
  bun tests/conformance/server.ts "$gen/protos.binpb" | tee "$gen/output.txt" || status=$?

# "4 passed, 0 failed" ends the suite's own report.
passed=$(sed -nE 's/^([0-9]+) passed, [0-9]+ failed.*/\1/p' "$gen/output.txt" | tail -n 1)
failed=$(sed -nE 's/^[0-9]+ passed, ([0-9]+) failed.*/\1/p' "$gen/output.txt" | tail -n 1)
if [ -z "$passed" ] || [ "${passed:-0}" -eq 0 ] || [ "${failed:-1}" -ne 0 ]; then status=1; fi
echo "conformance: ${passed:-0} passed, ${failed:-0} failed"
exit "$status"
