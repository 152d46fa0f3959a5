#!/usr/bin/env bash
# What hostile clients do, in full and with raw frames, to the runner as it is started, on the embedded cluster: see run.ts.
# The last line is `abuse: N passed, N failed`; exits 1 when anything failed. Takes about three minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/node_modules/.bin:$PATH"
bun tests/abuse/run.ts "$@"
