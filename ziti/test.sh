#!/usr/bin/env bash
# Builds, vets and tests the OpenZiti companion. Needs Go; the program goes to dist/k8s-runner-ziti.
# The last line is `ziti: N passed, N failed`, where build, format and vet count as one test each.
set -uo pipefail
cd "$(dirname "$0")"
passed=0 failed=0

check() { # name, command...
  local name=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "ziti: $name failed"; fi
}
formatted() { [ -z "$(gofmt -l . | tee /dev/stderr)" ]; }

check build env CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o ../dist/k8s-runner-ziti .
check format formatted
check vet go vet ./...

check companion bash -c 'cd .. && node_modules/.bin/bun test ./tests/ziti.e2e.ts'

output=$(go test -v ./... 2>&1)
status=$?
grep -v "^=== RUN" <<<"$output"
passed=$((passed + $(grep -c "^--- PASS" <<<"$output")))
wrong=$(grep -c "^--- FAIL" <<<"$output")
# Tests that end badly without one of them failing have not run whole.
if [ "$status" -ne 0 ] && [ "$wrong" -eq 0 ]; then wrong=1; fi
failed=$((failed + wrong))
echo "ziti: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
