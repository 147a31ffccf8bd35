#!/bin/sh
# The direction of dependencies: src → {api, steps} → engine, and src → torture → {engine, postgres}. The engine knows no HTTP framework
# and no provider; api, steps and torture never meet; apalis stays in the engine's worker.
set -eu
cd "$(dirname "$0")/.."

status=0

never() {
    package=$1
    shift
    tree=$(cargo tree --locked --package "$package" --edges normal,build --prefix none --format '{p}' | cut -d ' ' -f 1 | sort -u)
    for crate in "$@"; do
        if echo "$tree" | grep -qx -e "$crate"; then
            echo "$package depends on $crate:" >&2
            cargo tree --locked --package "$package" --edges normal,build --invert "$crate" >&2 || true
            status=1
        fi
    done
}

never krowoc-engine poem poem-openapi async-graphql axum hyper reqwest krowoc-api krowoc-steps krowoc-postgres krowoc-torture krowoc
never krowoc-steps poem poem-openapi async-graphql krowoc-api krowoc-postgres krowoc-torture krowoc
never krowoc-api reqwest krowoc-steps krowoc-postgres krowoc-torture krowoc
never krowoc-postgres krowoc-engine krowoc-api krowoc-steps krowoc-torture krowoc
never krowoc-torture poem poem-openapi async-graphql axum krowoc-api krowoc-steps krowoc

strays=$(grep -rlE '\bapalis(_core)?::' --include='*.rs' src api steps postgres torture engine/src | grep -v '^engine/src/worker/' || true)
if [ -n "$strays" ]; then
    echo "apalis outside engine/src/worker/:" >&2
    echo "$strays" >&2
    status=1
fi
exit "$status"
