#!/usr/bin/env bash
# The chart and the image on a real cluster: rendered objects in a server-side dry run, then a release in namespaces of its own with
# the image that ../image/assemble.sh builds, what its process may do as the kernel tells it, and the smoke test against its Pod.
# TARGET=runner takes the image without the OpenZiti companion.
# E2E=1 also runs the end-to-end files that need no runner of their own against its Pod (minutes, and some 20 volumes).
# KUBECONFIG is the admin access; CONTAINERD the socket of the node's containerd, which must run on this machine.
# Needs root, Debian and Go. The last line is `install: N passed, N failed`; exits 1 when any check failed or could not run.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
: "${KUBECONFIG:?admin access to a cluster}"
containerd=${CONTAINERD:-/run/cluster-containerd/containerd.sock}
version=v3.19.0
helm=$PWD/tests/gen/helm-$version/helm
[ -x "$helm" ] || GOBIN="${helm%/*}" go install "helm.sh/helm/v3/cmd/helm@$version" || exit 1

release_ns=chart-$$ workload_ns=chart-$$-workloads
passed=0 failed=0
ok() {
  passed=$((passed + 1))
  echo "ok   $1"
}
bad() { # name, what was seen
  failed=$((failed + 1))
  printf 'FAIL %s\n%s\n' "$1" "${2:-}"
}
# Passes when the command does; shows what it said when not.
check() { # name, command...
  local said
  if said=$("${@:2}" 2>&1); then ok "$1"; else bad "$1" "$said"; fi
}
finish() {
  kubectl delete namespace "$release_ns" "$workload_ns" --ignore-not-found --wait=false >/dev/null 2>&1
  echo "install: $passed passed, $failed failed"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
trap 'finish; exit $?' EXIT

# A namespace has its default ServiceAccount a moment later; Pods before that are refused.
for ns in "$release_ns" "$workload_ns"; do
  kubectl create namespace "$ns" >/dev/null && kubectl -n "$ns" wait --for=create serviceaccount/default --timeout=30s >/dev/null || exit 1
done
# Everything of the runner itself meets the strictest of the Pod Security levels.
kubectl label namespace "$release_ns" pod-security.kubernetes.io/enforce=restricted >/dev/null

chart() { # more arguments of helm template...
  "$helm" template k8s-runner charts/k8s-runner --namespace "$release_ns" --kube-version 1.34.0 \
    --set fullnameOverride=k8s-runner --set workloadNamespace="$workload_ns" "$@"
}
# `restricted` looks at Pods alone, so the dry run of a Deployment tells of a breach by a warning.
dry_run() { chart "$@" | kubectl apply --dry-run=server --warnings-as-errors -f -; }
check "dry run: defaults" dry_run
check "dry run: the values of known deployments" dry_run --values tests/chart/values/known.yaml --set 'env[0].value=agyn-workloads'
check "dry run: everything switched on" dry_run --values tests/chart/values/everything.yaml --set priorityClassName= \
  --set 'initContainers=null' --set 'extraContainers=null'

if ! said=$(tests/image/assemble.sh dist/image.tar 2>&1); then
  bad "the image is built from the Containerfile" "$said"
  exit 1
fi
ok "the image is built from the Containerfile"
check "containerd takes the image" ctr --address "$containerd" --namespace k8s.io images import dist/image.tar

# The image's own name, and nothing else than the defaults; the end-to-end files expect small claims.
more=()
[ "${E2E:-0}" = 1 ] && more=(--set 'extraEnvVars[0].name=PVC_STORAGE_SIZE,extraEnvVars[0].value=1Mi')
installed() { chart --set image.tag=dev "${more[@]}" | kubectl apply -f -; }
check "the objects are made" installed
selector=app.kubernetes.io/name=k8s-runner,app.kubernetes.io/instance=k8s-runner
in_release() { kubectl --namespace "$release_ns" "$@"; }
if ! said=$(in_release rollout status deployment/k8s-runner --timeout=120s 2>&1); then
  bad "the runner becomes ready" "$said$(in_release describe pods; in_release logs --selector "$selector" 2>&1 | tail)"
  exit 1
fi
ok "the runner becomes ready"
pod=$(in_release get pods --selector "$selector" --output name)
field() { in_release get "$pod" --output "jsonpath={$1}"; }

# What the kernel holds it to.
container=$(field '.status.containerStatuses[0].containerID')
pid=$(ctr --address "$containerd" --namespace k8s.io tasks list | awk -v id="${container##*/}" '$1 == id { print $2 }')
status() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$pid/status"; }
equals() { [ "$1" = "$2" ] || { echo "  expected $2, got $1"; false; }; }
check "it runs as the image's user" equals "$(status Uid) $(status Gid)" "65532 65532"
check "no Linux capability, not even to be gained" equals "$(status CapEff) $(status CapPrm) $(status CapBnd)" \
  "0000000000000000 0000000000000000 0000000000000000"
check "no new privileges" equals "$(status NoNewPrivs)" 1
check "system calls are filtered" equals "$(status Seccomp)" 2
check "its root file system is read-only" equals \
  "$(awk '$5 == "/" { split($6, options, ","); print options[1] }' "/proc/$pid/mountinfo")" ro
check "there is no shell in the image" equals "$(find "/proc/$pid/root/bin" "/proc/$pid/root/usr" -type f 2>/dev/null | head -n 1)" ""

# The log line that the deploy pipeline waits for, and the access of a Pod.
check "it says that it serves" grep -q '"msg":"gRPC server starting"' <(in_release logs "$pod" --tail=200)
check "it uses its ServiceAccount" grep -q '"source":"in-cluster (' <(in_release logs "$pod" --tail=200)

# All that callers do, by real tools, under the chart's Role alone.
ip=$(field .status.podIP)
log=$(mktemp)
counted() { # name, expressions that find how many passed and failed in the log, status
  local p f
  p=$(sed -nE "$2" "$log" | tail -n 1) f=$(sed -nE "$3" "$log" | tail -n 1)
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
  if [ "${p:-0}" -eq 0 ] || { [ "$4" -ne 0 ] && [ "${f:-0}" -eq 0 ]; }; then bad "$1 runs whole" "status $4"; fi
}
ADDRESS=$ip:50051 tests/smoke.sh 2>&1 | tee "$log"
counted "the smoke test" 's/^smoke: ([0-9]+) passed.*/\1/p' 's/^smoke: .* ([0-9]+) failed$/\1/p' "${PIPESTATUS[0]}"
if [ "${E2E:-0}" = 1 ]; then
  files=(archive consistency events exec exec-ends exec-errors exec-streams exec-tty exec-wrapper foreign hostile inspect lists
    logs logs-ends protocols ready start start-docker start-errors start-secrets)
  files=("${files[@]/#/./tests/e2e/}")
  E2E_ADDRESS=$ip:50051 E2E_KUBECONFIG=$KUBECONFIG E2E_NAMESPACE=$workload_ns E2E_IN_CLUSTER='' \
    node_modules/.bin/bun test --timeout 60000 "${files[@]/%/.test.ts}" 2>&1 | tee "$log"
  counted "the end-to-end files" 's/^ *([0-9]+) pass$/\1/p' 's/^ *([0-9]+) fail$/\1/p' "${PIPESTATUS[0]}"
fi

# With the chart's Role, in the runner's own Pod and beside it.
doctor() {
  local said
  said=$(in_release exec "$pod" -- /app/k8s-runner doctor 2>&1) || { echo "$said"; return 1; }
  grep -q '^ok    address: a runner answers' <<<"$said" && grep -q '^ok    exec: ' <<<"$said" || { echo "$said"; return 1; }
}
check "doctor finds nothing wrong" doctor
check "nothing was forbidden" equals "$(in_release logs "$pod" | grep -ci forbidden)" 0

# An arbitrary user, as in the development pod.
other_user() {
  in_release patch deployment k8s-runner --type=strategic --patch \
    '{"spec":{"template":{"spec":{"containers":[{"name":"k8s-runner","securityContext":{"runAsUser":1000,"runAsGroup":1000}}]}}}}' &&
    in_release rollout status deployment/k8s-runner --timeout=120s
}
check "any other user does as well" other_user

# SIGTERM ends it well, with nothing in flight at once.
stopped() {
  local name
  name=$(in_release get pods --selector "$selector" --output name)
  in_release logs "$name" --follow >"$log" 2>&1 &
  in_release delete "$name" --wait --timeout=25s && wait $! && grep -q '"msg":"shutting down"' "$log"
}
check "SIGTERM ends it within its grace" stopped
rm -f "$log"

# The development patch, twice: it is taken by a real API server, keeps the environment and takes the probes away.
# shellcheck disable=SC2016
functions=$(node_modules/.bin/bun -e 'for (const [name, body] of Object.entries(Bun.YAML.parse(await Bun.file("devspace.yaml").text()).functions))
  console.log(`${name}() {\n${body}\n}`)')
names() { in_release get deployment k8s-runner --output 'jsonpath={.spec.template.spec.containers[0].env[*].name}'; }
patched() {
  local before
  before=$(names)
  (eval "$functions" && export K8S_RUNNER_NAMESPACE=$release_ns && patch_deployment && patch_deployment) &&
    equals "$(names)" "$before CATALOG_PATH" &&
    equals "$(in_release get deployment k8s-runner --output json |
      jq -c '.spec.template.spec | [.initContainers, (.containers[0] | .livenessProbe, .readinessProbe, .args), .volumes[].name]')" \
      '[null,null,null,null,"data"]'
}
check "devspace's patch can be applied, and applied again" patched
