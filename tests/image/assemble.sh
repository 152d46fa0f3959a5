#!/usr/bin/env bash
# Builds the Containerfile itself with buildah, without an image registry (see bases.sh), and writes the image as an archive that
# `ctr images import` and `docker load` take. Needs root and Debian; installs buildah and debootstrap.
#   assemble.sh [archive]     by default dist/image.tar
# TARGET: a stage of the Containerfile (`runner` is the image without the OpenZiti companion); unset: the last.
# ARCH: amd64 or arm64; unset: this machine's. MEASURE=1 prints the compressed sizes too (minutes).
set -euo pipefail
cd "$(dirname "$0")/../.."
archive=${1:-dist/image.tar}
target=${TARGET:-}
arch=${ARCH:-$(dpkg --print-architecture)}
name=ghcr.io/agynio/k8s-runner:dev

for program in buildah debootstrap; do
  command -v "$program" >/dev/null && continue
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends buildah debootstrap >/dev/null
done

gen=$PWD/dist/image # not below tests/, where sources in the layers would be checked and run
mkdir -p "$gen" "$(dirname "$archive")"
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/storage"\nrunroot = "%s/run"\n' "$gen" "$gen" >"$gen/storage.conf"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$gen/policy.json"
export CONTAINERS_STORAGE_CONF=$gen/storage.conf BUILDAH_ISOLATION=chroot

# shellcheck source=tests/image/bases.sh
. tests/image/bases.sh
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# The target's name alone, not --platform: with it buildah looks for bases of that platform, which the build does not use.
buildah build --quiet --pull-never --signature-policy "$gen/policy.json" --build-arg TARGETARCH="$arch" "${bases[@]}" \
  ${target:+--target "$target"} --build-arg VERSION=dev --build-arg REVISION="$revision" --tag "$name" --file Containerfile . >/dev/null
if [ "$arch" != "$(dpkg --print-architecture)" ]; then
  container=$(buildah from --pull-never "$name")
  buildah config --arch "$arch" "$container"
  buildah commit --quiet --rm "$container" "$name" >/dev/null
fi
buildah rmi --prune >/dev/null # what earlier builds left
rm -f "$archive"
buildah push --quiet --signature-policy "$gen/policy.json" "$name" "docker-archive:$archive:$name"

files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
tar -xf "$archive" -C "$files"
layers=$(find "$files" -name '*.tar' ! -type l)
# shellcheck disable=SC2086
echo "image: $name linux/$arch ${target:-whole}, $(cat $layers | wc -c) bytes of files"
if [ "${MEASURE:-0}" = 1 ]; then
  # gzip objects to the layers' time stamps by a status of 2.
  for by in 'gzip -6 -n' 'zstd -3' 'zstd -19 -T0'; do
    sum=0
    for layer in $layers; do sum=$((sum + $($by -c <"$layer" | wc -c))); done
    echo "image: $by: $sum bytes"
  done
fi
