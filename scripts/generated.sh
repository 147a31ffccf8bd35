#!/bin/sh
# Writes the files that are generated from the code; with --check, says which are not current.
set -eu
cd "$(dirname "$0")/.."

schema=workflows/krowoc-workflow.v1.schema.json
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
cargo run --quiet --locked --package krowoc -- schema workflow >"$fresh"

if [ "${1:-}" = --check ]; then
    if ! diff -u "$schema" "$fresh"; then
        echo "$schema is not current; run: make generate" >&2
        exit 1
    fi
else
    mkdir -p "$(dirname "$schema")"
    cp "$fresh" "$schema"
fi
