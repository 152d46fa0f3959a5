#!/usr/bin/env bash
# The model test at length: five seeds, ten minutes each, one after the other; on the embedded cluster, or on the real one
# that E2E_KUBECONFIG and E2E_NAMESPACE name, with client-go as the witness (needs Go). Any seed can be given, to replay it.
#   tests/model/long.sh [SECONDS [SEED...]]
set -euo pipefail
cd "$(dirname "$0")/../.."
export MODEL_SECONDS=${1:-600}
shift || true
[ $# -gt 0 ] || set -- 1 2 3 4 5
if [ -n "${E2E_KUBECONFIG:-}" ]; then
  export MODEL_RECORDER=$PWD/dist/recorder
  (cd tests/model/recorder && go build -o "$MODEL_RECORDER" .)
fi
failed=0
for seed in "$@"; do
  MODEL_SEED=$seed node_modules/.bin/bun test tests/model/model.test.ts || failed=1
done
exit "$failed"
