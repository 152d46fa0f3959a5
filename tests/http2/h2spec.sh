#!/usr/bin/env bash
# Runs h2spec, a suite for HTTP/2 (RFC 7540) and HPACK (RFC 7541), against the runner's listener. Needs Go; what it installs goes to
# tests/gen. The last line is `h2spec: N passed, N failed`; exits 1 when a case failed that is not known to, or the suite could
# not run. Arguments are passed on to it (names of sections, `-v`).
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/node_modules/.bin:$PATH"

version=v2.2.1
gen=$PWD/tests/gen/h2spec-$version
if [ ! -x "$gen/h2spec" ]; then
  # From before modules: it names no versions of what it is built from, so they are pinned here.
  module=$(mktemp -d)
  (
    cd "$module"
    go mod init h2spec
    go get "github.com/summerwind/h2spec@$version+incompatible" golang.org/x/net@v0.62.0 github.com/spf13/cobra@v1.10.2 github.com/fatih/color@v1.19.0
    GOBIN=$gen go install github.com/summerwind/h2spec/cmd/h2spec
  ) >/dev/null 2>&1
  rm -rf "$module"
fi

# What the suite wants and this listener does not do, on purpose:
# - that what is no preface is cut off: it may be HTTP/1.1, and is answered as that;
# - that a stream that depends on itself is an error: RFC 9113 takes priorities out, and they are not read.
known="Sends invalid connection preface
Sends HEADERS frame that depend on itself
Sends PRIORITY frame that depend on itself"

out=$(mktemp) server=$(mktemp)
bun tests/http2/h2spec.ts >"$server" &
pid=$!
trap 'kill $pid; rm -f "$out" "$server"' EXIT
until [ -s "$server" ]; do kill -0 $pid && sleep 0.1; done
"$gen/h2spec" -h 127.0.0.1 -p "$(cat "$server")" "$@" | tee "$out" || true

passed=$(sed -nE "s/^[0-9]+ tests, ([0-9]+) passed.*/\1/p" "$out")
# Failures are told once more at the end.
failed=$(sed -n '/^Failures:/,$p' "$out" | sed -nE 's/^ *× [0-9]+: (.*[^ ]) *$/\1/p' | grep -vcxF "$known" || true)
echo "h2spec: ${passed:-0} passed, $failed failed"
[ "${passed:-0}" -gt 0 ] && [ "$failed" -eq 0 ]
