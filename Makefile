# The commands of the README. Tools are installed into .tools/, never system-wide.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help tools build demo test lint bench

help: ## What can be done here
	@sed -n "s/^\([a-z]*\):.*## \(.*\)/  make \1: \2/p" $(MAKEFILE_LIST)

tools: ## Install nats-server and the guests' toolchains into .tools/
	@guests/tools.sh

build: tools ## Build the host (target/release/wasmbay)
	@echo "building the host; the first time takes some minutes"
	@cargo build --release --locked --package wasmbay

demo: build ## Run the shop: six services in five languages behind http://127.0.0.1:8080, a page on port 8090
	@cat examples/shop/try.txt
	@target/release/wasmbay up examples/shop --admin 127.0.0.1:8090

test: tools ## Run all tests
	cargo test --locked --manifest-path guests/rust/Cargo.toml --package inventory --package payment
	cd guests/go/payment && PATH="$(CURDIR)/.tools/bin:$$PATH" go test ./card/...
	cargo test --locked --workspace

lint: ## Check formatting, lints and documentation
	cargo fmt --all --check
	cargo fmt --manifest-path guests/rust/Cargo.toml --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

bench: build ## Measure what a call costs, against native services; writes docs/performance.md
	@guests/tools.sh nestjs
	cargo bench --locked --package wasmbay --bench compare -- --write
