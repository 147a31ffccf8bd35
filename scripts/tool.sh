#!/bin/sh
# Runs a checking tool in its pinned version: the one on PATH if it is that version, else one built once into the target folder.
# Where it can't be had, that is a failure: a check that was not made must not look like one that passed.
set -eu
cd "$(dirname "$0")/.."

tool=$1
shift
case "$tool" in
    cargo-deny) crate=cargo-deny version=0.20.2 flags=--no-default-features ;;
    cargo-machete) crate=cargo-machete version=0.9.2 flags= ;;
    typos) crate=typos-cli version=1.52.0 flags= ;;
    *) echo "unknown tool $tool" >&2; exit 2 ;;
esac

is_wanted() { "$1" --version 2>/dev/null | grep -qw -F "$version"; }

tools=$(pwd)/target/tools
case "${TARGET:-target}" in /*) tools=$TARGET/tools ;; esac
if is_wanted "$tool"; then
    program=$tool
else
    program=$tools/bin/$tool
    if ! is_wanted "$program"; then
        echo "Building $crate $version (once)"
        # shellcheck disable=SC2086
        cargo install "$crate" --version "$version" --locked --quiet $flags --root "$tools" --target-dir "$tools/build" || {
            echo "$crate can't be installed here: what it checks was NOT checked." >&2
            exit 1
        }
        rm -rf "$tools/build"
    fi
fi
exec "$program" "$@"
