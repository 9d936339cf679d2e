# The ways into this repository. `make` alone lists them.
# CARGO_TARGET_DIR is honoured; built tools go to WORKSHOP_TEST_CACHE, outside the checkout.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TARGET := $(or $(CARGO_TARGET_DIR),target)
CACHE := $(or $(WORKSHOP_TEST_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/workshop-platform)
WORKSHOP := $(TARGET)/release/workshop
# What `make up` runs; e.g. make up SOURCES=../my-workshops ARGUMENTS="--state /tmp/state"
SOURCES ?= examples/workshops
ARGUMENTS ?=
# Narrows `make test`, e.g. make test TESTS="--test it backend"
TESTS ?=

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

.PHONY: build
build: ## install what building needs, build both programs and the platform beside `workshop`
	@hack/deps build
	hack/web
	cargo build --quiet --release --locked
	hack/platform $(TARGET)
	echo "$(WORKSHOP)"

.PHONY: image
image: build ## pack the program of the cluster into an image archive, for docker load or skopeo
	@hack/image $(WORKSHOP) $(TARGET)/workshop-image.tar workshop:0.1.0

.PHONY: chart
chart: ## make a Helm chart of manifests/ and crds/
	@hack/chart $(TARGET)/chart
	echo "$(TARGET)/chart"

.PHONY: backend
backend: ## build the static backend only, and the platform directories beside debug and release programs
	@hack/deps build
	hack/web
	hack/platform $(TARGET)

.PHONY: web
web: ## build the web pages into web/dist, where both programs embed them from
	@hack/web

.PHONY: up
up: build ## build, then import, compile, run and serve the examples on this machine
	@hack/deps run
	# Where the examples' base cannot be had from its registry, the local store has to have one.
	timeout 5 bash -c '</dev/tcp/registry-1.docker.io/443' 2>/dev/null || hack/seed-busybox $(WORKSHOP) $(ARGUMENTS)
	exec $(WORKSHOP) up $(ARGUMENTS) $(SOURCES)

.PHONY: test
test: ## install what tests need, then run all of them on real parts
	@hack/deps build test
	# The test cluster is built from Go modules while cargo fetches and compiles.
	log=$$(mktemp)
	hack/control-plane/control-plane build all >"$$log" 2>&1 & cluster=$$!
	trap 'kill $$cluster 2>/dev/null || true; rm -f "$$log"' EXIT
	hack/web check
	cargo test --quiet --no-run --locked --all-features
	hack/platform $(TARGET)
	wait $$cluster || { status=$$?; cat "$$log" >&2; exit $$status; }
	cargo test --quiet --locked --all-features $(TESTS)

.PHONY: ci
ci: ## everything that a change must pass
	@hack/deps build test
	# Started first, because it takes longest; `make test` waits for the same build.
	hack/control-plane/control-plane build all >/dev/null 2>&1 & cluster=$$!
	trap 'kill $$cluster 2>/dev/null || true' EXIT
	# Before anything is compiled, because the programs embed the pages.
	hack/web
	$(MAKE) lint
	$(MAKE) test
	$(MAKE) generated
	$(MAKE) deny

.PHONY: lint
lint: ## formatting and clippy, warnings denied
	@cargo fmt --check
	cargo clippy --quiet --locked --all-targets --all-features -- -D warnings
	# The two programs as they are shipped: a warning may hide behind a feature.
	cargo clippy --quiet --locked -- -D warnings
	cargo clippy --quiet --locked --no-default-features --features backend -- -D warnings

.PHONY: generate
generate: ## write crds/ anew from the Rust types
	@cargo run --quiet --locked --all-features --bin workshop -- crds -o crds

.PHONY: generated
generated: generate ## fail when a generated file is not what the sources give
	@changed=$$(git status --porcelain -- crds)
	if [[ -n $$changed ]]; then
	  printf 'generated files are not what is committed; run make generate and commit:\n%s\n' "$$changed" >&2
	  exit 1
	fi

.PHONY: deny
deny: ## licences, banned crates, sources and, where the database can be fetched, advisories
	@hack/deny $(CACHE)

.PHONY: bench
bench: ## measure the figures of docs/benchmarks.md in release builds
	@hack/deps build bench
	hack/web
	hack/control-plane/control-plane build all
	hack/platform $(TARGET)
	cargo bench --quiet --locked $(BENCHES)

.PHONY: fmt
fmt: ## format the sources
	@cargo fmt

.PHONY: clean
clean: ## remove what cargo built here; built tools stay in the cache
	@cargo clean
