# Everything that people and the continuous integration run. What is slow to make stands once in $(CACHE), under a name
# that holds the hash of its pinned versions.

CACHE ?= $(or $(PILOTHOUSE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pilothouse)
DENY := 0.20.2

hash = $(shell sha256sum $(1) | cut -c1-16)
CONTROL_PLANE := $(CACHE)/control-plane-$(call hash,tests/control-plane/go.sum)
PYTHON := $(CACHE)/python-$(call hash,tests/requirements.txt)
PREDECESSOR := $(CACHE)/predecessor-$(call hash,tests/predecessor/requirements.txt)
CARGO_DENY := $(CACHE)/cargo-deny-$(DENY)/bin/cargo-deny

export PILOTHOUSE_CACHE := $(CACHE)

.DEFAULT_GOAL := help
.PHONY: help demo test figures lint fmt deny audit image control-plane synapse

help: ## shows this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## runs Pilothouse with a homeserver and a pretend cluster; TOUR=1 plays a tour; KUBE=context KUBE_TARGET=namespace/deployment takes yours
	@echo "Building Pilothouse and its demo (dev profile; some minutes the first time, as matrix-sdk is large) ..."
	cargo build --locked --bin pilothouse --example demo
	@cargo run --quiet --locked --example demo

test: control-plane synapse ## runs every test, on a real homeserver and a real control plane
	@# Before the tests, so that it does not compile beside those that have deadlines.
	cargo build --locked --example demo
	@# They wait more than they compute.
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))} cargo test --locked $(if $(TEST),-- $(TEST))

figures: control-plane synapse $(PREDECESSOR)/.complete ## measures the image's release binary, beside its predecessor: size, memory, start, speed (builds it first, some minutes)
	binary=$$(k8s/image.sh binary) && PILOTHOUSE_BINARY=$$binary PILOTHOUSE_ROUNDS=$(or $(ROUNDS),100) \
	    PILOTHOUSE_PREDECESSOR="$(PREDECESSOR)/bin/python" cargo test --locked --test integration -- --exact figures::figures --nocapture

lint: ## checks the format and runs clippy
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

fmt: ## formats the sources
	cargo fmt

deny: $(CARGO_DENY) ## checks dependencies: bans, licenses, sources; needs no network once everything is fetched
	$(CARGO_DENY) --locked check --hide-inclusion-graph bans licenses sources

audit: $(CARGO_DENY) ## checks dependencies against the RustSec database, from the internet
	$(CARGO_DENY) --locked check advisories

image: ## builds the container image
	k8s/image.sh

control-plane: ## builds etcd, kube-apiserver, kube-controller-manager and kubectl for the tests (once, 5 min, needs Go)
	@tests/control-plane/build "$(CONTROL_PLANE)"

synapse: $(PYTHON)/.complete ## installs Synapse and matrix-nio for the tests (once, 1 min, needs Python 3)

# No --no-deps: pip holds the pins against what the packages ask for.
$(PYTHON)/.complete:
	@if test -x "$(PILOTHOUSE_SYNAPSE_VENV)/bin/python"; then :; else \
	    echo "installing Synapse and matrix-nio ..." >&2; \
	    rm -rf "$(PYTHON)" && python3 -m venv "$(PYTHON)" && \
	    "$(PYTHON)/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt && touch $@; fi

# It asks for Python 3.14 and runs on 3.11 as well.
$(PREDECESSOR)/.complete:
	@echo "installing the predecessor ..." >&2; \
	    rm -rf "$(PREDECESSOR)" && python3 -m venv "$(PREDECESSOR)" && \
	    "$(PREDECESSOR)/bin/pip" install --quiet --disable-pip-version-check --ignore-requires-python --no-deps \
	    -r tests/predecessor/requirements.txt && touch $@

# It reads a few files: optimizing it takes longer than all that it will ever do here.
$(CARGO_DENY):
	CARGO_PROFILE_DEV_DEBUG=none cargo install --quiet --debug --locked cargo-deny@$(DENY) --root "$(CACHE)/cargo-deny-$(DENY)"
