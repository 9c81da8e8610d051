#!/bin/sh
# End-to-end checks of the two programs: run.sh BUILD_DIR. One line per check, and as the last line
# "e2e: N passed, N failed, N skipped". Python's standard library only.
cd "$(dirname "$0")/../.." || exit 1
exec python3 tests/e2e/main.py "$@"
