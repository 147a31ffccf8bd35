#!/bin/sh
# Writes the files that are generated from the code; with --check, says which are not current.
set -eu
cd "$(dirname "$0")/.."

fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
status=0

# The file, and which schema `krowoc schema` prints for it.
generated() {
    cargo run --quiet --locked --package krowoc -- schema "$2" >"$fresh"
    if [ "$mode" != --check ]; then
        mkdir -p "$(dirname "$1")"
        cp "$fresh" "$1"
    elif ! diff -u "$1" "$fresh"; then
        echo "$1 is not current; run: make generate" >&2
        status=1
    fi
}

mode=${1:-}
generated workflows/krowoc-workflow.v1.schema.json workflow
generated api/openapi.v1.json openapi
exit "$status"
