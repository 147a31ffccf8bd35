# `make demo`, `make test` and `make check` need Rust and, but for the last, PostgreSQL, which they set up where they may.

CARGO ?= cargo
export TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test bench check fmt clippy doc deny unused typos direction generated queries generate
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: ## a document is summarized, its worker is killed halfway, another finishes
	@scripts/setup-postgres.sh
	@scripts/demo.sh

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
	@scripts/queries.sh --check

generate: ## writes the generated files anew
	@scripts/generated.sh
	@scripts/queries.sh
