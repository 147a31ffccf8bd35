# `make test` and `make check` need Rust and, for the tests, PostgreSQL, which `make test` sets up where it may.

CARGO ?= cargo
export TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help test bench check fmt clippy doc deny unused typos direction generated queries generate
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

test: ## every test, on a PostgreSQL of its own
	@scripts/setup-postgres.sh
	@scripts/test.sh

bench: ## measurements, each beside its floor
	@scripts/setup-postgres.sh
	$(CARGO) bench --workspace

check: fmt clippy doc deny unused typos direction generated queries ## everything but the tests

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

deny:
	@scripts/deny.sh

unused:
	@scripts/tool.sh cargo-machete --skip-target-dir || [ $$? -eq 75 ]

typos:
	@scripts/tool.sh typos || [ $$? -eq 75 ]

direction:
	@scripts/direction.sh

generated:
	@scripts/generated.sh --check

queries:
	@if [ -x scripts/sqlx-check.sh ]; then scripts/sqlx-check.sh; fi

generate: ## writes the generated files anew
	@scripts/generated.sh
