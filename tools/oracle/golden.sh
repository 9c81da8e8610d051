#!/bin/sh
# golden.sh VENV - rebuild tests/golden with PyTorch in a virtual environment (created when absent).
set -eu
venv=$1
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q -r tools/oracle/requirements.txt
fi
cd "$(dirname "$0")"
for script in golden_*.py *_oracle.py; do
    echo "golden: $script"
    "$OLDPWD/$venv/bin/python" "$script"
done
