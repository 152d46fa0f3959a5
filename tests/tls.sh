#!/usr/bin/env bash
# TLS and client certificates as other people's tools see them: grpcurl, buf curl, grpc-health-probe, curl and openssl, with
# certificates that openssl makes and that are renewed while the runner serves. Starts a runner of its own, which has no
# cluster. Needs openssl, curl, and Go to install tools, into tests/gen; takes half a minute, as files are read every 10 s.
# The last line is `tls: N passed, N failed`; exits 1 when any check failed.
set -uo pipefail
cd "$(dirname "$0")/.."
. tests/tools.sh

dir=$(mktemp -d)
runner=
trap '[ -n "$runner" ] && kill "$runner" 2>/dev/null; rm -rf "$dir"' EXIT

ca() { # name
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$dir/$1.key" -out "$dir/$1.crt" \
    -subj "/CN=$1" -days 2 2>/dev/null
}
issue() { # name, CA, days
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$dir/$1.key" -subj "/CN=$1" 2>/dev/null |
    openssl x509 -req -CA "$dir/$2.crt" -CAkey "$dir/$2.key" -CAcreateserial -days "$3" -out "$dir/$1.crt" \
      -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
}
ca servers && ca clients && ca others
issue first servers 2 && issue second servers 2 && issue client clients 2 && issue expired clients -1 && issue stranger others 2

# A Secret as the kubelet mounts it: links to a directory behind a link, which is replaced.
mounted=$dir/mounted
mount_secret() { # certificate, key
  local version
  version=$(mktemp -d "$mounted/..XXXXXX")
  cp "$dir/$1.crt" "$version/tls.crt" && cp "$dir/$2.key" "$version/tls.key" && cp "$dir/clients.crt" "$version/ca.crt"
  ln -s "${version##*/}" "$mounted/..data_tmp" && mv -T "$mounted/..data_tmp" "$mounted/..data"
}
mkdir "$mounted" && mount_secret first first
for file in tls.crt tls.key ca.crt; do ln -s "..data/$file" "$mounted/$file"; done

start() { # more environment
  env -i PATH="$PATH" KUBE_NAMESPACE=workloads KUBECONFIG="$PWD/tests/support/nowhere.yaml" GRPC_ADDR=127.0.0.1:0 \
    TLS_CERT_FILE="$mounted/tls.crt" TLS_KEY_FILE="$mounted/tls.key" "$@" \
    node_modules/.bin/bun src/main.ts 2>"$dir/log" &
  runner=$!
  until_logged 'gRPC server starting' || exit 1
  port=$(grep -oE '"addr":"127\.0\.0\.1:[0-9]+"' "$dir/log" | grep -oE '[0-9]+"$' | tr -d '"')
  address=127.0.0.1:$port
}
stop() {
  kill "$runner"
  wait "$runner"
  check "ends with status 0" '^0 $' "$?"
  runner=
}
until_logged() { # expression
  for _ in $(seq 300); do
    grep -qE -- "$1" "$dir/log" && return
    sleep 0.1
  done
  echo "tls: not in the log: $1"
  cat "$dir/log"
  return 1
}

service=agynio.api.runner.v1.RunnerService
trust=(-cacert "$dir/servers.crt")
show() { echo -cert "$dir/$1.crt" -key "$dir/$1.key"; }
ready() { "$grpcurl" -max-time 20 "$@" "$address" "$service/Ready" 2>&1; }
ok='^\{ "status": "ok" \} $'
subject() { openssl s_client -connect "$address" -alpn h2 </dev/null 2>/dev/null | openssl x509 -noout -subject 2>&1; }

# TLS ------------------------------------------------------------------------------------------------------------------
start
check "grpcurl: call" "$ok" "$(ready "${trust[@]}")"
check "grpcurl: list" "^$service grpc.health.v1.Health " "$("$grpcurl" "${trust[@]}" "$address" list 2>&1)"
check "grpcurl: another CA is not trusted" 'certificate signed by unknown authority' "$(ready -cacert "$dir/others.crt")"
check "grpcurl: cleartext is refused" 'Failed to dial|connection error|EOF|reset' "$(ready -plaintext)"
check "buf curl" "$ok" \
  "$(buf_curl --cacert "$dir/servers.crt" -d '{}' "https://$address/$service/Ready")"
check "grpc-health-probe: this runner has no cluster" 'service unhealthy \(responded with "NOT_SERVING"\)' \
  "$("$probe" -addr "$address" -tls -tls-ca-cert "$dir/servers.crt" 2>&1)"
for version in 1.1 2; do
  flag=--http$version
  check "curl, HTTP/$version: /healthz" "^ok $version 200 $" \
    "$(curl -sS "$flag" --cacert "$dir/servers.crt" -w ' %{http_version} %{http_code}' "https://$address/healthz" 2>&1)"
done
for version in 1.2 1.3; do
  check "curl, TLS $version: /readyz" '^the cache has not synced 503 $' \
    "$(curl -sS --tlsv$version --tls-max $version --cacert "$dir/servers.crt" -w ' %{http_code}' "https://$address/readyz" 2>&1)"
done
check "curl, TLS 1.1 is refused" 'alert protocol version' \
  "$(curl -sS --tlsv1.0 --tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0 --cacert "$dir/servers.crt" "https://$address/healthz" 2>&1)"
check "openssl: the certificate" 'CN = first' "$(subject)"
mount_secret second second
until_logged '"subject":"CN=second".*TLS certificate in use' || failed=$((failed + 1))
check "openssl: the renewed certificate, after the links were swapped" 'CN = second' "$(subject)"
mount_secret first second
until_logged 'is not that of .*TLS files are not taken' || failed=$((failed + 1))
check "openssl: a pair that does not fit is not taken" 'CN = second' "$(subject)"
check "grpcurl: call, after all that" "$ok" "$(ready "${trust[@]}")"
stop

# Client certificates ----------------------------------------------------------------------------------------------------
mount_secret first first
start TLS_CLIENT_CA_FILE="$mounted/ca.crt"
refused='Failed to dial|certificate required|bad certificate|handshake failure|connection error|EOF|reset|closed|Unavailable'
# shellcheck disable=SC2046
check "grpcurl: a certificate of the CA" "$ok" "$(ready "${trust[@]}" $(show client))"
check "grpcurl: without a certificate" "$refused" "$(ready "${trust[@]}")"
for name in expired stranger; do
  # shellcheck disable=SC2046
  check "grpcurl: a certificate that is $name" "$refused" "$(ready "${trust[@]}" $(show $name))"
done
check "buf curl: a certificate of the CA" "$ok" "$(buf_curl --cacert "$dir/servers.crt" --cert "$dir/client.crt" \
  --key "$dir/client.key" -d '{}' "https://$address/$service/Ready")"
check "grpc-health-probe: a certificate of the CA" 'responded with "NOT_SERVING"' \
  "$("$probe" -addr "$address" -tls -tls-ca-cert "$dir/servers.crt" -tls-client-cert "$dir/client.crt" \
    -tls-client-key "$dir/client.key" 2>&1)"
check "curl: without a certificate there is no page either" '^000 $' \
  "$(curl -s --cacert "$dir/servers.crt" -o "$dir/page" -w '%{http_code}' "https://$address/healthz" 2>&1)"
check "the log holds no key" '^0 $' "$(grep -c 'BEGIN' "$dir/log")"
stop

echo "tls: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
