# Stage `build`: a static binary and what it needs of a file system, laid out under /image by the same script that
# does it where no engine runs; `--build-context build=DIR` then takes the place of this stage.
ARG RUST_VERSION=1.95
FROM docker.io/library/rust:${RUST_VERSION}-slim-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates make musl-tools \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# Builds for the architecture it runs on: one native builder each, no emulation (it takes hours).
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    k8s/image.sh layout /image

FROM scratch
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Pilothouse" \
      org.opencontainers.image.description="Run your Kubernetes cluster from an end-to-end-encrypted Matrix room" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# By number: Kubernetes can only verify `runAsNonRoot` of a number, and there is no /etc/passwd.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pilothouse"]
