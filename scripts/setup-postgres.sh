#!/bin/sh
# Makes sure that PostgreSQL 15 or newer is installed: installs it when root, names the command otherwise. Looks where
# krowoc-postgres looks. Where it can't be installed that is no failure: krowoc-postgres downloads one of its own.
set -eu

oldest=15

installed() {
    for folder in "$(pg_config --bindir 2>/dev/null || true)" $(echo "$PATH" | tr ':' ' ') /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin /usr/local/pgsql/bin; do
        [ -x "$folder/initdb" ] && [ -x "$folder/pg_ctl" ] && [ -x "$folder/postgres" ] || continue
        major=$("$folder/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
        [ "$major" -ge "$oldest" ] && return 0
    done
    return 1
}

leave() {
    echo "$1" >&2
    echo "Until then Krowoc downloads a PostgreSQL for itself." >&2
    exit 0
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# The major version that apt would install; nothing where its lists name none.
candidate() { apt-cache policy postgresql 2>/dev/null | sed -n 's/^ *Candidate: \([0-9][0-9]*\).*/\1/p'; }

apt_command() {
    # There are no lists at all in a fresh container.
    if [ -z "$(candidate)" ] && is_root; then apt-get update >/dev/null 2>&1 || true; fi
    major=$(candidate)
    if [ "${major:-$oldest}" -ge "$oldest" ]; then
        echo "apt-get install -y postgresql"
    else
        # Debian 11 and Ubuntu 22.04 have older ones; PostgreSQL's own repository has every version, and a script that adds it.
        echo "apt-get install -y postgresql-common ca-certificates &&" \
            "/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y && apt-get install -y postgresql"
    fi
}

if [ -n "${KROWOC_TEST_DATABASE_URL:-}" ] || installed; then
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
if command -v apt-get >/dev/null; then
    command=$(apt_command)
elif command -v dnf >/dev/null; then
    command="dnf install -y postgresql-server"
elif command -v apk >/dev/null; then
    command="apk add postgresql postgresql-client"
elif command -v brew >/dev/null; then
    command="brew install postgresql@17"
else
    leave "PostgreSQL $oldest or newer is not installed; your system's package manager may have its server."
fi

case "$command" in
    brew*) ;;
    *) is_root || leave "PostgreSQL $oldest or newer is not installed. To install it:  sudo sh -c '$command'" ;;
esac

echo "Installing PostgreSQL: $command"
# The lists may be too old for the packages that they name.
sh -c "$command" >/dev/null 2>&1 || { ! command -v apt-get >/dev/null || apt-get update; sh -c "$command"; } ||
    leave "PostgreSQL could not be installed; see above."

installed || leave "What was installed is older than PostgreSQL $oldest, which Krowoc needs."
