#!/usr/bin/env bash
# The chart as helm lints and renders it. Needs Go to install helm, into tests/gen, which is not committed.
# Ends with `bun test`'s own lines; exits 1 when any check failed or could not run.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=v3.19.0
export HELM=$PWD/tests/gen/helm-$version/helm PATH="$PWD/node_modules/.bin:$PATH"
[ -x "$HELM" ] || GOBIN="${HELM%/*}" go install "helm.sh/helm/v3/cmd/helm@$version"
bun test --timeout 60000 ./tests/chart/contract.e2e.ts ./tests/chart/sets.e2e.ts ./tests/chart/values.e2e.ts
