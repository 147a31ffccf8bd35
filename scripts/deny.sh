#!/bin/sh
# Licences, banned crates and sources; advisories where their database can be reached.
set -eu
cd "$(dirname "$0")/.."

scripts/tool.sh cargo-deny check licenses bans sources

if why=$(scripts/tool.sh cargo-deny fetch db 2>&1); then
    scripts/tool.sh cargo-deny check --disable-fetch advisories
else
    echo "$why" >&2
    echo "The advisory database can't be reached: advisories were NOT checked." >&2
fi
