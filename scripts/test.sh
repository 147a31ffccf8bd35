#!/bin/sh
# Every test: with nextest where it is installed, else with cargo's own runner; documentation examples in either case.
set -eu
cd "$(dirname "$0")/.."

# For the tests behind a pooler, which are skipped without one.
KROWOC_TEST_PGBOUNCER=$(scripts/pgbouncer.sh)
export KROWOC_TEST_PGBOUNCER

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked
    cargo test --workspace --locked --doc
else
    echo "cargo-nextest is not installed; using cargo test."
    cargo test --workspace --locked
fi
