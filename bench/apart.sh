#!/usr/bin/env bash
# As run.sh, with the cluster of this machine held to its first core and the runner, the load and the raw client to the others, as
# they are on machines of their own: where all share the same busy cores, what a runner takes is taken from the cluster.
# Linux only, and as root; afterwards every process may run everywhere again. Arguments: those of run.sh; here, rows must be named.
# Exits with 3 where that cannot be done.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "name the rows" >&2; exit 2; }
last=$(($(nproc) - 1))
[ "$last" -gt 0 ] || { echo "one core cannot be shared out" >&2; exit 3; }
[ "$(id -u)" = 0 ] && command -v taskset >/dev/null || { echo "only root can share out cores, with taskset" >&2; exit 3; }

# Also what runs in containers: their shims come from containerd, and are the parents of all that is started in them.
cluster=$(pgrep -d ' ' -f '(^|/)(kube-apiserver|etcd|kubelet|kube-controller-manager|kube-scheduler|containerd|containerd-shim[a-z0-9-]*)( |$)') ||
  { echo "no cluster runs on this machine" >&2; exit 3; }
hold() { for pid in $cluster; do taskset -acp "$1" "$pid" >/dev/null 2>&1 || true; done; } # one may have gone meanwhile
trap 'hold "0-$last"' EXIT
hold 0
taskset -c "1-$last" bash bench/run.sh -apart "$@"
