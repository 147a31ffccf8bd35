#!/bin/sh
# Installs what some scenarios of `krowoc torture` need, when root and where apt knows it. What can't be had makes them skipped, and is the
# exit code here.
set -eu

packages="libfaketime"

missing() {
    for package in $packages; do
        dpkg-query --show --showformat '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
    done
}

wanted=$(missing)
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    echo "Installing for krowoc torture:" $wanted
    # The lists may be too old for the packages that they name.
    apt-get install -y --no-install-recommends $wanted >/dev/null 2>&1 ||
        { apt-get update && apt-get install -y --no-install-recommends $wanted; } >/dev/null 2>&1 || true
fi
wanted=$(missing)
[ -z "$wanted" ] || { echo "Not installed, so some scenarios of krowoc torture are skipped:" $wanted >&2; exit 1; }
