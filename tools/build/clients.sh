#!/bin/sh
# clients.sh [DIR] - the programs of others that `make test` talks to the daemon with, in a virtual environment (build/venv-clients):
# the official openai package, Playwright, schemathesis; from PyPI, in versions that were seen to work with Python 3.11. Chromium comes
# from the distribution where this may install it (root). What cannot be had is said and left out: the checks that need it are then
# skipped, with the reason. Half a minute on an idle machine.
set -u
cd "$(dirname "$0")/../.."
dir=${1:-build/venv-clients}
packages="openai==3.57.0 playwright==1.65.2 schemathesis==4.32.5"

stamp=$dir/.packages
if [ "$(cat "$stamp" 2>/dev/null)" != "$packages" ]; then
    echo "clients: $packages into $dir"
    # shellcheck disable=SC2086
    if { [ -x "$dir/bin/pip" ] || python3 -m venv "$dir"; } && timeout 100 "$dir/bin/pip" install -q \
        --disable-pip-version-check --no-input --timeout 20 --retries 2 $packages; then
        echo "$packages" >"$stamp"
    else
        echo "clients: not all of it could be installed (python3-venv and a package index are needed)"
    fi
fi

if command -v chromium >/dev/null 2>&1; then
    echo "clients: $(chromium --version 2>/dev/null | head -n 1)"
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "clients: chromium with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && timeout 100 apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1; } ||
        echo "clients: chromium could not be installed"
else
    echo "clients: chromium is not here and only root can install it"
fi
