#!/usr/bin/env bash
# What Prometheus's own tool says of metrics, alerts and the dashboard's queries, and what the chart makes of them. Needs Go to
# install promtool and helm, into tests/gen, which is not committed. The last line counts; exits 1 when any check failed or could
# not run.
set -uo pipefail
cd "$(dirname "$0")/../.."
promtool=v0.316.0
helm=$(sed -nE 's/^version=(.*)$/\1/p' tests/chart/run.sh)
export PROMTOOL=$PWD/tests/gen/promtool-$promtool/promtool HELM=$PWD/tests/gen/helm-$helm/helm PATH="$PWD/node_modules/.bin:$PATH"
[ -x "$PROMTOOL" ] || GOBIN="${PROMTOOL%/*}" go install "github.com/prometheus/prometheus/cmd/promtool@$promtool" || exit 1
[ -x "$HELM" ] || GOBIN="${HELM%/*}" go install "helm.sh/helm/v3/cmd/helm@$helm" || exit 1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
bun test --timeout 60000 ./tests/metrics/promtool.e2e.ts 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
count() { sed -nE "s/^ *([0-9]+) $1\$/\1/p" "$log" | tail -n 1; }
passed=$(count pass) failed=$(count fail)
echo "metrics: ${passed:-0} passed, ${failed:-0} failed"
exit "$status"
