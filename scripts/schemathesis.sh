#!/bin/sh
# Asks a real `krowoc serve`, with a database that holds something, whatever its OpenAPI document allows and much that it does not: no answer
# may be a server error, and every one must be as the document says. Bounded to about two minutes; loopback only.
set -eu
cd "$(dirname "$0")/.."

version=4.32.5
target=${TARGET:-target}
venv=$target/schemathesis
schemathesis=$venv/bin/schemathesis
if ! "$schemathesis" --version 2>/dev/null | grep -qw -F "$version"; then
    echo "Installing schemathesis $version (once)"
    { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"; } || {
        echo "schemathesis can't be installed here (it takes Python 3.10 with venv, and PyPI): the API was NOT checked against its document." >&2
        exit 1
    }
fi

"${CARGO:-cargo}" build --locked --bin krowoc
krowoc=$target/debug/krowoc
unset DATABASE_URL
KROWOC_HOME=$(mktemp -d "${TMPDIR:-/tmp}/krowoc-schemathesis.XXXXXX")
chmod 755 "$KROWOC_HOME"
KROWOC_API_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
KROWOC_LOG=warn,krowoc::operations=info
NO_COLOR=1
export KROWOC_HOME KROWOC_API_TOKEN KROWOC_LOG NO_COLOR
server= worker=
finish() {
    kill $server $worker 2>/dev/null || true
    wait
    rm -rf "$KROWOC_HOME"
}
trap finish EXIT
trap 'exit 130' INT TERM

log=$KROWOC_HOME/serve.log
"$krowoc" serve --bind 127.0.0.1:0 >"$log" 2>&1 &
server=$!
"$krowoc" worker >"$KROWOC_HOME/worker.log" 2>&1 &
worker=$!
address=
for _ in $(seq 600); do
    address=$(sed -n 's/.*serving HTTP address=\([^ ]*\).*/\1/p' "$log")
    [ -z "$address" ] || break
    kill -0 "$server" || { cat "$log" >&2; exit 1; }
    sleep 0.1
done

# The workflow that the document speaks of; one run that succeeds, one with a map, and one that fails and leaves a dead letter.
"$krowoc" init "$KROWOC_HOME/project" >/dev/null
"$krowoc" apply workflows "$KROWOC_HOME/project/workflows"
"$krowoc" run workflows/support-triage.yaml --input @examples/data/support-message.json >/dev/null
"$krowoc" run workflows/extract-invoices.yaml --input @examples/data/invoices.json >/dev/null
"$krowoc" run workflows/flaky-provider.yaml --set question="What does durable mean?" >/dev/null || true

status=0
"$schemathesis" --config-file scripts/schemathesis.toml run "http://$address/api/v1/openapi.json" \
    --header "Authorization: Bearer $KROWOC_API_TOKEN" --checks all --max-time 110 --workers 2 --request-timeout 90 "$@" || status=$?
if grep -E 'panic|ERROR' "$log"; then
    echo "The server's log has errors." >&2
    status=1
fi
exit "$status"
