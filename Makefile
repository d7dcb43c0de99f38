# The commands of the README. Tools are installed into .tools/, never system-wide.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help tools build install dist demo test lint bench

# Where `install` puts things, below DESTDIR; and how the binary is built (`dev` is quick to build and slow), or
# one that is there already.
PREFIX ?= /usr/local
PROFILE ?= release
BINARY ?=
BUILT := $(or $(BINARY),target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/wasmbay)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# Where `dist` makes its archive.
DISTDIR ?= target/dist
DIST := wasmbay-$(VERSION)-$(shell uname -m)-$(shell uname -s | tr A-Z a-z)

help: ## What can be done here
	@sed -n "s/^\([a-z]*\):.*## \(.*\)/  make \1: \2/p" $(MAKEFILE_LIST)

tools: ## Install nats-server and the guests' toolchains into .tools/
	@guests/tools.sh

build: tools ## Build the host (target/release/wasmbay)
	@echo "building the host; the first time takes some minutes"
	@cargo build --release --locked --package wasmbay

install: ## Install binary, completions and manual pages below PREFIX (/usr/local)
	$(if $(BINARY),,@cargo build --profile $(PROFILE) --locked --package wasmbay)
	install -d $(DESTDIR)$(PREFIX)/{bin,share/man/man1,share/bash-completion/completions,share/zsh/site-functions,share/fish/vendor_completions.d}
	install -m 755 $(BUILT) $(DESTDIR)$(PREFIX)/bin/wasmbay
	$(BUILT) man $(DESTDIR)$(PREFIX)/share/man/man1
	$(BUILT) completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/wasmbay
	$(BUILT) completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_wasmbay
	$(BUILT) completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/wasmbay.fish

dist: ## Make target/dist/wasmbay-VERSION-MACHINE.tar.gz, with checksums
	rm -rf $(DISTDIR)/$(DIST)
	@$(MAKE) --no-print-directory install DESTDIR= PREFIX=$(abspath $(DISTDIR)/$(DIST))
	cp -r LICENSE README.md CHANGELOG.md docs/deploy $(DISTDIR)/$(DIST)/
	cd $(DISTDIR)/$(DIST) && find * -type f | LC_ALL=C sort | xargs sha256sum >../SHA256SUMS && mv ../SHA256SUMS .
	cd $(DISTDIR) && tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$${SOURCE_DATE_EPOCH:-$$(git -C $(CURDIR) log -1 --format=%ct)} -czf $(DIST).tar.gz $(DIST)
	cd $(DISTDIR) && sha256sum $(DIST).tar.gz >$(DIST).tar.gz.sha256
	@echo "made $(DISTDIR)/$(DIST).tar.gz"

demo: build ## Run the shop: six services in five languages behind http://127.0.0.1:8080, a page on port 8090
	@cat examples/shop/try.txt
	@target/release/wasmbay up examples/shop --admin 127.0.0.1:8090

test: tools ## Run all tests
	@guests/tools.sh prometheus postgres editors nestjs nestjs11 nestjs10 mqtt schemathesis openapi grpc grpc-web otelcol browsers registry
	cargo test --locked --manifest-path guests/rust/Cargo.toml --package inventory --package payment
	cd guests/go/payment && PATH="$(CURDIR)/.tools/bin:$$PATH" go test ./card/...
	cargo test --locked --workspace

lint: ## Check formatting, lints, manifests and documentation
	cargo fmt --all --check
	cargo fmt --manifest-path guests/rust/Cargo.toml --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@guests/tools.sh kubernetes-validate
	.tools/bin/kubernetes-validate --strict docs/deploy/kubernetes.yaml
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

bench: build ## Measure what a call costs, against native services; writes docs/performance.md
	@guests/tools.sh nestjs
	cargo bench --locked --package wasmbay --bench compare -- --write
