#!/bin/sh
# Prints the path of a PgBouncer that keeps prepared statements (1.21 or newer): the one on PATH, or one that is built once into the
# target folder from the source package of a newer Debian. Prints nothing, and why on standard error, where neither can be had.
set -eu
cd "$(dirname "$0")/.."

suite=trixie

fits() {
    version=$("$1" --version 2>/dev/null | sed -n 's/^PgBouncer \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    [ -n "$version" ] && { [ "${version% *}" -gt 1 ] || [ "${version#* }" -ge 21 ]; }
}

for found in "$(command -v pgbouncer || true)" /usr/sbin/pgbouncer; do
    if [ -n "$found" ] && fits "$found"; then
        echo "$found"
        exit 0
    fi
done

tools=$(pwd)/target/tools
case "${TARGET:-target}" in /*) tools=$TARGET/tools ;; esac
program=$tools/bin/pgbouncer
if fits "$program"; then
    echo "$program"
    exit 0
fi

leave() {
    echo "No PgBouncer 1.21 or newer: $1" >&2
    exit 0
}

command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] || leave "install one and put it on PATH"
echo "Building PgBouncer (once)" >&2
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
{
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y gcc make pkg-config libevent-dev || { apt-get update && apt-get install -y gcc make pkg-config libevent-dev; }
    # Lists of their own: those of the system are left as they are.
    mirror=$(sed -n 's|^URIs: *\(http[^ ]*/debian\)/* *$|\1|p; s|^deb  *\(\[[^]]*\] \)*\(http[^ ]*/debian\)/* .*|\2|p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
    echo "deb-src ${mirror:-http://deb.debian.org/debian} $suite main" >"$build/sources.list"
    mkdir -p "$build/lists/partial" "$build/source"
    set -- -o Dir::Etc::sourcelist="$build/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$build/lists" \
        -o APT::Sandbox::User=root
    apt-get update "$@"
    (cd "$build/source" && apt-get source "$@" --download-only pgbouncer && tar -xf pgbouncer_*.orig.tar.gz --strip-components 1 &&
        ./configure --without-cares --without-openssl --without-pam && make pgbouncer)
    mkdir -p "$tools/bin"
    cp "$build/source/pgbouncer" "$program"
} >"$build/log" 2>&1 || {
    tail -n 20 "$build/log" >&2
    leave "it could not be built; see above"
}
fits "$program" && echo "$program"
