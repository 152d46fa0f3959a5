#!/usr/bin/env bash
# Stand-ins for the images that the Containerfile builds on, where Debian's and npm's packages are reached but no image
# registry: Debian by debootstrap, and with Bun or Go in it where the name promises that. What is there already is kept.
# Sourced by assemble.sh, which sets up buildah's storage; sets `bases`, the build arguments that use the stand-ins.

certificates=/etc/ssl/certs/ca-certificates.crt # this machine's: the registries it reaches may have their own

has() { buildah inspect --type image "localhost/$1" >/dev/null 2>&1; }

if ! has debian; then
  tree=$(mktemp -d)
  debootstrap --variant=minbase bookworm "$tree" >&2
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
  container=$(buildah from scratch)
  buildah copy --quiet "$container" "$tree" / >/dev/null
  buildah commit --quiet --rm "$container" localhost/debian >/dev/null
  rm -rf "$tree"
fi

derive() { # name, command that fills the container given to it
  has "$1" && return
  local container
  container=$(buildah from --pull-never localhost/debian)
  buildah copy --quiet "$container" "$certificates" "$certificates" >/dev/null
  buildah config --env NODE_EXTRA_CA_CERTS=$certificates --env SSL_CERT_FILE=$certificates "$container"
  "$2" "$container" >/dev/null
  buildah commit --quiet --rm "$container" "localhost/$1" >/dev/null
}
with_bun() { buildah copy --quiet "$1" "$(readlink -f node_modules/bun/bin/bun.exe)" /usr/local/bin/bun; }
with_go() {
  buildah copy --quiet "$1" "$(go env GOROOT)" /usr/local/go
  buildah config --env PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --env GOPROXY="$(go env GOPROXY)" --env GOSUMDB="$(go env GOSUMDB)" --env GOTOOLCHAIN=local "$1"
}
derive bun with_bun
bases=(--build-arg DEBIAN_IMAGE=localhost/debian --build-arg BUN_IMAGE=localhost/bun)
if [ "${target:-}" != runner ]; then derive golang with_go; fi
bases+=(--build-arg GO_IMAGE=localhost/golang)
