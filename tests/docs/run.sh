#!/usr/bin/env bash
# Runs the commands of the documents: every block marked `sh`, in its order, one shell for each document. What cannot run here is
# marked in the document, by `<!-- not run: reason -->` before the block, and listed.
#   run.sh [document...]      by default README.md, .github/CONTRIBUTING.md, docs/*.md and the chart's README
# KUBECONFIG is the admin access to a cluster that runs Pods and has no namespace agyn-platform or agyn-workloads; CONTAINERD the
# socket of its node's containerd, on this machine. The image is taken from there or else built (tests/image/assemble.sh).
# Instead of what is told to be installed from a registry the chart and image of this clone are installed.
# The last line is `docs: N passed, N failed`; exits 1 when any block failed or could not run.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
: "${KUBECONFIG:?admin access to a cluster}"
containerd=${CONTAINERD:-/run/cluster-containerd/containerd.sock}
bun=$PWD/node_modules/.bin/bun
unset KUBERNETES_SERVICE_HOST # whoever reads the documents is outside of the cluster
work=$(mktemp -d)
passed=0 failed=0 listed=0

go_tool() { # package@version, directory below tests/gen
  [ -x "tests/gen/$2/$(basename "${1%@*}")" ] || GOBIN="$PWD/tests/gen/$2" go install "$1" || exit 1
  export PATH="$PWD/tests/gen/$2:$PATH"
}
go_tool helm.sh/helm/v3/cmd/helm@v3.19.0 helm-v3.19.0
export PATH="$PWD/node_modules/.bin:$PATH" # buf
go_tool github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4 grpcurl-v1.9.4

namespaces=(agyn-platform agyn-workloads)
remove() { kubectl delete namespace "${namespaces[@]}" --ignore-not-found --timeout=120s >/dev/null 2>&1; }
finish() {
  remove
  rm -rf "$work"
  echo "docs: $passed passed, $failed failed"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
if [ -n "$(kubectl get namespace "${namespaces[@]}" --ignore-not-found --output name)" ]; then
  echo "namespace ${namespaces[0]} or ${namespaces[1]} is in use"
  exit 1
fi
trap 'finish; exit $?' EXIT

image=ghcr.io/agynio/k8s-runner:dev
if ! ctr --address "$containerd" --namespace k8s.io images list --quiet | grep -qxF "$image"; then
  tests/image/assemble.sh dist/image.tar >/dev/null 2>&1
  ctr --address "$containerd" --namespace k8s.io images import dist/image.tar >/dev/null || exit 1
fi

# In the shell of each document, before its first block.
cat >"$work/before.sh" <<'EOF'
set -E
exec </dev/null
trap 'echo "     status $?: $BASH_COMMAND"; block_failed=1' ERR

# What a document that names the release takes for granted: this clone, where no block of it could install another one.
install_clone() {
  kubectl get deployment --namespace agyn-platform k8s-runner >/dev/null 2>&1 && return
  kubectl get namespace agyn-workloads >/dev/null 2>&1 || kubectl create namespace agyn-workloads
  kubectl wait --namespace agyn-workloads --for=create serviceaccount/default --timeout=30s
  helm upgrade --install k8s-runner charts/k8s-runner --namespace agyn-platform --create-namespace --wait --timeout 120s \
    --set fullnameOverride=k8s-runner,image.tag=dev
}

# The Bun that is installed; what serves until it is ended goes on beside the document; what CI runs as a suite is not run again.
npx() {
  case "$*" in
    *" run test" | *" run check") echo "a suite of its own" ;;
    *" run start") beside '"gRPC server starting"' "$bun" "${@:3}" ;;
    *" run demo --keep") beside ListWorkloads "$bun" "${@:3}" ;;
    *) "$bun" "${@:3}" ;;
  esac
}
beside() { # what it says when it serves, command...
  : >"$work/beside.log"
  setsid "${@:2}" >"$work/beside.log" 2>&1 &
  beside+=($!)
  for _ in $(seq 300); do
    command grep -q "$1" "$work/beside.log" && return
    kill -0 $! 2>/dev/null || break
    sleep 0.1
  done
  cat "$work/beside.log"
  return 1
}
end() {
  local pid
  for pid in "${beside[@]}"; do kill -- "-$pid" 2>/dev/null; done
  for pid in $(jobs -p); do kill "$pid" 2>/dev/null; done
}
beside=()
trap end EXIT

# What is told of the executable holds for its sources.
k8s-runner() {
  case " $* " in
    *" -it "*) script -qec "$(printf '%q ' "$bun" src/main.ts "$@")" /dev/null < <(echo exit) ;; # in a terminal
    *) "$bun" src/main.ts "$@" ;;
  esac
}

# An answer that is an error is a failure; an id that is answered is the one that later commands name.
curl() {
  local said
  said=$(command curl --retry 50 --retry-connrefused --retry-delay 1 "$@") || return # a port is forwarded after a moment
  printf '%s' "$said"
  [[ $said =~ \"id\":\"([^\"]+)\" ]] && answered=${BASH_REMATCH[1]}
  [[ $said != *'"code":"'* ]]
}
# A client that comes before the port is forwarded, or before the workload runs, comes again, as a person would.
grpcurl() {
  for _ in $(seq 50); do command grpcurl "$@" >"$work/said" 2>&1 && break; sleep 0.2; done
  cat "$work/said"
  command grep -q '^ERROR:' "$work/said" && return 1
  return 0
}
EOF
# Where a person keeps the access to the cluster.
mkdir -p "$work/home/.kube"
kubectl config view --raw --minify --flatten >"$work/home/.kube/config"
export work bun

document() { # lines of the list...
  local name=${1%%:*}
  remove
  {
    echo '. "$work/before.sh"'
    for line in "$@"; do
      IFS=$'\t' read -r where path reason <<<"$line"
      [ -z "$reason" ] || continue
      if grep -q -- '--namespace agyn-platform' "$path"; then echo install_clone; fi
      sed -i "s/<the id of the answer>/'\"\$answered\"'/g" "$path"
      printf 'block_failed=0; echo "-- %s"; . %q; echo "== $block_failed %s"\n' "$where" "$path" "$where"
    done
  } >"$work/document.sh"
  HOME=$work/home timeout 400 bash "$work/document.sh" >"$work/log" 2>&1
  for line in "$@"; do
    IFS=$'\t' read -r where path reason <<<"$line"
    if [ -n "$reason" ]; then
      listed=$((listed + 1))
      echo "     $where is not run: $reason"
    elif grep -qxF "== 0 $where" "$work/log"; then
      passed=$((passed + 1))
      echo "ok   $where"
    else
      failed=$((failed + 1))
      echo "FAIL $where"
      sed -n "\\|^-- $where\$|,\\|^== . $where\$|p" "$work/log" | tail -n 40
    fi
  done
}

[ $# -gt 0 ] || set -- README.md .github/CONTRIBUTING.md docs/*.md charts/k8s-runner/README.md
for file in "$@"; do
  mapfile -t lines < <("$bun" tests/docs/blocks.ts "$work/$(basename "$file")" "$file")
  [ "${#lines[@]}" -eq 0 ] || document "${lines[@]}"
done
echo "     $listed blocks are not run"
