#!/bin/sh
# venv.sh [DIR] - the packages of requirements.txt in a virtual environment (build/venv-eval), from the package index that pip is set
# up for. Where that cannot be it says so and ends well: the metrics that need a package are then left out, and the checks skipped.
set -u
cd "$(dirname "$0")/../.."
dir=${1:-build/venv-eval}
stamp=$dir/.requirements
if ! cmp -s tools/eval/requirements.txt "$stamp"; then
    echo "eval: packages of tools/eval/requirements.txt into $dir"
    if { [ -x "$dir/bin/pip" ] || python3 -m venv "$dir"; } && timeout 300 "$dir/bin/pip" install -q \
        --disable-pip-version-check --no-input --timeout 20 --retries 2 -r tools/eval/requirements.txt; then
        cp tools/eval/requirements.txt "$stamp"
    else
        echo "eval: not all of it could be installed (python3-venv and a package index are needed)"
    fi
fi
