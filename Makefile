# Everything here needs Rust 1.95 and PostgreSQL 15 or newer, which is set up where that may be. `make check` asks it whether the offline
# query data is current; it also builds its checking tools once, for which it has to reach crates.io.

CARGO ?= cargo
export TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test api torture bench check fmt clippy doc deny unused typos direction generated queries generate
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: ## a document is summarized, its worker is killed halfway, another finishes
	@scripts/setup-postgres.sh
	@scripts/demo.sh

test: ## every test, on a PostgreSQL of its own
	@scripts/setup-postgres.sh
	@scripts/setup-torture.sh || true
	@scripts/test.sh

api: ## every operation of a real server, asked rightly and wrongly by schemathesis (Python), for two minutes
	@scripts/setup-postgres.sh
	@scripts/schemathesis.sh

torture: ## faults on purpose, the long form, about an hour; SIZE=short for minutes, TORTURE='kills --seed 7' for more
	@scripts/setup-postgres.sh
	@scripts/setup-torture.sh || true
	$(CARGO) build --locked --release --package krowoc
	pgbouncer=$$(scripts/pgbouncer.sh) && \
	$(TARGET)/release/krowoc torture --size $(or $(SIZE),long) $${pgbouncer:+--pgbouncer "$$pgbouncer"} $(TORTURE)

bench: ## measurements, each beside its floor: all, or WORKS='chain latency'
	@scripts/setup-postgres.sh
	$(CARGO) bench --locked --bench works -- $(WORKS)

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
	@scripts/tool.sh cargo-machete --skip-target-dir

typos:
	@scripts/tool.sh typos

direction:
	@scripts/direction.sh

generated:
	@scripts/generated.sh --check

queries:
	@scripts/setup-postgres.sh
	@scripts/queries.sh --check

generate: ## writes the generated files anew
	@scripts/generated.sh
	@scripts/setup-postgres.sh
	@scripts/queries.sh
