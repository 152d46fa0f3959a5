#!/usr/bin/env bash
# Every right of the chart's Role is needed: with any verb of it taken away an end-to-end test fails that passes with it. The runner
# under test has the ServiceAccount's token and nothing else. KUBECONFIG is the admin access to a cluster that runs Pods.
# The last line is `verbs: N passed, N failed`; exits 1 when any check failed or could not run.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
admin=${KUBECONFIG:?admin access to a cluster}
helm=$PWD/tests/gen/helm-v3.19.0/helm
[ -x "$helm" ] || GOBIN="${helm%/*}" go install helm.sh/helm/v3/cmd/helm@v3.19.0 || exit 1
export PATH="$PWD/node_modules/.bin:$PATH"

# Verb, file, and the start of a test's name in it that needs the verb. Not among them: create on pods/exec, which API servers
# ask for from 1.35 on, and watch on persistentvolumeclaims, which the platform's contract gives and nothing uses yet.
needed="
pods get|inspect|StopWorkload
pods list|consistency|behind a watch that is late
pods watch|consistency|while the API server cannot be reached
pods create|lists|GetWorkloadLabels
pods delete|lists|ListWorkloads
pods patch|start-secrets|pull credentials
pods/exec get|exec|a program runs with its arguments
pods/log get|logs|what a container wrote
persistentvolumeclaims get|lists|volumes
persistentvolumeclaims list|lists|volumes
persistentvolumeclaims create|lists|volumes
persistentvolumeclaims delete|lists|volumes
secrets create|start-secrets|pull credentials
secrets delete|foreign|Secrets that a Pod
events list|events|events of a workload
events watch|events|the stream goes on over lost connections
"

ns=verbs-$$ passed=0 failed=0
work=$(mktemp -d)
finish() {
  kubectl delete namespace "$ns" --wait=false >/dev/null 2>&1
  rm -rf "$work"
  echo "verbs: $passed passed, $failed failed"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
trap 'finish; exit $?' EXIT
# A namespace has its default ServiceAccount a moment later; Pods before that are refused.
kubectl create namespace "$ns" >/dev/null && kubectl -n "$ns" wait --for=create serviceaccount/default --timeout=30s >/dev/null || exit 1
"$helm" template k8s-runner charts/k8s-runner --namespace "$ns" --set workloadNamespace="$ns" --set fullnameOverride=k8s-runner \
  --show-only templates/rbac.yaml --show-only templates/serviceaccount.yaml | kubectl apply -f - >/dev/null || exit 1
kubectl -n "$ns" get role k8s-runner -o json >"$work/role.json"

# The runner's own access: the admin's cluster with the ServiceAccount's token.
kubectl config view --raw --minify --flatten -o json |
  TOKEN=$(kubectl -n "$ns" create token k8s-runner --duration 2h) jq '.users[0].user = {token: env.TOKEN}' >"$work/runner.conf"

# Whether this part of a file passes with the rights as they are now.
passes() { # file, start of names
  env -u KUBERNETES_SERVICE_HOST -u E2E_AUDIT_LOG E2E_KUBECONFIG="$admin" E2E_NAMESPACE="$ns" E2E_IN_CLUSTER=1 KUBECONFIG="$work/runner.conf" \
    timeout 300 bun test --timeout 20000 --bail "tests/e2e/$1.test.ts" -t "$2" >"$work/log" 2>&1
}
# Rights are granted and taken within a moment of the Role's change, once the API server has seen it.
set_role() { # jq program
  jq "$1" "$work/role.json" | kubectl replace -f - >/dev/null || exit 1
}
settled() { # yes or no, verb, resource
  for _ in $(seq 50); do
    [ "$(KUBECONFIG=$work/runner.conf kubectl -n "$ns" auth can-i "$2" "${3%%/*}" --subresource="$(cut -s -d/ -f2 <<<"$3")" 2>/dev/null)" = "$1" ] && return
    sleep 0.1
  done
  return 1
}

echo "$needed" | grep . >"$work/needed"
cut -d'|' -f2,3 "$work/needed" | sort -u >"$work/parts"
while IFS='|' read -r file name; do
  if passes "$file" "$name"; then passed=$((passed + 1)); echo "ok   with all rights: $file $name"; else
    failed=$((failed + 1))
    echo "FAIL with all rights: $file $name"
    tail -n 40 "$work/log"
  fi
done <"$work/parts"
while IFS='|' read -r right file name; do
  read -r resource verb <<<"$right"
  set_role '(.rules[] | select(.resources == ["'"$resource"'"]) | .verbs) -= ["'"$verb"'"] | del(.rules[] | select(.verbs == [])) | del(.metadata.resourceVersion)'
  if ! settled no "$verb" "$resource"; then
    failed=$((failed + 1))
    echo "FAIL $right could not be taken away"
  elif E2E_WITHIN_MS=15000 passes "$file" "$name"; then # or the watcher's next list, after 30 s, tells what no watch did
    failed=$((failed + 1))
    echo "FAIL without $right: $file $name passes all the same"
  else
    passed=$((passed + 1))
    echo "ok   without $right: $(grep -m 1 -a '^(fail)' "$work/log")"
  fi
  set_role 'del(.metadata.resourceVersion)'
  settled yes "$verb" "$resource"
done <"$work/needed"
