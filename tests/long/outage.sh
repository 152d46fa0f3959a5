#!/usr/bin/env bash
# Takes the API server of a cluster of ../shared/cluster/up.sh (its state in $D) away for 20 s and compacts etcd meanwhile:
# for E2E_OUTAGE of watcher.e2e.ts. The server that comes back remembers no version of before: watches from one get 410.
set -euo pipefail
D=${D:-$HOME/.cluster} BIN=${BIN:-$HOME/.cache/kube-1.34.4} ETCD=http://127.0.0.1:2389
export PATH=$BIN:$PATH
cd "$D"
pid=$(cat apiserver.pid)
kill -KILL "$pid" # a graceful end would wait for every watch
while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
revision=$(curl -fsS "$ETCD/v3/kv/range" -d '{"key":"AA==","limit":"1"}' | grep -oE '"revision":"[0-9]+"' | grep -oE '[0-9]+')
curl -fsS "$ETCD/v3/kv/compaction" -d "{\"revision\":\"$revision\",\"physical\":true}" >/dev/null
sleep "${SECONDS_AWAY:-15}"
eval "setsid nohup $(cat apiserver.cmd) >>log/apiserver.log 2>&1 &"
echo $! >apiserver.pid
until kubectl --kubeconfig admin.conf get --raw /readyz >/dev/null 2>&1; do sleep 0.3; done
