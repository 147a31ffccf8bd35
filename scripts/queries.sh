#!/bin/sh
# Writes .sqlx/, against which queries are checked at compile time without a database; with --check, says whether it is current.
set -eu
cd "$(dirname "$0")/.."

if [ "${1:-}" != --within ]; then
    command -v psql >/dev/null || { echo "psql is needed, which comes with PostgreSQL's client programs." >&2; exit 1; }
    exec cargo run --quiet --locked --package krowoc-postgres --example throwaway -- "$0" --within "${1:-}"
fi

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
for migration in migrations/*.sql; do
    psql --quiet --no-psqlrc --single-transaction --set ON_ERROR_STOP=1 --file "$migration" "$DATABASE_URL"
done
# The macros write what they learn while they expand; cargo does not know that, so the crate must look changed.
touch engine/src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" cargo check --quiet --locked --package krowoc-engine --all-features --all-targets
if [ "$2" = --check ]; then
    diff -r -q .sqlx "$fresh" || { echo ".sqlx/ is not current; run: make generate" >&2; exit 1; }
else
    rm -rf .sqlx
    mkdir .sqlx
    cp "$fresh"/*.json .sqlx/
fi
