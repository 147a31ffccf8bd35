#!/bin/sh
# Makes sure that PostgreSQL 15 or newer is installed: installs it when root, names the command otherwise. Looks where
# krowoc-postgres looks.
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

if [ -n "${KROWOC_TEST_DATABASE_URL:-}" ] || installed; then
    exit 0
fi

if command -v apt-get >/dev/null; then
    command="apt-get install -y postgresql"
elif command -v dnf >/dev/null; then
    command="dnf install -y postgresql-server"
elif command -v apk >/dev/null; then
    command="apk add postgresql"
elif command -v brew >/dev/null; then
    command="brew install postgresql@17"
else
    echo "PostgreSQL $oldest or newer is needed; install its server with your system's package manager." >&2
    exit 1
fi

case "$command" in
    brew*) ;;
    *)
        if [ "$(id -u)" -ne 0 ]; then
            echo "PostgreSQL $oldest or newer is needed. Install it with:  sudo $command" >&2
            exit 1
        fi
        ;;
esac

echo "Installing PostgreSQL: $command"
case "$command" in
    apt-get*)
        export DEBIAN_FRONTEND=noninteractive
        # The lists may be too old for the packages they name, or missing altogether, as in a fresh container.
        $command >/dev/null 2>&1 || { apt-get update && $command; }
        ;;
    *) $command ;;
esac

installed || { echo "PostgreSQL was installed, but no version from $oldest on was found afterwards." >&2; exit 1; }
