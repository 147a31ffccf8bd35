#!/bin/sh
# The product's first minute, on a private PostgreSQL of its own that is gone afterwards.
set -eu
cd "$(dirname "$0")/.."

"${CARGO:-cargo}" build --locked --bin krowoc
# Whatever database is configured, the demo does not touch it.
unset DATABASE_URL
KROWOC_HOME=$(mktemp -d "${TMPDIR:-/tmp}/krowoc-demo.XXXXXX")
export KROWOC_HOME
trap 'rm -rf "$KROWOC_HOME"' EXIT
# Not every shell carries out the trap above when a signal ends it.
trap 'exit 130' INT TERM
# Run by root, the server runs under another account, which has to reach its folder in here.
chmod 755 "$KROWOC_HOME"

echo
"${TARGET:-target}/debug/krowoc" demo "$@"
