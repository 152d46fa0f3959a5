# shellcheck shell=bash
# Sourced by scripts that look at a runner with other people's tools: those tools, installed into tests/gen by Go when they
# are not there, and a check that counts.

# Installs a Go program once; prints its path.
tool() { # package@version
  local name=${1##*/} dir
  name=${name%@*}
  dir=$PWD/tests/gen/$name-${1##*@}
  [ -x "$dir/$name" ] || GOBIN=$dir go install "$1" || return 1
  echo "$dir/$name"
}
grpcurl=$(tool github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4) || exit 1
probe=$(tool github.com/grpc-ecosystem/grpc-health-probe@v0.4.61) || exit 1
buf_curl() { node_modules/.bin/bun node_modules/@bufbuild/buf/bin/buf curl --http2-prior-knowledge "$@" 2>&1; }

passed=0 failed=0

# Passes when the output, as one line, matches the extended regular expression; shows it when not.
check() { # name, expression, output
  local line
  line=$(tr '\n\0' '  ' <<<"$3" | tr -s ' ')
  if grep -aEq -- "$2" <<<"$line"; then
    passed=$((passed + 1))
    echo "ok   $1"
  else
    failed=$((failed + 1))
    printf 'FAIL %s\n  expected %s\n  got      %s\n' "$1" "$2" "$line"
  fi
}

