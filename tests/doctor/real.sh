#!/usr/bin/env bash
# Breaks things on a real cluster one at a time and expects doctor to name exactly each (real.e2e.ts). E2E_KUBECONFIG is the admin
# access to a cluster that runs Pods; one of its volumes is used up.
# The last line is `doctor: N passed, N failed`; exits 1 when any check failed or could not run.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
: "${E2E_KUBECONFIG:?admin access to a cluster}"
log=$(mktemp)
# Doctor's access is the kubeconfig that it is given, whatever this machine looks like.
env -u KUBERNETES_SERVICE_HOST -u KUBECONFIG node_modules/.bin/bun test ./tests/doctor/real.e2e.ts 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
passed=$(sed -nE 's/^ *([0-9]+) pass$/\1/p' "$log" | tail -n 1)
failed=$(sed -nE 's/^ *([0-9]+) fail$/\1/p' "$log" | tail -n 1)
rm -f "$log"
[ "$status" -eq 0 ] || [ "${failed:-0}" -gt 0 ] || failed=1 # it did not run whole
echo "doctor: ${passed:-0} passed, ${failed:-0} failed"
[ "${failed:-0}" -eq 0 ] && [ "${passed:-0}" -gt 0 ]
