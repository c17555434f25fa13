#!/bin/sh
# Builds the container image: what `make image` runs.
#
#   k8s/image.sh            with a Docker engine by buildx, whole Dockerfile; without one the static binary is built
#                           here and buildah builds the last stage of the same Dockerfile
#   k8s/image.sh prepare    installs what the way without an engine needs, and prints the target triple of the binary: for
#                           the continuous integration, which compiles everything for that one target
#   k8s/image.sh binary     builds the static binary alone and prints its path
#   k8s/image.sh layout DIR builds the static binary and lays the image's file system out in DIR
#   k8s/image.sh tag        prints name:version
#
# IMAGE                     name to build (default: pilothouse); the tag is the version in Cargo.toml, always
# PUSH=1                    pushes it: with buildx with provenance (mode=max) and SBOM, which cannot be loaded locally
# PILOTHOUSE_IMAGE_PROFILE  cargo profile (default: release); `dev` compiles in half the time, for tests
# PILOTHOUSE_IMAGE_ENGINE   docker or buildah, instead of looking for a running engine
set -eu
cd "$(dirname "$0")/.."

profile=${PILOTHOUSE_IMAGE_PROFILE:-release}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
image=${IMAGE:-pilothouse}:$version

die() {
    echo "image.sh: $*" >&2
    exit 1
}

# Installs Debian packages, as root; otherwise says which.
need() {
    program=$1
    shift
    command -v "$program" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update && apt-get install --yes "$@"; } >&2 ||
            die "apt-get could not install $*"
    else
        die "$program is missing: install it ($*: the names of the Debian packages) and run again"
    fi
}

# Installs what compiling a static binary needs.
toolchain() {
    target=$(uname -m)-unknown-linux-musl
    need musl-gcc musl-tools
    command -v rustup >/dev/null && rustup target add "$target" >&2
    export "CC_$(echo "$target" | tr - _)=musl-gcc"
}

# Compiles the static binary and names its path.
compile() {
    toolchain
    # Nobody debugs in an image without a shell; line tables would make the dev profile's binary ten times as large.
    export CARGO_PROFILE_DEV_DEBUG=none CARGO_PROFILE_DEV_STRIP=symbols
    # Relocations, packed, are a hundredth of what they are: 2 MB less to ship and to read at the start.
    [ "$profile" = dev ] || export RUSTFLAGS="${RUSTFLAGS:-} -C link-arg=-Wl,-z,pack-relative-relocs"
    cargo build --locked --bin pilothouse --profile "$profile" --target "$target" >&2
    folder=$profile
    [ "$profile" = dev ] && folder=debug
    built=$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    echo "$built/$target/$folder/pilothouse"
}

# Lays out DIR: the binary, the CA certificates, nothing else.
layout() {
    certificates=/etc/ssl/certs/ca-certificates.crt
    [ -s "$certificates" ] || need update-ca-certificates ca-certificates
    binary=$(compile)
    install -D -m 0755 "$binary" "$1/usr/local/bin/pilothouse"
    install -D -m 0644 "$certificates" "$1/etc/ssl/certs/ca-certificates.crt"
}

with_docker() {
    if [ "${PUSH:-0}" = 1 ]; then
        set -- --push --provenance=mode=max --sbom=true
    else
        set -- --load --provenance=false
    fi
    docker buildx build "$@" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$image" .
}

with_buildah() {
    need buildah buildah
    context=$(mktemp -d)
    trap 'rm -rf "$context"' EXIT
    layout "$context/image"
    # Works as root in a container: no overlay, no user namespace.
    [ "$(id -u)" = 0 ] && export STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}"
    buildah bud --isolation chroot --build-context "build=$context" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$image" .
    [ "${PUSH:-0}" = 1 ] && buildah push "$image"
    return 0
}

case ${1:-build} in
build)
    revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    engine=${PILOTHOUSE_IMAGE_ENGINE:-}
    if [ -z "$engine" ]; then
        if docker info >/dev/null 2>&1; then engine=docker; else engine=buildah; fi
    fi
    case $engine in
    docker) with_docker ;;
    buildah) with_buildah ;;
    *) die "PILOTHOUSE_IMAGE_ENGINE is $engine: docker or buildah" ;;
    esac
    echo "$image"
    ;;
prepare)
    need buildah buildah
    toolchain
    echo "$target"
    ;;
binary) compile ;;
layout) layout "${2:?layout needs a folder}" ;;
tag) echo "$image" ;;
*) die "unknown command $1: build, prepare, binary, layout DIR or tag" ;;
esac
