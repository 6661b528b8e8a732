# Everything that a person or a machine runs. CI runs these and nothing else.

SHELL := /bin/bash
# As cargo reads it, so that `CARGO_TARGET_DIR=… make test` works.
TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help setup guests build demo run check test e2e power-cut disks kill-test soak fuzz bench bench-peers clean

help: ## List these
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what builds and tests need (Debian, rustup); quick when it is there
	@tests/setup.sh

build: setup ## Build the server
	$(CARGO) build --release

guests: setup ## Build the components into target/components
	guests/build.sh --out $(TARGET)/components --target-dir $(TARGET)/guests

demo: build ## Record the bundled clip over RTMP as FLV, TS and MP4, and show the files
	@tests/demo.sh $(TARGET)/release/reelwright

run: build ## Start the server for real use
	$(TARGET)/release/reelwright serve --formats formats

check: setup ## Formatting, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	$(CARGO) clippy --release -p reelwright --features native-formats -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps

test: setup ## All tests
	$(CARGO) test --release --workspace

e2e: setup ## The tests with real senders and readers only
	$(CARGO) test --release -p reelwright --test e2e

power-cut: setup ## Power cuts at every call of short recordings, over 100,000 disks to repair
	$(CARGO) test --release -p reelwright --test durability -- --ignored --nocapture

disks: setup ## The tests of real file systems and of kills only, as root
	$(CARGO) test --release -p reelwright --test disks

kill-test: setup ## Kill the server KILLS times (1000), with seed SEED (any): no file is lost, nor any event
	REELWRIGHT_KILLS=$(KILLS) REELWRIGHT_SEED=$(SEED) \
		$(CARGO) test --release -p reelwright --test disks --test e2e -- --ignored --nocapture as_often_as

soak: setup ## 100 streams at once; a disk frozen for 30 s; hostile components; SWAPS swaps (1000) in each mode
	$(CARGO) test --release -p reelwright --test e2e --test disks --test formats -- --ignored --nocapture \
		--skip soak_swap_storm soak
	# Alone: it measures what its process holds, and listens to the log.
	REELWRIGHT_SWAPS=$(SWAPS) $(CARGO) test --release -p reelwright --test formats -- --ignored --nocapture soak_swap_storm

fuzz: setup ## Fuzz what comes from outside for FUZZ_SECONDS (3600)
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),3600) tests/fuzz/run.sh

bench: ## What the parts cost, beside the baseline (five minutes); ARGS=--bless makes it the baseline
	@tests/setup.sh --bench
	$(CARGO) bench -p reelwright --bench bench -- $(ARGS)

bench-peers: ## Reelwright beside nginx and FFmpeg, on the same streams: 20 minutes, to target/bench-peers
	@tests/setup.sh --peers
	$(CARGO) build --release -p reelwright -p reelwright-peers --features reelwright/native-formats \
		--bin reelwright --bin reelwright-peers
	$(TARGET)/release/reelwright-peers $(ARGS)

clean: ## Remove what was built
	$(CARGO) clean
